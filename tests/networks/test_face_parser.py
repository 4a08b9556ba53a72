"""The U-Net for face parsing, and the Dice loss."""

from __future__ import annotations

import pytest
import torch

from ohlora.networks.face_parser import FaceParserNetwork
from ohlora.networks.losses import dice_loss


def test_scores_have_the_images_size() -> None:
    network = FaceParserNetwork(("a", "b", "c"), (8, 16, 8))
    assert network(torch.randn(2, 3, 12, 20)).shape == (2, 3, 12, 20)
    with pytest.raises(ValueError, match="multiples of 4"):
        network(torch.randn(2, 3, 10, 20))
    with pytest.raises(ValueError, match="two or more multiples of 8"):
        FaceParserNetwork(("a",), (8, 12))


def test_dice_counts_every_class_the_same() -> None:
    target = torch.zeros(2, 4, 4, dtype=torch.long)
    target[0, 0, 0] = 1
    perfect = 100 * torch.nn.functional.one_hot(target, 3).movedim(3, 1).float()
    assert float(dice_loss(perfect, target)) == pytest.approx(0, abs=1e-6)
    missed = perfect.clone()
    missed[0, :, 0, 0] = torch.tensor([100.0, 0.0, 0.0])
    # Class 1 loses its only pixel: 1 − (0 + 1)/(1 + 1). Class 0 has 31 pixels, 32 are predicted. Class 2 is absent.
    assert float(dice_loss(missed, target)) == pytest.approx((0.5 + 1 - (2 * 31 + 1) / (31 + 32 + 1)) / 3, abs=1e-6)
