"""What training does to networks, codes and optimizers."""

from __future__ import annotations

import pytest
import torch

from ohlora.errors import ConfigError
from ohlora.networks.training import correct_for_lazy_regularization, mix_styles, select_trainable, update_average
from ohlora.utils import counted
from tests.conftest import tiny_networks


def test_patterns_choose_what_trains() -> None:
    generator, _ = tiny_networks()
    select_trainable(generator, ["mapping.*", "synthesis.to_rgb.bias"], "trainable_generator")
    chosen = {name for name, p in generator.named_parameters() if p.requires_grad}
    known = {name for name, _ in generator.named_parameters()}
    assert chosen == {name for name in known if name.startswith("mapping.")} | {"synthesis.to_rgb.bias"}


def test_a_pattern_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"pattern 'maping.\*' fits no parameter; names begin with mapping, synthesis"
    ):
        select_trainable(tiny_networks()[0], ["maping.*"], "trainable_generator")


def test_an_average_takes_a_share_of_parameters_and_all_of_buffers() -> None:
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(network.weight, 3.0)
    torch.nn.init.constant_(network.running_mean, 5.0)  # type: ignore[arg-type]
    update_average(average, network, 0.75)
    assert average.weight.tolist() == [1.5, 1.5] and average.running_mean.tolist() == [5.0, 5.0]  # type: ignore[union-attr]


def test_lazy_regularization_without_betas_changes_the_rate_only() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    correct_for_lazy_regularization(optimizer, 4)
    assert optimizer.param_groups[0]["lr"] == 0.8


def test_style_mixing_changes_the_later_layers_of_some_images() -> None:
    generator = tiny_networks()[0]
    w = generator.map(torch.randn(64, 8))
    mixed = mix_styles(generator, w, None, 0.5, counted.generators(0, "mixing", range(64)))
    own = (mixed.values == w.values[:, None]).all(dim=2)
    assert own[:, 0].all()
    crossed = ~own[:, -1]
    assert 16 <= int(crossed.sum()) <= 48
    assert (own[:, :-1] | ~own[:, 1:]).all()  # once it is the second latent's, it stays so
