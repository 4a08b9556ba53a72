"""Drawn faces and their truth, parsing maps, and scores measured from a map and an image."""
