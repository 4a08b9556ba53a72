"""Characters: files and rendering."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora.attributes import Motion, recipe
from ohlora.characters import motion
from ohlora.characters.character import FORMAT, FORMAT_VERSION, Character
from ohlora.directions.edits import Steps
from ohlora.errors import ConfigError, FormatError, MissingArtifactError
from ohlora.formats import tensor_files
from ohlora.networks.codes import Codes, Space
from ohlora.utils import images
from tests.conftest import FORMAT_1, tiny_networks

NAMES = ("eyes", "mouth", "pose")
RANGES = {"eyes": (-1.0, 1.0), "mouth": (-1.5, 1.5), "pose": (-0.5, 1.5)}


@pytest.fixture
def character() -> Character:
    g, _ = tiny_networks(c_dim=2)
    torch.manual_seed(1)
    code, steps = Codes(torch.randn(1, 8), Space.W), Steps(Codes(torch.randn(1, 3, 8), Space.W))
    return Character(g, code, NAMES, steps, RANGES, {"case": 7})


def test_a_file_is_all_it_takes(character: Character, tmp_path: Path) -> None:
    path = tmp_path / "mina.safetensors"
    character.save(path)
    loaded = Character.load(path)
    assert loaded.attributes == NAMES and loaded.ranges == RANGES and loaded.card == {"case": 7}
    face = loaded.render(eyes=0.5, mouth=-1.0, pose=0.25)
    assert isinstance(face, Image.Image) and face.size == (16, 16)
    with torch.inference_mode():
        steps = character.steps.shifts.values[0]
        w = character.code.values + 0.5 * steps[0] - 1.0 * steps[1] + 0.25 * steps[2]
        expected = images.to_uint8(character.generator.synthesize(Codes(w, Space.W)))[0]
    assert np.abs(np.asarray(face).astype(int) - expected).max() <= 1
    assert (np.asarray(loaded.render()) == loaded.frames([[0, 0, 0]])[0]).all()


def test_frames_in_any_batches(character: Character) -> None:
    strengths = motion.sweep(NAMES, RANGES, 5)
    frames = character.frames(strengths, batch_size=4)
    assert frames.shape == (15, 16, 16, 3) and frames.dtype == np.uint8
    assert np.abs(frames.astype(int) - character.frames(strengths, batch_size=15)).max() <= 1
    assert (frames[0] != frames[4]).any()


def test_strengths_out_of_range(character: Character) -> None:
    with pytest.warns(UserWarning, match="eyes reaches 3 … 3, tested is -1 … 1"):
        clamped = character.render(eyes=3.0)
    assert (np.asarray(clamped) == np.asarray(character.render(eyes=1.0))).all()
    with pytest.raises(ConfigError, match=r"pose reaches -0\.6 … 0, tested is -0\.5 … 1\.5"):
        character.frames([[0, 0, 0], [0, 0, -0.6]], strict=True)
    with pytest.raises(ConfigError, match="cannot be steered by roll; it has eyes, mouth, pose"):
        character.render(roll=1.0)
    with pytest.raises(ConfigError, match="expected N × 3"):
        character.frames([[0.0, 1.0]])
    with pytest.raises(ConfigError, match="not a finite number"):
        character.render(eyes=float("nan"))


def test_files_that_are_no_character(character: Character, tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"none\.safetensors does not exist"):
        Character.load(tmp_path / "none.safetensors")
    path = tmp_path / "mina.safetensors"
    character.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        Character.load(path)
    two = Steps(Codes(character.steps.shifts.values[:, :2], Space.W))
    with pytest.raises(ValueError, match="steps for \\(1, 2\\) attributes"):
        replace(character, steps=two)
    with pytest.raises(ValueError, match=r"codes in w have shape \(3, 7\); expected \(N, 8\)"):
        replace(character, steps=Steps(Codes(torch.zeros(1, 3, 7), Space.W)))


@pytest.mark.parametrize("space", [Space.W_BY_LAYER, Space.S])
def test_steps_can_be_in_another_space_than_the_latent(space: Space, character: Character, tmp_path: Path) -> None:
    g = character.generator
    start = g.in_space(character.code, space).values
    steps = Codes(torch.randn(1, 3, *start.shape[1:]), space)
    path = tmp_path / "mina.safetensors"
    replace(character, steps=Steps(steps)).save(path)
    loaded = Character.load(path)
    assert loaded.steps.shifts.space is space and loaded.code.space is Space.W
    with torch.inference_mode():
        moved = Codes(start + 0.5 * steps.values[0, 1], space)
        expected = images.to_uint8(g.synthesize(moved))[0]
    assert np.abs(np.asarray(loaded.render(mouth=0.5)).astype(int) - expected).max() <= 1
    assert (np.asarray(loaded.render()) == np.asarray(character.render())).all()


@pytest.mark.parametrize(("name", "space"), [("character_w", Space.W), ("character_by_layer", Space.W_BY_LAYER)])
def test_characters_of_the_first_version_load(name: str, space: Space) -> None:
    loaded = Character.load(FORMAT_1 / f"{name}.safetensors")
    assert (loaded.code.space, loaded.steps.shifts.space, loaded.card) == (Space.W, space, {"case": 7})
    assert not loaded.unit  # which the file does not say
    said = "one standard deviation of the attribute over the generator's images"
    assert replace(loaded, card={"unit": said}).unit == said  # as cards of that version say it
    face = loaded.render(eyes=0.5, mouth=-1.0, pose=0.25)
    expected = np.load(FORMAT_1 / "expected.npz")[name]  # drawn by the version that wrote the file
    assert np.abs(np.asarray(face).astype(int) - expected).max() <= 1


def test_motion_is_kept_in_the_file(character: Character, tmp_path: Path) -> None:
    path = tmp_path / "mina.safetensors"
    own = {"eyes": Motion(drift=0.1, blinks=True), "mouth": Motion(breath=0.05, speaks=0.5)}
    replace(character, motions=own).save(path)
    assert Character.load(path).motions == own
    # Earlier files said `motions`, in strengths: these are not taken for shares.
    about = tensor_files.read_metadata(path, FORMAT, FORMAT_VERSION, "a character")
    del about["motion_shares"], about["format_version"]
    about["motions"] = {"eyes": {"base": 0.2, "walk": 0.035, "reach": 0.25, "blinks": True, "highest": 1.2}}
    tensor_files.write(path, FORMAT, FORMAT_VERSION, tensor_files.read_tensors(path), **about)
    assert Character.load(path).motions == recipe().described(NAMES)[1]
