"""The files that ohlora reads and writes: networks, directions, samples, and foreign checkpoints."""
