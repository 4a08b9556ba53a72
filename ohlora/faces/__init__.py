"""Parsing maps of faces, and attribute scores that are measured from an image and its parsing map."""
