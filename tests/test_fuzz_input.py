"""Damaged tables and images, by the thousand: each is taken, or refused in one short line."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.images import ImageFiles, Images
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import OhloraError

pytestmark = pytest.mark.slow
COLUMNS = ("idx", "path", "gender", "eyes_score")
ROWS = [(f"{k}", f"images/{k:03d}.png", f"{k % 2}", f"{k / 7:.3f}") for k in range(12)]
PIECES = [",", ";", '"', "#", "-", "nan", "1e999", "/", "\\", "..", "idx", "path", "gender", "한글", "²", "٣"]
WORDS = [piece.encode() for piece in (*PIECES, "\t", " ", "\n", "\r", "\r\n", "\0")]
WORDS += [b"\xef\xbb\xbf", "한글".encode("cp949"), b"\xff", b"9" * 5000, b"x" * 140_000]
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "cp949"]


def damaged_table(rng: random.Random) -> bytes:
    columns = rng.choice([COLUMNS, ("idx", "gender"), ("path", "eyes_score"), ("path", "gender")])
    lines = [columns, *([row[COLUMNS.index(name)] for name in columns] for row in ROWS)]
    content = bytearray("".join(",".join(line) + "\n" for line in lines).encode(rng.choice(ENCODINGS)))
    for _ in range(rng.randint(1, 4)):
        place, other = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
        kind = rng.random()
        if kind < 0.6:
            content[place:place] = rng.choice(WORDS)
        elif kind < 0.8:
            del content[place : place + rng.randint(1, 40)]
        else:
            content[place:place] = content[other : other + rng.randint(1, 200)]
    return bytes(content)


def damaged_image(rng: random.Random, picture: Image.Image) -> bytes:
    file, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    kind = rng.choice(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "MPO"])
    picture.save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
    content = bytearray(file.getvalue())
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(rng.choice([len(content), min(len(content), 120)]))
        if rng.random() < 0.8:
            content[place] = rng.choice([0, 255, rng.randrange(256)])
        else:
            del content[place + 1 : place + rng.choice([2, 30, len(content)])]
    return bytes(content)


def outcome(data: ImageFiles, folder: Path) -> str:
    data.trainer = SimpleNamespace(log_dir=str(folder), is_global_zero=True)  # type: ignore[assignment]
    try:
        data.setup("fit")
    except OhloraError as error:
        message = str(error)
        assert len(message) < 500 and "\n" not in message
        return "refused"
    return "taken"


def test_tables(image_folder: Path, tmp_path: Path) -> None:
    rng, table, seen = random.Random(0), tmp_path / "table.csv", Counter[str]()
    for _ in range(1000):
        table.write_bytes(damaged_table(rng))
        folder = rng.choice([None, str(image_folder)])
        columns = rng.choice([None, ["eyes"]])
        for data in (
            AnnotatedImages(16, str(table), "gender", folder, 2, 0.5, on_bad_image=rng.choice(["raise", "skip"])),
            Images(16, manifest=str(table), label_columns=columns, on_bad_image=rng.choice(["raise", "skip"])),
            ScoredImages(16, [str(table)], ["eyes"], on_bad_image=rng.choice(["raise", "skip"])),
        ):
            seen[outcome(data, tmp_path)] += 1
    assert seen["taken"] > 50 and seen["refused"] > 500


def test_images(image_folder: Path, tmp_path: Path) -> None:
    rng, seen = random.Random(0), Counter[str]()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's, of broken metadata
        for _ in range(3000):
            (image_folder / "000.png").write_bytes(damaged_image(rng, picture))
            seen[outcome(Images(16, folder=str(image_folder), on_bad_image="raise"), tmp_path)] += 1
    assert seen["taken"] > 300 and seen["refused"] > 500
