"""SIGTERM and Ctrl-C while a trainer runs."""

from __future__ import annotations

from typing import Any

import lightning as L

from ohlora.utils import signals


class Stopping(L.Callback):
    """Takes the signals back from Lightning, which hears of SIGTERM between two batches only, and not in predictions.

    Training stops between two steps (see :class:`ohlora.modules.base.Stage`), everything else at once.
    """

    def on_train_start(self, trainer: L.Trainer, *about: Any) -> None:
        """Takes them."""
        signals.install()

    def on_validation_start(self, trainer: L.Trainer, *about: Any) -> None:
        """Takes them."""
        signals.install()

    def on_test_start(self, trainer: L.Trainer, *about: Any) -> None:
        """Takes them."""
        signals.install()

    def on_predict_start(self, trainer: L.Trainer, *about: Any) -> None:
        """Takes them."""
        signals.install()
