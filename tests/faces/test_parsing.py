"""The back ends of face parsing, and the classes they share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ohlora.errors import ConfigError, FormatError, MissingArtifactError
from ohlora.faces.classes import CELEBAMASK_CLASSES, CLASSES, COLOURS, MIRRORED
from ohlora.faces.parsing import SegmentationParser, class_table, coloured, load_parser, sides_by_place
from ohlora.formats import network_files
from ohlora.networks.face_parser import FaceParserNetwork

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def segformer(tmp_path: Path) -> tuple[Path, Any]:
    """A tiny random SegFormer with CelebAMask-HQ's labels, saved as a checkpoint."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=8,
        id2label=dict(enumerate(CELEBAMASK_CLASSES)),
    )
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(model.decode_head.classifier.weight)
    folder = tmp_path / "segformer"
    model.save_pretrained(folder)
    settings = {"size": {"height": 48, "width": 48}, "image_mean": MEAN, "image_std": STD, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder, model


def test_mirroring_swaps_sides_only() -> None:
    changed = {CLASSES[k]: CLASSES[other] for k, other in enumerate(MIRRORED) if k != other}
    assert changed == {
        "left brow": "right brow",
        "right brow": "left brow",
        "left eye": "right eye",
        "right eye": "left eye",
    }


def test_colours_are_the_originals() -> None:
    assert len(COLOURS) == len(CLASSES)
    assert coloured(np.array([[[0, 10]]], np.uint8)).tolist() == [[[[0, 0, 0], [255, 0, 102]]]]


def test_left_is_the_left_half_of_the_image() -> None:
    left, right, brow = (CLASSES.index(name) for name in ("left eye", "right eye", "right brow"))
    maps = torch.zeros(3, 4, 8, dtype=torch.uint8)
    maps[0, 1, 1], maps[0, 1, 6] = left, right
    maps[1, 1, 1], maps[1, 1, 6], maps[1, 2, 1] = right, left, brow
    maps[2, 1, 6] = left  # one eye alone: its side cannot be checked
    found = sides_by_place(maps)
    assert torch.equal(found[0], maps[0]) and torch.equal(found[2], maps[2])
    assert (int(found[1, 1, 1]), int(found[1, 1, 6]), int(found[1, 2, 1])) == (left, right, brow)


def test_our_network_parses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FaceParserNetwork(CLASSES, (8, 8))
    network_files.save_network(network, tmp_path / "parser.safetensors")
    images = torch.randn(2, 3, 16, 16)
    maps = load_parser(tmp_path / "parser.safetensors")(images)
    assert maps.dtype == torch.uint8 and torch.equal(maps.long(), network.eval()(images).argmax(dim=1))
    background = load_parser(tmp_path / "parser.safetensors").background(images)
    torch.testing.assert_close(background, network(images).softmax(dim=1)[:, CLASSES.index("background")])
    with pytest.raises(ConfigError, match="expected no 'classes'"):
        load_parser(tmp_path / "parser.safetensors", {"skin": "skin"})
    with pytest.raises(MissingArtifactError, match="does not exist"):
        load_parser(tmp_path / "nowhere.safetensors")
    network_files.save_network(FaceParserNetwork(("face", "rest"), (8, 8)), tmp_path / "other.safetensors")
    with pytest.raises(FormatError, match=r"other.safetensors has the classes face, rest; expected background, skin"):
        load_parser(tmp_path / "other.safetensors")


def test_a_hugging_face_checkpoint_parses(segformer: tuple[Path, Any]) -> None:
    folder, model = segformer
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    maps = load_parser(folder)(images)
    pixels = F.interpolate((images + 1) / 2, (48, 48), mode="bilinear", antialias=True)
    pixels = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    scores = F.interpolate(model(pixel_values=pixels).logits, (32, 32), mode="bilinear")
    table = torch.tensor([CLASSES.index(name) for name in CELEBAMASK_CLASSES.values()], dtype=torch.uint8)
    assert maps.dtype == torch.uint8 and torch.equal(maps, sides_by_place(table[scores.argmax(dim=1)]))
    assert len(maps.unique()) > 2
    # Clothes and hats are background, too.
    names = list(CELEBAMASK_CLASSES)
    behind = [names.index(name) for name in ("background", "cloth", "hat")]
    torch.testing.assert_close(load_parser(folder).background(images), scores.softmax(dim=1)[:, behind].sum(dim=1))


def test_every_class_of_a_checkpoint_needs_an_entry(segformer: tuple[Path, Any]) -> None:
    some = {name: c for name, c in CELEBAMASK_CLASSES.items() if name != "hat"}
    with pytest.raises(ConfigError, match="classes without an entry: hat; unknown classes: none"):
        SegmentationParser(segformer[0], some)
    assert class_table({0: "face", 1: "rest"}, {"face": "skin", "1": "background"}) == [1, 0]
    with pytest.raises(ConfigError, match="unknown classes: fur; entries that are no class of the checkpoint: tail"):
        class_table({0: "face"}, {"face": "fur", "tail": "hair"})


def test_a_checkpoint_that_cannot_be_read(segformer: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = segformer[0]
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="cannot be read as a semantic-segmentation checkpoint"):
        load_parser(folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"not installed; install the extra: pip install 'ohlora\[parsing\]'"):
        load_parser(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingArtifactError, match=r"lacks config.json or preprocessor_config.json"):
        load_parser(folder)
