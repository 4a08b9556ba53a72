"""Cutting the background out: specks, holes, colours, steady edges; and drawn faces, whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora import pipeline
from ohlora.characters.character import Character
from ohlora.errors import MissingArtifactError
from ohlora.faces import cutting
from ohlora.faces.classes import CLASSES
from ohlora.faces.parsing import FaceParser, load_parser
from ohlora.toy import drawing
from ohlora.utils.files import shipped


@pytest.fixture(scope="module")
def parser() -> FaceParser:
    return load_parser(shipped("weights/toy/parser.safetensors"))


def disc(size: int = 64, radius: int = 20) -> np.ndarray:
    """A soft disc: 1 inside, 0 outside, a slope of four pixels between."""
    rows, columns = np.indices((size, size)) - size / 2
    return np.asarray(np.clip((radius - np.hypot(rows, columns)) / 4 + 0.5, 0, 1), np.float32)


def test_specks_and_threads_go_and_small_holes_are_filled() -> None:
    clean = cutting.cleaned(disc())
    np.testing.assert_allclose(clean, disc(), atol=1e-6)
    dirty = disc()
    dirty[2:5, 2:5] = 1.0  # a speck
    dirty[32, 50:] = 0.9  # a thread
    dirty[30:33, 30:33] = 0.2  # a hole, as in dark hair
    dirty[40, 30] = 0.7  # a little unsure
    found = cutting.cleaned(dirty)
    assert (found[:6, :6] == 0).all() and (found[32, 58:] == 0).all()
    assert (found[30:33, 30:33] == 1).all() and found[40, 30] == 1
    edge = (disc() > 0.1) & (disc() < 0.9)
    edge[30:35, 48:] = False  # where the thread begins
    np.testing.assert_allclose(found[edge], disc()[edge], atol=1e-6)


def test_large_holes_and_what_touches_the_border_stay() -> None:
    ring = np.minimum(disc(radius=26), 1 - disc(radius=12))
    np.testing.assert_allclose(cutting.cleaned(ring)[32, 32], 0)
    half = np.zeros((64, 64), np.float32)
    half[20:] = 1
    assert (cutting.cleaned(half) == half).all()
    assert not cutting.cleaned(np.zeros((64, 64), np.float32)).any()


class _Disc(FaceParser):
    """Says that everything but a disc is background."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # tells the device

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.background(images) < 0.5).to(torch.uint8)

    def background(self, images: torch.Tensor) -> torch.Tensor:
        return 1 - torch.from_numpy(disc(images.shape[2])).expand(len(images), -1, -1)


def test_no_colour_of_the_background_is_left() -> None:
    alpha = disc()[..., None]
    face, green = np.array([200, 150, 120]), np.array([0, 255, 0])
    picture = np.rint(alpha * face + (1 - alpha) * green).astype(np.uint8)
    found = cutting.cut(_Disc(), picture[None])[0]
    assert np.abs(found[..., 3] - 255 * alpha[..., 0]).max() <= 1
    seen = found[..., 3] > 0
    assert np.abs(found[..., :3][~seen].astype(int) - face).max() <= 15
    before, after = (np.abs(shown[seen].astype(int) - face).sum() for shown in (picture, found[..., :3]))
    assert after < 0.5 * before


def test_edges_are_steadied_over_time() -> None:
    frames = np.zeros((5, 2, 2, 4), np.uint8)
    frames[2, ..., 3], frames[..., 0] = 200, np.arange(5)[:, None, None]
    found = np.stack(list(cutting.steadied(iter(frames))))
    assert found.shape == frames.shape and (found[..., :3] == frames[..., :3]).all()
    assert found[:, 0, 0, 3].tolist() == [0, 50, 100, 50, 0]
    constant = np.full((3, 2, 2, 4), 77, np.uint8)
    assert (np.stack(list(cutting.steadied(constant))) == 77).all()
    assert len(list(cutting.steadied(constant[:1]))) == 1 and not list(cutting.steadied([]))


def test_frames_are_laid_on_a_colour() -> None:
    frame = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    assert next(cutting.laid([frame], (0, 200, 100))).tolist() == [[[200, 100, 0], [0, 200, 100], [40, 180, 80]]]


def test_drawn_faces_are_cut_as_they_were_drawn(parser: FaceParser) -> None:
    faces = [drawing.draw(truth, 64) for truth in [drawing.sample_truth(11, k) for k in range(12)]]
    found = cutting.cut(parser, np.stack([face.image for face in faces]))
    for face, shown in zip(faces, found, strict=True):
        person = face.parsing != CLASSES.index("background")
        opaque = shown[..., 3] > 127
        assert (person & opaque).sum() / (person | opaque).sum() > 0.9
        eyes = np.isin(face.parsing, [CLASSES.index(f"{side} eye") for side in ("left", "right")])
        assert (shown[..., 3][eyes] > 250).all()


def test_a_generated_face_is_cut_frame_by_frame(parser: FaceParser, drawn_mina: Path) -> None:
    character = Character.load(drawn_mina)
    frames = character.frames(np.linspace(-1, 1, 20)[:, None])
    found = np.stack(list(cutting.cut_each(parser, iter(frames), batch_size=8)))
    assert found.shape == (20, 64, 64, 4) and np.array_equal(found, cutting.cut(parser, frames))
    assert (found[:, [0, 0], [0, -1], 3] == 0).all() and (found[:, 24:40, 24:40, 3] == 255).all()
    solid = found[..., 3] == 255
    assert np.array_equal(found[..., :3][solid], frames[solid])


def test_a_world_without_a_parser_says_how_to_come_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHLORA_ARTIFACTS", str(tmp_path))
    assert cutting.require_parser(pipeline.world("demo")) == shipped("weights/toy/parser.safetensors")
    with pytest.raises(MissingArtifactError, match=r"by a face parser, and .*fit face_parser --world toy; or name ano"):
        cutting.require_parser(pipeline.world("toy"))
    (tmp_path / "toy" / "face_parser" / "parser.safetensors").mkdir(parents=True)  # a checkpoint's folder
    assert cutting.require_parser(pipeline.world("toy")).is_dir()
