"""Lightning callbacks: checkpoints, grids, progress, prediction writers."""
