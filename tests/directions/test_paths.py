"""Paths: edits that bend follow the score, stop where nothing is gained, and are kept by files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ohlora.characters.character import Character
from ohlora.directions.edits import Directions, Latents, PathBasis, Steps, moved
from ohlora.directions.finder import Notes, Source
from ohlora.directions.groups import Groups
from ohlora.directions.held import AXIS
from ohlora.directions.own import LEAST_ROOM
from ohlora.directions.paths import PathEdits, Paths
from ohlora.errors import ConfigError
from ohlora.evaluation.scales import DataScale
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.codes import Codes, Space
from tests.conftest import tiny_networks
from tests.directions.linear import Pixels, Reader

NAMES = ("eyes", "mouth", "pose")
WEIGHTS = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.2], [0.0, 0.0, 2.0, 1.0]])


class Bent(Reader):
    """The first score grows ever more slowly, and leaks into the second the farther it goes."""

    def forward(self, images: Tensor) -> Tensor:
        straight = super().forward(images)
        eyes = 2 * torch.tanh(straight[:, 0] / 2)
        return torch.stack([eyes, straight[:, 1] + 0.3 * straight[:, 0] ** 2, straight[:, 2]], dim=1)


def edits(
    network: Reader,
    nodes: int = 4,
    low: float = -1.5,
    high: float = 1.5,
    damping: float = 0.0,
    mean: Tensor = torch.zeros(3, 1, 4),  # noqa: B008
    share: float = 1.0,
    reach: float = 1.0,
) -> PathEdits:
    ends = (torch.full((2,), low), torch.full((2,), high))
    covariance = torch.eye(4, dtype=torch.double)
    basis = PathBasis(network.outputs, mean, covariance, *ends, nodes, damping, 0.0, 0.0, share, reach, 0)
    return PathEdits(NAMES[:2], basis, Pixels(), network)


def codes(*rows: list[float]) -> Codes:
    return Codes(torch.tensor(rows), Space.W)


def test_where_all_is_linear_a_path_is_straight() -> None:
    start = codes([0.1, -0.2, 0.3, 0.0], [0.5, 0.0, 0.0, 0.4])
    network = Reader(NAMES, WEIGHTS)
    found = edits(network).own(start)
    assert found.batch == (2, 2) and found.nodes is not None and found.nodes.shape == (2, 2, 9)
    torch.testing.assert_close(found.nodes[:, :, 4], torch.zeros(2, 2, dtype=torch.double))
    scores = network(Pixels().synthesize(start))
    torch.testing.assert_close(found.nodes[..., 0].float(), -1.5 - scores[:, :2], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.nodes[..., -1].float(), 1.5 - scores[:, :2], atol=1e-4, rtol=0)
    per_unit = found.shifts.values[..., 0, :] / found.nodes[:, :, :, None].float()
    for node in (0, 2, 8):
        torch.testing.assert_close(per_unit[:, :, node], per_unit[:, :, 1], atol=1e-4, rtol=1e-3)
    edited = moved(start, torch.tensor([[0.4, 0.0], [0.0, -0.7], [0.3, 0.3]]), found).flat()
    change = network(Pixels().synthesize(edited)).view(2, 3, 3) - scores[:, None]
    wanted = torch.tensor([[0.4, 0.0, 0.0], [0.0, -0.7, 0.0], [0.3, 0.3, 0.0]])
    torch.testing.assert_close(change, wanted.expand(2, -1, -1), atol=1e-3, rtol=0)


def test_the_score_follows_the_strength_where_steps_would_saturate_and_leak() -> None:
    start, network = codes([0.2, 0.0, 0.0, 0.0]), Bent(NAMES, WEIGHTS)
    found = edits(network, nodes=8, low=-1.7, high=1.7).own(start)
    assert found.nodes is not None
    strengths = torch.linspace(float(found.nodes[0, 0, 0]), float(found.nodes[0, 0, -1]), 21)
    settings = torch.stack([strengths, torch.zeros(21)], dim=1)
    seen = network(Pixels().synthesize(moved(start, settings, found).flat()))
    change = seen - network(Pixels().synthesize(start))
    torch.testing.assert_close(change[:, 0], strengths, atol=0.04, rtol=0)
    assert float(change[:, 1:].abs().max()) < 0.12
    straight = edits(network, nodes=1, low=-1.7, high=1.7).own(start)
    ends = network(Pixels().synthesize(moved(start, settings[[0, -1]], straight).flat()))
    assert float((ends - network(Pixels().synthesize(start)))[:, 1].abs().max()) > 0.3


def test_a_path_ends_where_nothing_is_gained() -> None:
    start, network = codes([0.0, 0.0, 0.0, 0.0]), Bent(NAMES, WEIGHTS)
    found = edits(network, nodes=6, low=-1.0, high=6.0, damping=0.05).own(start)  # the first score cannot exceed 2
    assert found.nodes is not None
    shifts = found.shifts.values[0, 0, :, 0]
    assert torch.equal(shifts[-1], shifts[-2]) and float(found.nodes.diff(dim=-1).min()) > 0
    farthest = moved(start, torch.tensor([[99.0, 0.0]]), found).values[0, 0, 0]
    torch.testing.assert_close(farthest, shifts[-1])


def test_a_path_may_go_beyond_the_data() -> None:
    start, network = codes([0.0, 0.0, 0.0, 0.0]), Reader(NAMES, WEIGHTS)
    found = edits(network, reach=2.0).own(start)
    assert found.nodes is not None
    torch.testing.assert_close(found.nodes[0, 0, [0, 4, 8]].float(), torch.tensor([-3.0, 0.0, 3.0]), atol=1e-4, rtol=0)


def test_gradients_of_scores_are_shrunk_towards_the_mean_and_those_of_the_person_are_not() -> None:
    start, outputs = codes([0.0, 0.0, 0.0, 0.0]), ("eyes", "mouth", f"{AXIS}1")
    network = Reader(outputs, torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    mean = torch.tensor([[[1.0, 0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0]]])

    def step(share: float) -> Tensor:
        return edits(network, nodes=1, mean=mean, share=share).own(start).shifts.values[0, 0, -1, 0]

    # A latent's own gradients move what its network sees; half of each, what has them half: (1, 0, 0.5, 0.25).
    own, half, shared = step(1.0), step(0.5), step(0.0)
    assert own[2] == 0 and shared[2] == pytest.approx(float(shared[0]))
    assert half[2] == pytest.approx(float(half[0]) / 2) and half[2] > 0
    # The axis keeps its own gradient: the person's pixel stands still however small the share.
    for taken in (own, half, shared):
        assert taken[3] == pytest.approx(0.0, abs=1e-5)


def test_a_latent_at_the_end_has_some_room() -> None:
    start, network = codes([2.5, 0.0, 0.0, 0.0]), Reader(NAMES, WEIGHTS)
    found = edits(network).own(start)
    assert found.nodes is not None and float(found.nodes[0, 0, -1]) == pytest.approx(LEAST_ROOM, abs=1e-3)


def test_the_finder_goes_to_the_ends_of_the_data(tmp_path: Path) -> None:
    network = Reader(NAMES, WEIGHTS)
    scales = {"eyes": DataScale(-1.5, 1.75)}
    source = Source(None, Pixels(), network, scales=scales)  # type: ignore[arg-type]
    finder = Paths(nodes=3, latents=20, rounds=2, covariance_count=500, targets=["eyes", "mouth"])
    found = finder.find(source, Notes())
    assert isinstance(found.basis, PathBasis) and found.method == "paths"
    assert found.basis.low.tolist() == pytest.approx([-1.5, -1.96]) and found.basis.nodes == 3
    assert found.basis.high.tolist() == pytest.approx([1.75, 1.96])
    save_directions(found, tmp_path / "d.safetensors")
    read = load_directions(tmp_path / "d.safetensors")
    assert isinstance(read.basis, PathBasis)
    for name in ("gradients", "covariance", "low", "high"):
        torch.testing.assert_close(getattr(read.basis, name), getattr(found.basis, name))
    assert (read.basis.outputs, read.basis.nodes, read.basis.damping) == (NAMES, 3, 0.1)
    assert (read.basis.jitter, read.basis.memory, read.basis.seed) == (0.15, 0.5, 0)
    assert (read.basis.share, read.basis.reach) == (0.4, 1.5)
    latents = Latents(torch.zeros(2, 4), None, codes([0.0] * 4, [0.1] * 4))
    made = PathEdits(read.attributes, read.basis, Pixels(), network)
    assert made.codes(latents, torch.zeros(2, dtype=torch.long), torch.zeros(5, 2)).batch == (2, 5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"memory": 2.0}, "memory is 2.0"),
        ({"reach": 0.0}, "reach is 0.0"),
        ({"share": 2.0}, "share is 2.0"),
        ({"layers": [0, 1]}, "leave it out"),
    ],
)
def test_settings_that_make_no_path(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Paths(**settings)  # type: ignore[arg-type]


def test_steps_between_nodes_and_in_other_units() -> None:
    shifts = torch.tensor([[[-1.0, 0.0], [0.0, 0.0], [4.0, 2.0]]])[None]  # one latent, one attribute, three nodes
    steps = Steps(Codes(shifts, Space.W), torch.tensor([[[-2.0, 0.0, 1.0]]], dtype=torch.double))
    at = steps.at(torch.tensor([[[-3.0], [-1.0], [0.0], [0.5], [9.0]]]))
    assert at[0].tolist() == [[-1, 0], [-0.5, 0], [0, 0], [2, 1], [4, 2]]
    halved = steps.per(torch.tensor([[2.0]]))  # two old units are one new one
    assert torch.equal(halved.at(torch.tensor([[[0.25]]]))[0, 0], steps.at(torch.tensor([[[0.5]]]))[0, 0])
    straight = Steps(Codes(torch.ones(1, 1, 2), Space.W))
    assert straight.per(torch.tensor([[2.0]])).at(torch.tensor([[[0.25]]])).tolist() == [[[0.5, 0.5]]]
    with pytest.raises(ValueError, match="expected the same, and at least two nodes"):
        Steps(Codes(shifts, Space.W), torch.zeros(1, 1, 4))


def test_a_character_keeps_its_paths(tmp_path: Path) -> None:
    g, _ = tiny_networks()
    torch.manual_seed(5)
    nodes = torch.tensor([[[-2.0, 0.0, 1.0], [-1.0, 0.0, 3.0]]], dtype=torch.double)
    values = torch.randn(1, 2, 3, g.num_ws, 8)
    values[:, :, 1] = 0
    steps = Steps(Codes(values, Space.W_BY_LAYER), nodes)
    ranges = {"eyes": (-2.0, 1.0), "mouth": (-1.0, 3.0)}
    mina = Character(g, Codes(torch.randn(1, 8), Space.W), ("eyes", "mouth"), steps, ranges)
    mina.save(tmp_path / "mina.safetensors")
    loaded = Character.load(tmp_path / "mina.safetensors")
    assert loaded.steps.nodes is not None and torch.equal(loaded.steps.nodes, nodes)
    wanted = mina.frames([[0.0, 0.0], [-2.0, 3.0], [0.5, -0.5]])
    assert (loaded.frames([[0.0, 0.0], [-2.0, 3.0], [0.5, -0.5]]) == wanted).all() and (wanted[0] != wanted[1]).any()


def test_directions_of_paths_can_move_other_latents() -> None:
    found = Paths(latents=10, rounds=1, covariance_count=100, targets=["eyes"]).find(
        Source(None, Pixels(), Reader(NAMES, WEIGHTS)),  # type: ignore[arg-type]
        Notes(),
    )
    assert isinstance(found, Directions) and found.groups == Groups()
    codes = Codes(found.steps.values[0].float(), Space.W_BY_LAYER)
    change = Reader(NAMES, WEIGHTS)(Pixels().synthesize(codes))
    torch.testing.assert_close(change[0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
