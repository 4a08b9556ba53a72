"""Label contrast: a pair of images differs by what its labels say, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ohlora.attributes import vocabulary
from ohlora.commands.merge import merge_files
from ohlora.directions.label_contrast import LabelContrast, LabelPairs
from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.formats import network_files
from ohlora.formats.identity_files import IdentityFile
from tests.conftest import ROOT

TOY = ROOT / "ohlora" / "weights" / "toy"
NETWORK, GUIDE = str(TOY / "merged.safetensors"), IdentityFile(file=str(TOY / "identity.safetensors"))
LABELS = ("eyes", "hair_color", "mouth", "pose")


def faces(count: int) -> torch.Tensor:
    """Images of the toy StyleGAN."""
    generator = network_files.load_generator(TOY / "generator.safetensors").eval()
    torch.manual_seed(2)
    with torch.no_grad():
        images: torch.Tensor = generator(torch.randn(count, generator.z_dim))
    return images.clamp(-1, 1)


def test_one_label_changes_in_its_turn_and_then_all() -> None:
    pairs = LabelPairs(LabelContrast(NETWORK), LABELS)
    label, other = torch.zeros(5, 4), torch.arange(1.0, 21).view(5, 4)
    changed = pairs.edited(label, other, [0, 1, 2, 3, 7]).bool()
    assert changed.tolist() == [
        [True, False, False, False],  # eyes
        [False, False, True, False],  # mouth
        [False, False, False, True],  # pose
        [True, False, True, True],
        [True, False, True, True],
    ], "the colour of hair is no expression"
    assert not label.any(), "the first labels stay"
    chosen = LabelPairs(LabelContrast(NETWORK, attributes=["hair_color"]), LABELS)
    assert chosen.edited(label[:2], other[:2], [0, 1]).bool().tolist() == [[False, True, False, False]] * 2


def test_new_labels_fill_the_range_of_the_data() -> None:
    """They are functions of seed, stream and number, so that no other image of the batch has a say."""
    pairs = LabelPairs(LabelContrast(NETWORK), LABELS)
    others = torch.full((2000, 4), 9.0)
    drawn = pairs.drawn(others, 0, "contrast", range(2000))
    assert (drawn[:, 1] == 9).all(), "the colour of hair is no expression, and stays as the data have it"
    found = drawn[:, [0, 2, 3]]
    assert (found >= pairs.low).all() and (found <= pairs.high).all()
    shares = (found - pairs.low) / (pairs.high - pairs.low)
    even = torch.linspace(0, 1, 2000)[:, None].expand(-1, 3)
    torch.testing.assert_close(shares.sort(dim=0).values, even, atol=0.05, rtol=0)
    assert torch.equal(pairs.drawn(others[:2], 0, "contrast", [7, 3]), drawn[[7, 3]])
    assert not torch.equal(pairs.drawn(others[:2], 1, "contrast", [7, 3]), drawn[[7, 3]])


def test_labels_of_0_and_1_stay_so(tmp_path: Path) -> None:
    """And so do scores of a network that does not tell what range its data have."""
    pairs = LabelPairs(LabelContrast(str(TOY / "glass.safetensors"), attributes=["glass"]), ("glass",))
    others = torch.tensor([[0.0], [1.0], [1.0]])
    assert torch.equal(pairs.drawn(others, 0, "contrast", [0, 1, 2]), others)
    network_files.save_network(network_files.load_attributes(NETWORK), tmp_path / "silent.safetensors")
    silent = LabelPairs(LabelContrast(str(tmp_path / "silent.safetensors")), LABELS)
    others = torch.arange(12.0).view(3, 4)
    assert torch.equal(silent.drawn(others, 0, "contrast", [0, 1, 2]), others)


@pytest.mark.parametrize("members", [1, 2])
def test_what_it_asks_is_the_change_of_the_label_and_the_same_person(members: int, tmp_path: Path) -> None:
    network = network_files.load_attributes(NETWORK).eval()
    file = NETWORK
    if members > 1:
        file, judge = str(tmp_path / "search.safetensors"), str(TOY / "judge.safetensors")
        merge_files([Path(NETWORK), Path(judge)], Path(file))
    pairs = LabelPairs(LabelContrast(file, GUIDE), LABELS)
    first = faces(2)
    second = first.clone().requires_grad_()
    labels = torch.zeros(4, 4)
    labels[2:, 2] = 0.5  # the second images: mouths opened wider by half a z-score
    optimizer = torch.optim.Adam([second], lr=0.003)
    losses = []
    for _ in range(60):
        loss = pairs(torch.cat([first, second]), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        change = network(second) - network(first)
    assert losses[-1] < 0.1 * losses[0]
    mouth = network.outputs.index("mouth")
    assert change[:, mouth] == pytest.approx(torch.tensor([0.5, 0.5]), abs=0.1)
    others = [k for k in range(len(network.outputs)) if k != mouth]
    assert change[:, others].abs().mean() < 0.05
    # Two other people score as differently as they are, and the guide says so, too.
    nobody = torch.zeros(4, 4)
    twice, apart = torch.cat([first, first]), torch.cat([first, first.flip(0)])
    assert pairs(twice, nobody) < 0.01
    without = LabelPairs(LabelContrast(NETWORK), LABELS)
    assert pairs(apart, nobody) > without(apart, nobody) + 0.5 > 1


def test_what_no_label_moves_is_left_where_it_is() -> None:
    """Also beyond the data's range, and whatever the other expressions do."""
    network = network_files.load_attributes(NETWORK).eval()
    images = faces(64)
    with torch.no_grad():
        mouths = network(images)[:, network.outputs.index("mouth")]
    pairs = LabelPairs(LabelContrast(NETWORK), LABELS)
    beyond = images[mouths.argmax()][None]
    assert mouths.max() > pairs.high[1] + 0.1
    assert pairs(beyond.repeat(2, 1, 1, 1), torch.zeros(2, 4)) < 1e-6
    # An expression whose label stays is held like any other score.
    unlike = images[mouths.argmin()][None]
    light = LabelPairs(LabelContrast(NETWORK, hold=0, likeness=0), LABELS)
    assert (
        light(torch.cat([beyond, unlike]), torch.zeros(2, 4))
        < 1e-6
        < pairs(torch.cat([beyond, unlike]), torch.zeros(2, 4))
    )


def test_no_image_is_asked_to_go_beyond_the_data() -> None:
    network = network_files.load_attributes(NETWORK).eval()
    pairs = LabelPairs(LabelContrast(NETWORK, attributes=["eyes"], hold=0, likeness=0), LABELS)
    images = faces(8)
    with torch.no_grad():
        eyes = network(images)[:, network.outputs.index("eyes")]
    widest = images[eyes.argmax()][None]
    labels = torch.zeros(2, 4)
    labels[1, 0] = 10.0
    asked = pairs(widest.repeat(2, 1, 1, 1), labels)
    room = (pairs.high[0] - eyes.max()).abs() + (eyes.max() - pairs.low[0]).abs()
    assert asked < room / 2 + 0.3, "ten z-scores more, and as many less, are out of reach"


@pytest.mark.parametrize(
    ("contrast", "labels", "message"),
    [
        (
            {"attributes": ["eyes", "ears"]},
            LABELS,
            "names ears, which is no label; the labels are eyes, hair_color, mouth, pose",
        ),
        ({"attributes": ["chin"]}, ("chin",), r"merged\.safetensors does not score chin; it scores eyes"),
        ({}, ("hair_color",), "none of the labels .hair_color. is an expression of the world. Name some with"),
        ({}, (), "none of the labels .there are none. is an expression"),
    ],
)
def test_settings_that_do_not_fit(contrast: dict[str, list[str]], labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelPairs(LabelContrast(NETWORK, **contrast), labels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"weight": 0}, "weight is 0"), ({"person": -1}, "person is -1"), ({"hold": -1}, "hold is")],
)
def test_weights_that_cannot_be(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelContrast(NETWORK, **setting)  # type: ignore[arg-type]


def test_a_missing_network_is_named() -> None:
    with pytest.raises(MissingArtifactError, match=r"nothing\.safetensors"):
        LabelPairs(LabelContrast("nothing.safetensors"), vocabulary().names("label"))
