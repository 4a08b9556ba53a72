"""Measures of images and of edits: tensors in, numbers out."""
