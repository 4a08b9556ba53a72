"""What is taken from folders and tables, and what is said about the rest."""

from __future__ import annotations

import importlib
import os
import struct
import sys
import unicodedata
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from ohlora.commands import filter as filter_images
from ohlora.commands import import_weights
from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.images import ImageFiles, Images
from ohlora.datamodules.masks import MaskedImages
from ohlora.datamodules.scores import ScoredImages
from ohlora.errors import ConfigError, DataError
from ohlora.formats import network_files
from ohlora.formats.direction_files import read_original
from ohlora.networks.attribute_cnn import AttributeEnsemble, attribute_cnn
from ohlora.studio.annotations import AnnotationFile, AnnotationSession
from ohlora.utils import images
from ohlora.utils.files import read_rows, write_rows

Run = Callable[..., int]
UPRIGHT = np.zeros((16, 16, 3), np.uint8)
UPRIGHT[:8] = [200, 30, 30]
UPRIGHT[:, :8, 2] = 120


def refused(data: ImageFiles) -> str:
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    message = str(caught.value)
    assert len(message) < 500 and "\n" not in message
    return message


def skipping(folder: Path, tmp_path: Path) -> tuple[Images, dict[str, str]]:
    """What is taken with on_bad_image skip, and the reasons why the rest is not, by file name."""
    data = Images(16, folder=str(folder), on_bad_image="skip")
    data.trainer = SimpleNamespace(log_dir=str(tmp_path / "run"), is_global_zero=True)  # type: ignore[assignment]
    data.setup("fit")
    table = tmp_path / "run" / "skipped.csv"
    return data, {Path(row["path"]).name: row["reason"] for row in read_rows(table)} if table.is_file() else {}


# --- folders


def test_every_usual_suffix_is_taken_in_small_and_capital_letters(tmp_path: Path) -> None:
    names = ["a.png", "b.JPG", "c.jpeg", "d.jfif", "e.webp", "f.bmp", "g.tif", "h.TIFF"]
    formats = ["PNG", "JPEG", "JPEG", "JPEG", "WEBP", "BMP", "TIFF", "TIFF"]
    (tmp_path / "images").mkdir()
    for name, kind in zip(names, formats, strict=True):
        Image.fromarray(UPRIGHT).save(tmp_path / "images" / name, kind)
    data, skipped = skipping(tmp_path / "images", tmp_path)
    assert [path.name for path in data.train_set.paths] == names and not skipped


def test_links_to_folders_are_followed_once(image_folder: Path, tmp_path: Path) -> None:
    images.save_png(UPRIGHT, tmp_path / "elsewhere" / "deep" / "far.png")
    (image_folder / "linked").symlink_to(tmp_path / "elsewhere")
    (image_folder / "again").symlink_to(tmp_path / "elsewhere")
    (image_folder / "circle").symlink_to(image_folder)
    (image_folder / "itself").symlink_to("itself")
    (image_folder / "unmounted").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path)
    data, skipped = skipping(image_folder, tmp_path)
    assert len(data.train_set) == 13 and sum(path.name == "far.png" for path in data.train_set.paths) == 1
    assert {skipped.pop("itself"), skipped.pop("unmounted")} == {"a link that leads nowhere"}
    assert skipped == {
        "linked": "a link to a folder that is listed anyway",
        "circle": "a link to a folder that is listed anyway",
        "up": "a link to a folder in which it lies",
    }


def test_hidden_files_and_other_files_are_named(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for hidden in (".ipynb_checkpoints/000-checkpoint.png", ".thumbnails/001.png", "@eaDir/1.png", ".002.png"):
        images.save_png(UPRIGHT, image_folder / hidden)
    (image_folder / "notes.txt").write_text("mine")
    with caplog.at_level("INFO"):
        data, skipped = skipping(image_folder, tmp_path)
    assert len(data.train_set) == 12
    assert skipped == {
        **dict.fromkeys((".ipynb_checkpoints", ".thumbnails", "@eaDir", ".002.png"), "hidden"),
        "notes.txt": f"another suffix than {' '.join(images.SUFFIXES)}",
    }
    left_out = "took 12 images, left out 4 (hidden): .002.png, .ipynb_checkpoints, .thumbnails, @eaDir; 1 (another"
    assert left_out in caplog.text
    for path in image_folder.glob("[0-9]*"):
        path.unlink()
    assert "holds no images; left out: 4 (hidden)" in refused(Images(16, folder=str(image_folder)))


def test_what_is_named_like_an_image_but_is_none(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "a.png").mkdir()
    (image_folder / "b.png").symlink_to(tmp_path / "gone.png")
    (image_folder / "c.png").symlink_to("c.png")
    os.mkfifo(image_folder / "d.png")
    (image_folder / "e.png").touch()
    expected = {
        "a.png": "a folder; expected a file",
        "b.png": "no such file",
        "c.png": "unreadable (Too many levels of symbolic links)",
        "d.png": "a pipe or device; expected a file",
        "e.png": "unreadable (empty)",
    }
    message = refused(Images(16, folder=str(image_folder)))
    assert message.startswith("5 of 17 images cannot be used: ")
    assert all(f"{name}: {reason}" in message for name, reason in expected.items())
    data, skipped = skipping(image_folder, tmp_path)
    assert len(data.train_set) == 12
    assert {name: reason.partition(".png: ")[2] for name, reason in skipped.items()} == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(image_folder: Path) -> None:
    (image_folder / "003.png").chmod(0)
    assert "003.png: unreadable (" in refused(Images(16, folder=str(image_folder)))
    (image_folder / "shut").mkdir(0o000)
    assert "shut: the folder cannot be read (Permission denied)" in refused(Images(16, folder=str(image_folder)))


def test_names_that_are_not_utf_8_are_refused_before_the_work(
    image_folder: Path, tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "gender.safetensors"
    network_files.save_network(AttributeEnsemble.of([attribute_cnn("gender", "small", 16)]), network)
    odd = os.fsencode(image_folder) + b"/\xbf\xac.png"
    os.rename(image_folder / "003.png", odd)  # noqa: PTH104
    words = ["--data.init_args.manifest", "null", "--model.init_args.networks", f"[{network}]"]
    words += ["--model.init_args.output", str(tmp_path / "scores.csv"), "--data.init_args.folder"]
    assert ohlora("predict", "scores", *words, str(image_folder)) == 2
    assert "images/\\xbf\\xac.png; rename them" in capsys.readouterr().err
    os.unlink(odd)  # noqa: PTH108
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xbf\xac")
    os.rename(image_folder, folder)  # noqa: PTH104
    assert "\\xbf\\xac: the folder's name is not UTF-8" in refused(Images(16, folder=folder))


# --- decoding


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_photographs_are_turned_upright(tmp_path: Path, suffix: str) -> None:
    turns = {3: 2, 6: 1, 8: -1}  # orientation → quarter turns against the clock in which the pixels are stored
    (tmp_path / "images").mkdir()
    for orientation, quarters in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(np.rot90(UPRIGHT, quarters).copy())
        stored.save(tmp_path / "images" / f"{orientation}.{suffix}", exif=exif, quality=100)
    data = Images(16, folder=str(tmp_path / "images"))
    data.setup("fit")
    assert len(data.train_set) == 3
    for k in range(3):
        difference = np.abs(data.train_set[k]["image"].astype(int) - UPRIGHT)
        assert np.median(difference) < 5, turns  # colours bleed at edges of a JPEG
    file = AnnotationFile(tmp_path / "labels.csv", data.train_set.paths, ["gender"])
    shown = AnnotationSession(file, {"gender": 1}).picture(16)
    assert np.median(np.abs(shown.astype(int) - UPRIGHT)) < 5


def bomb() -> bytes:
    """A PNG whose header claims 60,000 × 60,000 pixels."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(bytes(9))}
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animation(kind: str) -> bytes:
    file = BytesIO()
    frames = [Image.fromarray(np.roll(UPRIGHT, k, 0)) for k in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **({} if kind == "TIFF" else {"duration": 9}))
    return file.getvalue()


def test_bad_images_of_every_kind_follow_on_bad_image(image_folder: Path, tmp_path: Path) -> None:
    contents = {"a.png": bomb(), "b.webp": animation("WEBP"), "c.png": animation("PNG"), "d.tif": animation("TIFF")}
    for name, content in contents.items():
        (image_folder / name).write_bytes(content)
    Image.fromarray(UPRIGHT[..., 0].astype(np.float32)).save(image_folder / "e.tif")
    veil = Image.fromarray(UPRIGHT)
    veil.putalpha(254)
    veil.save(image_folder / "f.png")
    message = refused(Images(16, folder=str(image_folder)))
    assert message.startswith("6 of 18 images cannot be used: a.png: unreadable (Image size")
    data, skipped = skipping(image_folder, tmp_path)
    assert len(data.train_set) == 12
    reasons = {name: reason.partition(f"{name}: ")[2] for name, reason in skipped.items()}
    assert reasons.pop("a.png").startswith("unreadable (Image size (3600000000 pixels) exceeds limit")
    assert reasons == {
        **dict.fromkeys(("b.webp", "c.png", "d.tif"), "holds 3 pictures; expected one"),
        "e.tif": "mode F, levels 0 … 200; expected 0 … 1",
        "f.png": "transparent in places; expected a background colour to lay it on",
    }


@pytest.mark.parametrize(
    "error", [RuntimeError("decoder"), SyntaxError("broken"), struct.error("short"), IndexError(), EOFError("end")]
)
def test_whatever_a_decoder_raises_follows_on_bad_image(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    load = ImageFile.ImageFile.load

    def broken(image: Any) -> Any:
        if str(image.filename).endswith("003.png"):
            raise error
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    reason = str(error) or "IndexError"
    assert f"003.png: unreadable ({reason})" in refused(Images(16, folder=str(image_folder)))
    data, skipped = skipping(image_folder, tmp_path)
    assert len(data.train_set) == 11 and skipped["003.png"].endswith(f"unreadable ({reason})")


def test_a_picture_of_a_camera_with_a_preview_is_one_picture(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures = [Image.fromarray(UPRIGHT), Image.fromarray(UPRIGHT[:8, :8])]
    pictures[0].save(tmp_path / "images" / "a.jpg", "MPO", save_all=True, append_images=pictures[1:])
    data, skipped = skipping(tmp_path / "images", tmp_path)
    assert data.train_set[0]["image"].shape == (16, 16, 3) and not skipped


# --- double names, numbers, columns and rows


def labels(image_folder: Path, text: str) -> AnnotatedImages:
    table = image_folder.parent / "labels.csv"
    table.write_text(text)
    return AnnotatedImages(16, str(table), "gender", folder=str(image_folder), folds=2, inner_share=0.5)


ROWS = "".join(f"{k},{k % 2}\n" for k in range(12))


@pytest.mark.parametrize("twin", ["sub/003.png", "sub/3.png", "0003.JPG"])
def test_two_files_with_one_number_are_refused(image_folder: Path, twin: str) -> None:
    images.save_png(UPRIGHT, image_folder / twin)
    message = refused(labels(image_folder, "idx,gender\n" + ROWS))
    assert "/003.png" in message and twin in message and "have the same number" in message
    with pytest.raises(DataError, match="have the same number"):
        AnnotationFile(image_folder.parent / "labels.csv", images.images_in(image_folder)[0], ["gender"])


def test_images_without_a_row_are_counted_and_listed(image_folder: Path, tmp_path: Path) -> None:
    images.save_png(UPRIGHT, image_folder / "012.png")
    images.save_png(UPRIGHT, image_folder / "me.png")
    data = labels(image_folder, "idx,gender\n" + ROWS)
    data.trainer = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True)  # type: ignore[assignment]
    data.setup("fit")
    assert len(data.train_set) == 12
    rows = read_rows(tmp_path / "skipped.csv")
    assert [(Path(row["path"]).name, row["reason"]) for row in rows] == [
        ("012.png", "no row in labels.csv"),
        ("me.png", "no row in labels.csv"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("idx,gender,gender\n0,1,0\n", "several columns are called gender; expected each name once"),
        ("idx,gender,gender_score\n0,1,0\n", "has both gender and gender_score"),
        ("index,img_no,gender\n0,7,0\n", "numbers its images in index and in img_no"),
        (f"idx,gender\n{'9' * 5000},1\n", "expected the image's number"),
        ("idx,gender\n1.0,1\n", "row 2: idx is '1.0'; expected the image's number"),
        ("idx,gender\n\n1,1\n\n01,1\n", "row 5: image 01 is labelled twice"),
        ("idx,gender\n1,1\n77,0\n", "row 3: there is no image 77"),
        ("idx,gender\n1,1.0\n", "row 2: gender is '1.0', expected 0 or 1"),
        ("path,gender\nimages/001.png,1\nimages/../images/001.png,0\n", "row 3: images/../images/001.png was on row 2"),
        ("path,gender\n,1\n", "row 2: path is empty"),
        ("path,gender\nimages/gone.png,1\n", "row 2: there is no image images/gone.png"),
        ("idx,path,gender\n1,images/001.png,1\n1,images/002.png,0\n", "row 3: idx 1 was on row 2 already"),
    ],
)
def test_tables_of_annotations(image_folder: Path, text: str, message: str) -> None:
    assert message in refused(labels(image_folder, text))


@pytest.mark.parametrize("header", ["idx,gender,pose", "path,gender,pose"])
def test_rows_without_a_label_are_left_out_and_listed(image_folder: Path, tmp_path: Path, header: str) -> None:
    names = [f"images/{k:03d}.png" if header.startswith("path") else str(k) for k in range(12)]
    lines = [f"{name},{k % 2 if k < 8 else ''},{k}" for k, name in enumerate(names)]
    lines[10] = f"{names[10]}, NA ,0.5"
    data = labels(image_folder, "\n".join([header, *lines]))
    data.trainer = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True)  # type: ignore[assignment]
    data.setup("fit")
    assert [path.name for path in data.train_set.paths] == [f"{k:03d}.png" for k in range(8)]
    assert data.train_set.labels is not None and data.train_set.labels[:, 0].tolist() == [0, 1] * 4
    rows = read_rows(tmp_path / "skipped.csv")
    expected = [(f"{k:03d}.png", "no value of gender") for k in range(8, 12)]
    assert [(Path(row["path"]).name, row["reason"]) for row in rows] == expected
    lines[11] = f"{names[11].replace('11', '77')},,1"
    assert "row 13: there is no image" in refused(labels(image_folder, "\n".join([header, *lines])))
    lines[:] = [f"{name},,1" for name in names]
    assert "12 (no value of gender)" in refused(labels(image_folder, "\n".join([header, *lines])))


def test_tables_of_images(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = image_folder.parent / "manifest.csv"
    for text, message in (
        ("path,eyes\nimages/001.png,nan\n", "row 2: eyes is 'nan'; expected a finite number"),
        ("path,eyes\nimages/001.png,1e39\n", "row 2: eyes is '1e39'; expected a finite number"),
        ("path,eyes\nimages/001.png,1\nimages/001.png,2\n", "row 3: images/001.png was on row 2 already"),
        ("path,index\nimages/001.png,4\nimages/002.png,04\n", "row 3: index 04 was on row 2 already"),
        ("path,eyes,eyes_score\nimages/001.png,1,2\n", "has both eyes and eyes_score"),
        ("path,eyes\nimages,1\n", "images: a folder; expected a file"),
        ("path,eyes\n,1\n", "row 2: path is empty"),
    ):
        table.write_text(text)
        columns = ["eyes"] if "eyes" in text else None
        assert message in refused(Images(16, manifest=str(table), label_columns=columns)), text
    table.write_text(f"path,eyes\n{image_folder / '001.png'},1\nimages/../images/002.png,2\n")
    data = Images(16, manifest=str(table), label_columns=["eyes"])
    data.setup("fit")
    assert len(data.train_set) == 2
    twice = image_folder.parent / "twice.csv"
    twice.write_text("path\nimages/001.png\nimages/001.png\n")
    with caplog.at_level("INFO"):
        Images(16, manifest=str(twice)).setup("fit")
    assert "took 1 images again that an earlier row names: row 3: images/001.png was on row 2" in caplog.text
    write_rows(image_folder.parent / "other.csv", [{"path": "images/002.png", "eyes": 0}])
    both = [str(table), str(image_folder.parent / "other.csv")]
    assert "1 images are in several manifests" in refused(ScoredImages(16, both, ["eyes"]))


def test_masks_belong_to_one_image_each(tmp_path: Path) -> None:
    def data(**where: str) -> MaskedImages:
        given: dict[str, Any] = {name: str(tmp_path / folder) for name, folder in where.items()}
        data = MaskedImages(16, folder=str(tmp_path / "img"), **given)
        data.trainer = SimpleNamespace(log_dir=str(tmp_path), is_global_zero=True)  # type: ignore[assignment]
        return data

    for k in range(3):
        images.save_png(UPRIGHT, tmp_path / "img" / f"{k}.png")
        images.save_png(UPRIGHT[..., 0] // 100, tmp_path / "masks" / f"{k}.png")
        images.save_png(255 * (UPRIGHT > 0).astype(np.uint8), tmp_path / "parts" / f"0/{k:05d}_skin.png")
    images.save_png(UPRIGHT[..., 0], tmp_path / "masks" / "7.png")
    images.save_png(UPRIGHT[..., 0], tmp_path / "parts" / "7_skin.png")
    for where in ({"masks": "masks"}, {"parts": "parts"}):
        found = data(**where)
        found.setup("fit")
        assert len(found.train_set) + len(found.val_set) == 3
        (row,) = read_rows(tmp_path / "skipped.csv")
        assert Path(row["path"]).name.startswith("7") and row["reason"].startswith("no image in")
    images.save_png((UPRIGHT[..., :1] > 0).astype(np.uint8).repeat(3, 2), tmp_path / "parts" / "0/00001_skin.png")
    assert "00001_skin.png: no grey level is above 1; expected black (0) and white" in refused(data(parts="parts"))
    images.save_png(UPRIGHT, tmp_path / "parts" / "00002_skin.png")
    assert "are the same part of the same image" in refused(data(parts="parts"))
    images.save_png(UPRIGHT[..., 0], tmp_path / "masks" / "sub" / "1.png")
    assert "have the same name" in refused(data(masks="masks"))
    images.save_png(UPRIGHT, tmp_path / "img" / "sub" / "1.jpg")
    assert "have the same name" in refused(data(masks="masks"))
    assert "have the same number" in refused(data(parts="parts"))
    (tmp_path / "parts" / "²_skin.png").write_bytes(b"")
    (tmp_path / "parts" / "00002_skin.png").unlink()
    (tmp_path / "img" / "sub" / "1.jpg").unlink()
    assert "²_skin.png; expected a part of" in refused(data(parts="parts"))


def test_the_studio_names_photographs_by_path(tmp_path: Path) -> None:
    for name in ("me.png", "a/1.png", "b/1.png"):
        images.save_png(UPRIGHT, tmp_path / "images" / name)
    pictures = images.images_in(tmp_path / "images")[0]
    table = tmp_path / "labels.csv"
    session = AnnotationSession(AnnotationFile(table, pictures, ["gender"]), {"gender": 1})
    for k in range(3):
        session.position = k
        session.confirm()
    assert [row["path"] for row in read_rows(table)] == ["images/a/1.png", "images/b/1.png", "images/me.png"]
    assert "idx" not in read_rows(table)[0]
    table.write_text("idx,path,gender\n1,images/a/1.png,1\n")
    with pytest.raises(DataError, match="remove the column idx"):
        AnnotationFile(table, pictures, ["gender"])


def test_commands_refuse_what_is_there_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "scores.csv"
    table.write_text("img_no,gender,gender_score\n0,1,0.2\n")
    assert filter_images.main([str(table), str(tmp_path / "out.csv"), "--keep", "gender > 0.5"]) == 2
    assert "has both gender and gender_score" in capsys.readouterr().err
    table.write_text("img_no,gender\n0,1\n\n1,1\n2,x\n")
    rule = ["--keep", "gender > 0.5", "--from-index", "1"]
    assert filter_images.main([str(table), str(tmp_path / "out.csv"), *rule]) == 2
    assert "row 5: gender is 'x'" in capsys.readouterr().err
    table.write_text("index,path,gender\n0,0.png,1\n0,0.png,1\n")
    assert filter_images.main([str(table), str(tmp_path / "out.csv"), "--keep", "gender > 0.5"]) == 2
    assert "row 3: 0.png was on row 2 already" in capsys.readouterr().err
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes())
    assert import_weights.main([str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), str(tmp_path / "out")]) == 2
    assert "b.pt holds the same as" in capsys.readouterr().err
    (tmp_path / "eyes_change_w_vector_HH.csv").write_text(",0\n0,1\n")
    with pytest.raises(DataError, match="expected a group of the letters h and l"):
        read_original(tmp_path)


# --- tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,gender,이름\nimages/001.png,1,김\n".encode("cp949"), "row 1 is not UTF-8, but probably CP949"),
        ("path,gender\nimages/001.png,1\nimages/눈.png,0\n".encode("cp949"), "row 3 is not UTF-8, but probably CP949"),
        ("path,gender\nimages/é à.png,1\n".encode("latin1"), "row 2 is not UTF-8, but probably CP1252"),
        ("path,gender\nimages/001.png,1\n".encode("utf-16"), "but probably UTF-16;"),
        ("path,gender\nimages/001.png,1\n".encode("utf-16-le"), "but probably UTF-16LE;"),
        ("path,gender\nimages/001.png,1\n".encode("utf-16-be"), "but probably UTF-16BE;"),
        ("path,gender\nimages/001.png,1\n".encode("utf-32"), "but probably UTF-32;"),
        (b"path,gender\nimages/001.png,1\nimages/\0.png,1\n", "row 3 is no text; expected a CSV table"),
        (b"PK\x03\x04rest", "a zip archive, as Excel's workbooks are"),
        (b"# made by hand\npath,gender\nimages/001.png,1\n", "begins with '# made by hand'; expected the header"),
        (b"sep=,\npath,gender\nimages/001.png,1\n", "begins with 'sep=,'; expected the header"),
        (b"My labels\npath,gender\nimages/001.png,1\n", "row 2: too many values; expected My labels"),
        (b"path|gender\nimages/001.png|1\n", "separated by '|': 'path|gender'; expected commas, semicolons or tabs"),
        (b"path, gender\nimages/001.png,1\n", "the header has blanks around ' gender'"),
        (b"path,gender\n\n\nimages/001.png\n", "row 4: too few values; expected path, gender"),
        (b"path,gender\r\n\r\nimages/001.png,2\r\n", "row 3: gender is '2'"),
        (b'path,note,gender\nimages/001.png,"two\nlines",1\nimages/002.png,,2\n', "row 4: gender is '2'"),
        (
            b'path,gender\nimages/001.png,1\n"images/002.png,0\nimages/003.png,1\n',
            "row 3 cannot be read (unex",
        ),
        (b"path,gender\n" + b"x" * 200_000 + b",1\n", "row 2 cannot be read (field larger than field limit"),
        (b"path,gender\n", "has no rows"),
        (b"", "has no rows"),
    ],
)
def test_what_a_table_is_not(image_folder: Path, content: bytes, message: str) -> None:
    table = image_folder.parent / "labels.csv"
    table.write_bytes(content)
    assert message in refused(AnnotatedImages(16, str(table), "gender"))


def greys() -> dict[str, Image.Image]:
    """The upright image in every mode that the decoders return; in grey where the mode has no colour."""
    colour, grey = Image.fromarray(UPRIGHT), Image.fromarray(UPRIGHT).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    found = {f"{mode}.png": colour.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA")} | {
        "P.png": colour.quantize(4)
    }
    shares = Image.fromarray(np.asarray(grey, np.float32) / 255)
    found |= {"I;16.png": deep, "I.tif": deep.convert("I"), "F.tif": shares, "CMYK.tif": colour.convert("CMYK")}
    to_lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found["LAB.tif"] = ImageCms.profileToProfile(colour, *to_lab, outputMode="LAB")  # type: ignore[assignment]
    return found


def test_images_of_every_mode_are_taken(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    expected = {}
    for name, picture in greys().items():
        picture.save(tmp_path / "images" / name)
        grey = name.startswith(("1", "L.", "LA.", "I", "F"))
        expected[name] = np.asarray(Image.fromarray(UPRIGHT).convert("L").convert("RGB")) if grey else UPRIGHT
    data = Images(16, folder=str(tmp_path / "images"))
    data.setup("fit")
    assert len(data.train_set) == len(expected) == 11
    for k, path in enumerate(data.train_set.paths):
        difference = np.abs(data.train_set[k]["image"].astype(int) - expected[path.name])
        assert path.name == "1.png" or difference.max() <= 6, path


def test_transparent_images_lie_on_the_background(tmp_path: Path) -> None:
    pictures = {"rgba.png": Image.fromarray(UPRIGHT), "grey.webp": Image.fromarray(UPRIGHT).convert("L")}
    (tmp_path / "images").mkdir()
    half = Image.fromarray(np.repeat([0, 255], 8).astype(np.uint8)[None].repeat(16, 0))
    for name, picture in pictures.items():
        picture.putalpha(half)
        picture.save(tmp_path / "images" / name, lossless=True)
    palette = Image.fromarray(UPRIGHT).quantize(4)
    palette.save(tmp_path / "images" / "palette.png", transparency=palette.getpixel((0, 0)))
    assert "Set data.init_args.background to a colour" in refused(Images(16, folder=str(tmp_path / "images")))
    data = Images(16, folder=str(tmp_path / "images"), background="#102030")
    data.setup("fit")
    for k in range(3):
        image = data.train_set[k]["image"]
        assert image[0, 0].tolist() == [16, 32, 48] and image[15, 15].tolist() != [16, 32, 48]
    with pytest.raises(ConfigError, match="background is 'glass'; expected a colour such as white"):
        Images(16, folder=str(tmp_path), background="glass")


FORMS = {
    "commas.csv": 'path,gender\r\n"{0}",{1}\r\n',
    "semicolons.csv": 'path;gender\r\n"{0}";{1}\r\n',
    "tabs.tsv": "path\tgender\n{0}\t{1}\n",
    "lines.jsonl": '{{"path": "{0}", "gender": {1}}}\n',
    "words.ndjson": '{{"gender": {2}, "path": "{0}"}}\n\n',
}


def rows_of(form: str, names: Callable[[int], str]) -> str:
    """A table of the twelve images in one of the forms; a header is written once."""
    parts = [FORMS[form].format(names(k), k % 2, ["false", "true"][k % 2]) for k in range(12)]
    return parts[0] + "".join(part if "json" in form else part.partition("\n")[2] for part in parts[1:])


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_every_form(image_folder: Path, form: str) -> None:
    table = image_folder.parent / form
    table.write_text(rows_of(form, lambda k: f"images/{k:03d}.png"), "utf-8-sig", newline="")
    data = AnnotatedImages(16, str(table), "gender", folds=2, inner_share=0.5)
    data.setup("fit")
    assert data.train_set.arrays["label"][:, 0].tolist() == [k % 2 for k in range(12)]


def test_parquet_tables(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    columns = {"path": [f"images/{k:03d}.png" for k in range(12)], "gender": [k % 2 == 1 for k in range(12)]}
    table = image_folder.parent / "labels.parquet"
    parquet.write_table(pyarrow.table(columns), table)
    data = AnnotatedImages(16, str(table), "gender", folds=2, inner_share=0.5)
    data.setup("fit")
    assert data.train_set.arrays["label"][:, 0].tolist() == [k % 2 for k in range(12)]
    table.write_bytes(b"PAR1")
    assert "no Parquet table" in refused(AnnotatedImages(16, str(table), "gender"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'ohlora[tables]'" in refused(AnnotatedImages(16, str(table), "gender"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"path": "a.png"\n', "row 1 is no JSON"),
        ("a.jsonl", '\n["a.png", 1]\n', "row 2 holds list; expected an object per line"),
        ("a.jsonl", '{"path": "a.png", "gender": [1]}\n', "row 1: gender is [1]; expected a text or a number"),
        ("a.json", '{"labels": {"a.png": 1}}', "no labels as NVIDIA's tools write them"),
    ],
)
def test_what_other_tables_are_not(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    assert message in refused(AnnotatedImages(16, str(tmp_path / name), "gender"))


def test_the_labels_of_nvidias_tools(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": [["00000/a.png", 6], ["00000/b.png", 0]]}')
    assert read_rows(tmp_path / "dataset.json") == [
        {"path": "00000/a.png", "label": "6"},
        {"path": "00000/b.png", "label": "0"},
    ]
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", [0.5, 1]]]}')
    assert read_rows(tmp_path / "dataset.json") == [{"path": "a.png", "label0": "0.5", "label1": "1"}]


@pytest.mark.parametrize(
    "named",
    ["images/{}", "{}", "images\\{}", "./images/../images/{}", "NFC", "NFD", "absolute"],
)
def test_images_are_found_however_a_table_names_them(image_folder: Path, named: str) -> None:
    """Also with names that a Mac has taken apart, or put together, and blanks in them."""
    folder = image_folder / "é ü"
    folder.mkdir()
    stored = {"NFC": "NFD", "NFD": "NFC"}.get(named, "NFC")
    for k in range(12):
        (image_folder / f"{k:03d}.png").rename(folder / unicodedata.normalize(stored, f"à {k}.png"))  # type: ignore[arg-type]
    pattern = {"NFC": "images/{}", "NFD": "images/{}", "absolute": f"{image_folder}/{{}}"}.get(named, named)
    form = named if stored == "NFD" or named == "NFD" else "NFC"

    def name(k: int) -> str:
        written = unicodedata.normalize(form, f"à {k}.png")  # type: ignore[arg-type]
        inner = f"é ü\\{written}" if "\\" in named else f"é ü/{written}"
        return pattern.format(inner)

    table = image_folder.parent / "semicolons.csv"
    table.write_text(rows_of("semicolons.csv", name), newline="")
    data = AnnotatedImages(16, str(table), "gender", folder=str(image_folder), folds=2, inner_share=0.5)
    data.setup("fit")
    assert [path.name.partition(" ")[2] for path in data.train_set.paths] == [f"{k}.png" for k in range(12)]
    file = AnnotationFile(table, images.images_in(image_folder)[0], ["gender"], folder=image_folder)
    assert len(file.annotations) == 12


def test_decimal_commas_are_refused_by_name(image_folder: Path) -> None:
    table = image_folder.parent / "labels.csv"
    table.write_text("path;eyes\nimages/001.png;0,5\n")
    message = refused(Images(16, manifest=str(table), label_columns=["eyes"]))
    assert "row 2: eyes is '0,5'; expected a finite number, with a point before its decimals: 0.5, not 0,5" in message


def test_the_studio_leaves_other_columns_of_a_table_alone(image_folder: Path) -> None:
    table = image_folder.parent / "labels.csv"
    table.write_text("path;eyes;gender\nimages/001.png;0.5;\nimages/002.png;0.1;1\n")
    file = AnnotationFile(table, images.images_in(image_folder)[0], ["gender"])
    assert file.annotations == {2: {"gender": 1}}
    file.write(1, {"gender": 0})
    assert [row["gender"] for row in read_rows(table)] == ["0", "1"]
    file.write(1, None)
    file.write(3, {"gender": 1})
    assert [(row["eyes"], row["gender"]) for row in read_rows(table)] == [("0.5", ""), ("0.1", "1"), ("", "1")]
    with pytest.raises(DataError, match="annotations are written as CSV"):
        AnnotationFile(image_folder / "a.jsonl", images.images_in(image_folder)[0], ["gender"])


def test_a_byte_order_mark_is_no_part_of_the_header(image_folder: Path) -> None:
    table = image_folder.parent / "labels.csv"
    table.write_text("path,gender\n" + "".join(f"images/{k:03d}.png,{k % 2}\n" for k in range(12)), "utf-8-sig")
    data = AnnotatedImages(16, str(table), "gender", folds=2, inner_share=0.5)
    data.setup("fit")
    assert len(data.train_set) == 12


def test_a_message_about_many_rows_is_short(image_folder: Path) -> None:
    rows = "".join(f"{k},yes\n" for k in range(5000))
    message = refused(labels(image_folder, "idx,gender\n" + rows))
    assert "row 2: gender is 'yes'" in message and " more" in message
    header = ",".join(f"column_{k}" for k in range(3000))
    assert "column_0, column_1" in refused(labels(image_folder, f"{header}\n{',' * 2999}\n"))
