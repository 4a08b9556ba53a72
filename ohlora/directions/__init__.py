"""Directions in the spaces of style codes: how they are found, and what edits are made of them. No files."""

from ohlora.directions.svm import svm_direction

__all__ = ["svm_direction"]
