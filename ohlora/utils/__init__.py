"""What every other module may use: files, images, counted randomness, the kimg clock, plots."""
