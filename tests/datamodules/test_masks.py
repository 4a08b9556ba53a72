"""Images with parsing maps, in each layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora.commands.draw_faces import draw
from ohlora.datamodules.masks import MaskedImages
from ohlora.errors import DataError, MissingArtifactError
from ohlora.faces.classes import CLASSES, MIRRORED
from ohlora.toy.drawing import DEFAULT_RATES
from ohlora.utils import images


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Eight drawn faces, 16×16."""
    draw(tmp_path / "drawn", 8, 16, 0, 0, dict(DEFAULT_RATES))
    return tmp_path / "drawn"


def masks_by_name(data: MaskedImages) -> dict[str, np.ndarray]:
    data.setup("fit")
    return {part.paths[k].stem: part[k]["mask"] for part in (data.train_set, data.val_set) for k in range(len(part))}


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_a_manifest_and_two_folders_tell_the_same(drawn: Path, cache: str) -> None:
    (drawn / "images" / "000002.png").unlink()  # skipped; its mask must not slip to another image
    settings = {"cache": cache, "val_share": 0.25, "on_bad_image": "skip"}
    data = MaskedImages(16, manifest=str(drawn / "manifest.csv"), **settings)  # type: ignore[arg-type]
    data.trainer = type("T", (), {"log_dir": None, "is_global_zero": True})()
    found = masks_by_name(data)
    assert len(data.val_set) == 2 and len(found) == 7
    for name, mask in found.items():
        assert (mask == np.asarray(Image.open(drawn / "masks" / f"{name}.png"))).all()
    folders = MaskedImages(16, folder=str(drawn / "images"), masks=str(drawn / "masks"), cache=cache)
    assert {name: mask.tolist() for name, mask in masks_by_name(folders).items()} == {
        name: mask.tolist() for name, mask in found.items()
    }


def test_celebamask_hq(tmp_path: Path) -> None:
    """Parts of another size, in numbered folders; the person's left eye lies on the right."""
    parts: dict[str, tuple[slice, slice]] = {
        "skin": (slice(4, 28), slice(8, 24)),
        "eye_g": (slice(10, 16), slice(8, 24)),
        "l_eye": (slice(12, 14), slice(18, 22)),
        "r_eye": (slice(12, 14), slice(10, 14)),
        "hair": (slice(0, 6), slice(4, 28)),
        "hat": (slice(0, 2), slice(4, 28)),
    }
    for number in (0, 1, 2001):
        images.save_png(np.full((64, 64, 3), 9, np.uint8), tmp_path / "img" / f"{number}.jpg")
        for part, place in parts.items():
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[place] = 255
            images.save_png(pixels, tmp_path / "anno" / str(number // 2000) / f"{number:05d}_{part}.png")
    data = MaskedImages(16, folder=str(tmp_path / "img"), parts=str(tmp_path / "anno"), resize=True)
    found = masks_by_name(data)
    assert sorted(found) == ["0", "1", "2001"] and data.train_set[0]["image"].shape == (16, 16, 3)
    seen = [found["2001"][y, x] for y, x in ((0, 8), (2, 8), (5, 8), (6, 6), (6, 10), (15, 0))]
    assert [CLASSES[k] for k in seen] == ["background", "hair", "skin", "left eye", "right eye", "background"]
    with pytest.raises(DataError, match=r"0.jpg: size 64×64; expected 16×16"):
        MaskedImages(16, folder=str(tmp_path / "img"), parts=str(tmp_path / "anno")).setup("fit")
    images.save_png(np.full((64, 64, 3), 9, np.uint8), tmp_path / "img" / "7.jpg")
    with pytest.raises(DataError, match=r"1 of 4 images have no mask in .*anno: .*7.jpg has no mask"):
        MaskedImages(16, folder=str(tmp_path / "img"), parts=str(tmp_path / "anno"), resize=True).setup("fit")
    (tmp_path / "anno" / "0" / "00000_tail.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"not named like 00000_l_eye.png: .*00000_tail.png"):
        MaskedImages(16, folder=str(tmp_path / "img"), parts=str(tmp_path / "anno"), resize=True).setup("fit")


def test_bad_masks_are_named_like_bad_images(drawn: Path) -> None:
    (drawn / "masks" / "000001.png").write_bytes(b"no image")
    (drawn / "masks" / "000002.png").unlink()
    images.save_png(np.full((16, 16), 11, np.uint8), drawn / "masks" / "000003.png")
    images.save_png(np.zeros((16, 16, 3), np.uint8), drawn / "masks" / "000004.png")
    images.save_png(np.zeros((16, 8), np.uint8), drawn / "masks" / "000005.png")
    with pytest.raises(DataError) as caught:
        MaskedImages(16, manifest=str(drawn / "manifest.csv")).setup("fit")
    message = str(caught.value)
    for part in (
        "5 of 8 images cannot be used",
        "000001.png: unreadable",
        "000002.png: no such file",
        "000003.png: holds class 11; expected ids from 0 to 10",
        "000004.png: mode RGB; expected grey levels",
        "000005.png: size 8×16; expected a square",
    ):
        assert part in message


def test_sources(tmp_path: Path, drawn: Path) -> None:
    with pytest.raises(DataError, match="given were folder; expected 'manifest', or 'folder' with 'masks'"):
        MaskedImages(16, folder="images")
    with pytest.raises(DataError, match="val_share is 1"):
        MaskedImages(16, manifest="manifest.csv", val_share=1)
    with pytest.raises(MissingArtifactError, match="anno does not exist"):
        MaskedImages(16, folder=str(drawn), parts=str(tmp_path / "anno")).setup("fit")


def test_a_mirrored_mask_swaps_sides(drawn: Path) -> None:
    data = MaskedImages(16, manifest=str(drawn / "manifest.csv"))
    data.setup("fit")
    mask = torch.from_numpy(np.stack([data.train_set[k]["mask"] for k in (0, 1)]))
    found = data.flipped_targets({"mask": mask}, torch.tensor([True, False]))["mask"]
    assert torch.equal(found[1], mask[1])
    assert (found[0].numpy() == np.array(MIRRORED)[mask[0].numpy()[:, ::-1]]).all()
