"""What developers run: measurements, comparisons and the W&B workspace."""
