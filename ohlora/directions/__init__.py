"""Directions in W: solvers and measures on arrays. No networks, no files."""

from ohlora.directions.svm import svm_direction

__all__ = ["svm_direction"]
