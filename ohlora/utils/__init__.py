"""Utilities that every other module may import: files, images, counted randomness, the kimg clock and plots."""
