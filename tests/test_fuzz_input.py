"""Damaged tables, images, weights and configurations, by the thousand: each is taken, or refused in one short line."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import ohlora
from ohlora import tracking
from ohlora.__main__ import main
from ohlora.callbacks.checkpoint import read_checkpoint
from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.images import ImageFiles, Images
from ohlora.datamodules.scores import ScoredImages
from ohlora.directions.edits import Directions, Steps
from ohlora.directions.groups import Groups
from ohlora.errors import OhloraError
from ohlora.formats import foreign, network_files
from ohlora.formats.boundaries import read_boundary
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks.codes import Codes, Space
from ohlora.utils import mistakes
from ohlora.utils.files import content_stamp, read_rows
from tests.conftest import CONF, tiny_networks
from tests.toy_tables import brightness_table

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


NAMES = ["7.png", "007.png", "sub/1.png", ".8.png", ".hidden/9.png", "notes.txt", "a.PNG", "b.gif", "x.webp.part", "c"]
NAMES += ["@eaDir/d.png", "한글/얼굴.jpg", "e.jpeg", "deep/er/f.tiff", "g png", "h.png.txt", "__MACOSX/i.png"]


def rearranged(rng: random.Random, folder: Path) -> None:
    """Adds to a folder of images whatever people have in such folders."""
    content = next(folder.glob("*.png")).read_bytes()
    for name in rng.sample(NAMES, rng.randint(1, 8)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = rng.random()
        if path.exists() or path.is_symlink():
            continue
        if kind < 0.6:
            path.write_bytes(content if rng.random() < 0.8 else content[: rng.randrange(len(content))])
        elif kind < 0.7:
            path.mkdir()
            (path / "j.png").write_bytes(content)
        elif kind < 0.8:
            os.mkfifo(path)
        else:
            places = [folder, folder.parent, path, Path("nowhere"), next(folder.glob("*.png"))]
            path.symlink_to(rng.choice(places))


def test_folders(image_folder: Path, tmp_path: Path) -> None:
    """Every file of a folder is taken, or it or a folder above it is listed with a reason."""
    rng, seen = random.Random(0), Counter[str]()
    for _ in range(300):
        root = tmp_path / "case"
        folder = shutil.copytree(image_folder, root / "images")
        rearranged(rng, folder)
        data = Images(16, folder=str(folder), on_bad_image=rng.choice(["raise", "skip", "skip"]))
        result = outcome(data, root / "run")
        seen[result] += 1
        if result == "taken":
            table = root / "run" / "skipped.csv"
            told = {row["path"] for row in read_rows(table)} if table.is_file() else set()
            told |= {path.as_posix() for path in data.train_set.paths}
            for path in folder.rglob("*"):
                if not path.is_dir() or path.is_symlink():
                    followed = (
                        path.is_symlink() and path.is_dir() and any(place.startswith(f"{path}/") for place in told)
                    )
                    assert followed or {path.as_posix(), *map(Path.as_posix, path.parents)} & told, path
        shutil.rmtree(root)
    assert seen["taken"] > 100 and seen["refused"] > 30, seen


def damaged(rng: random.Random, content: bytes) -> bytes:
    """A file with a few bytes changed, taken out, repeated or cut off, most often near its beginning or end."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        end = rng.choice([len(changed), min(len(changed), 2000), min(len(changed), 100)])
        place = rng.choice([rng.randrange(end), len(changed) - 1 - rng.randrange(end)]) if changed else 0
        kind = rng.random()
        if kind < 0.6 and changed:
            changed[place] = rng.choice([0, 255, changed[place] ^ 1, ord("9"), ord("["), rng.randrange(256)])
        elif kind < 0.75:
            del changed[place : place + rng.choice([1, 8, 300])]
        elif kind < 0.9:
            changed[place:place] = rng.choice([b"\0", b"{}", b"9" * 12, changed[place : place + 50]])
        else:
            del changed[place:]
    return bytes(changed)


def outcome_of(work: Callable[[], object]) -> str:
    try:
        work()
    except (Exception, SystemExit) as error:
        text = mistakes.readable(error)
        assert isinstance(error, OhloraError) and text is not None, error
        assert len(text) < 500 and "\n" not in text
        return "refused"
    return "taken"


@pytest.fixture
def whole_files(tmp_path: Path, ohlora_run: Callable[..., int]) -> dict[str, tuple[bytes, Callable[[Path], object]]]:
    """Name → content of a file that is whole, and what reads it."""
    g, d = tiny_networks()
    network_files.save_network(g, tmp_path / "g.safetensors")
    network_files.save_network(d, tmp_path / "d.safetensors")
    found = Directions(("eyes",), torch.ones(1, 1, 8) / 8**0.5, torch.ones(1, 1), Groups(), "svm", {}, Space.W)
    save_directions(found, tmp_path / "v.safetensors")
    code, steps = Codes(torch.zeros(1, 8), Space.W), Steps(Codes(torch.ones(1, 1, 8), Space.W))
    ohlora.Character(g, code, ("eyes",), steps, {"eyes": (-1.0, 1.0)}).save(tmp_path / "c.safetensors")
    torch.save({"models": {"generator_smooth": foreign.to_foreign(g)}}, tmp_path / "g.pth")
    torch.save(foreign.to_foreign(g), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"G_ema": {"a": [1, 2.0, "x"]}, "b": np.zeros(3)}))
    np.save(tmp_path / "b.npy", np.ones((1, 8), np.float32))
    assert ohlora_run("fit", "pretrain", "--model.init_args.kimg", "0.008") == 0
    tracking.newest_checkpoint(tmp_path / "stage").rename(tmp_path / "t.ckpt")
    readers: dict[str, Callable[[Path], object]] = {
        "g.safetensors": network_files.load_network,
        "d.safetensors": network_files.load_network,
        "v.safetensors": load_directions,
        "c.safetensors": ohlora.Character.load,
        "g.pth": foreign.read_foreign,
        "old.pth": foreign.read_foreign,
        "p.pkl": foreign.read_foreign,
        "b.npy": read_boundary,
        "t.ckpt": read_checkpoint,
    }
    return {name: ((tmp_path / name).read_bytes(), read) for name, read in readers.items()}


@pytest.fixture
def ohlora_run(tmp_path: Path) -> Callable[..., int]:
    def run(command: str, conf: str, *words: str) -> int:
        root = ["--trainer.default_root_dir", str(tmp_path / "stage")]
        return main([command, "--config", str(CONF / f"{conf}.yaml"), *root, *words])

    return run


def test_weights_and_checkpoints(
    whole_files: dict[str, tuple[bytes, Callable[[Path], object]]], tmp_path: Path
) -> None:
    rng, seen = random.Random(0), Counter[str]()
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name, (content, read) in whole_files.items():
        for _ in range(250):
            # A file of its own: those that are mapped into memory must not change.
            path = folder / name
            path.unlink(missing_ok=True)
            path.write_bytes(damaged(rng, content))
            seen[outcome_of(lambda path=path, read=read: read(path))] += 1  # type: ignore[misc]
    assert seen["refused"] > 500 and seen.total() == 250 * len(whole_files), seen


def test_descriptions_of_safetensors(
    whole_files: dict[str, tuple[bytes, Callable[[Path], object]]], tmp_path: Path
) -> None:
    """Files whose tensors are whole, and what they say of themselves is not."""
    rng, seen = random.Random(0), Counter[str]()
    values = ["null", "[]", "{}", "-1", "1e99", '"x"', "[[]]", '{"a": 1}', "", "\x00", "true", "99999999999"]
    for name in ("g.safetensors", "v.safetensors", "c.safetensors"):
        content, read = whole_files[name]
        size = int.from_bytes(content[:8], "little")
        for _ in range(150):
            header = json.loads(content[8 : 8 + size])
            metadata = header["__metadata__"]
            key = rng.choice([key for key in metadata if key != "format"])
            if rng.random() < 0.3:
                del metadata[key]
            elif rng.random() < 0.5 or not metadata[key].startswith("{"):
                metadata[key] = rng.choice(values)
            else:
                inner = json.loads(metadata[key])
                if inner:
                    inner[rng.choice(list(inner))] = rng.choice([None, [], {}, -1, 0, 7, 2**40, "x", 1.5])
                metadata[key] = json.dumps(inner)
            text = json.dumps(header).encode()
            path = tmp_path / f"told.{name}"
            path.unlink(missing_ok=True)
            path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
            seen[outcome_of(lambda path=path, read=read: read(path))] += 1  # type: ignore[misc]
    assert seen["refused"] > 100, seen


PARTIAL = ["fast_dev_run=true", "limit_train_batches=1", "limit_val_batches=1", "max_steps=3", "max_time=00:00:00:00"]
WHOLE = ["log_every_n_steps=0", "precision=64-true", "detect_anomaly=true", "logger=false", "enable_progress_bar=true"]
WRONG = [
    "max_steps=0",
    "max_epochs=-5",
    "devices=0",
    "precision=8",
    "accumulate_grad_batches=0",
    "min_steps=1e9",
    "x=1",
]
WRONG += ["num_sanity_val_steps=2", "val_check_interval=0", "check_val_every_n_epoch=7", "barebones=true", "strategy=x"]


@pytest.fixture
def no_signal_kills() -> Iterator[None]:
    """A signal that comes after its run has ended is not for the tests."""
    earlier = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


def test_runs(
    tmp_path: Path, ohlora: Callable[..., int], no_signal_kills: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings, tables and signals by chance: every run succeeds or says why not; a product is of a whole run."""
    rng, seen = random.Random(0), Counter[int]()
    good = brightness_table(tmp_path / "data", 60)[0]
    table, stage = good.with_name("damaged.csv"), tmp_path / "stage"
    for turn in range(100):
        conf, product = rng.choice([("pretrain", "generator"), ("properties", "hairstyle"), ("filter", "gender")])
        chosen = rng.choice(["", "", *PARTIAL, *WHOLE, *WRONG])
        words: list[str] = []
        spoiled = conf != "pretrain" and rng.random() < 0.3
        content = bytearray(good.read_bytes())
        for _ in range(3 * spoiled):
            place = rng.randrange(len(content))
            content[place : place + rng.randrange(9)] = rng.choice(WORDS)
        table.write_bytes(content)
        if conf == "properties":
            words += ["--data.init_args.manifests", f"[{table}]", "--trainer.max_epochs", "2"]
        elif conf == "filter":
            words += ["--data.init_args.annotations", str(table), "--trainer.max_epochs", "2"]
        words += ([f"--trainer.{chosen}"] if chosen else []) + (["--ckpt_path", "last"] if rng.random() < 0.3 else [])
        number = rng.choice([signal.SIGTERM, signal.SIGINT])
        alarm = threading.Timer(rng.uniform(0.2, 2.5), os.kill, (os.getpid(), number)) if rng.random() < 0.4 else None
        folder = stage / conf
        before = content_stamp(folder / f"{product}.safetensors")
        if alarm is not None:
            alarm.start()
        code = ohlora("fit", conf, *words, stage_dir=folder)
        if alarm is not None:
            alarm.cancel()
            alarm.join()
        out, err = capsys.readouterr()
        case = (turn, conf, words, code, out[-500:], err[-500:])
        assert code in (0, 2) or (alarm is not None and code == 128 + number), case
        if code == 2:
            line = err.strip().splitlines()[-1]
            assert line.startswith("ohlora: ") and len(line) < 500, case
        if code > 2:
            (line,) = [line for line in out.splitlines() if line.startswith("stopped by")]
            assert len(line) < 500, case
        if content_stamp(folder / f"{product}.safetensors") != before:
            assert code == 0 or "after the product was written" in out, case
            # A checkpoint may stand at the end already.
            assert chosen not in PARTIAL or ("last" in words and chosen.startswith("max_")), case
            about = network_files.read_metadata(folder / f"{product}.safetensors")["provenance"]
            assert about["images_seen"] >= 48 and "partial" not in about, case
        seen[code] += 1
    assert seen[0] > 20 and seen[2] > 20 and seen[143] + seen[130] > 10, seen


def test_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, seen = random.Random(0), Counter[str]()
    pieces = ["[", "]", "{", "}", ": ", "- ", "\n", "  ", "&a ", "*a", "!!x ", "${", "null", "-1", "1e999"]
    pieces += [
        '"',
        "#",
        "\t",
        "trainer:",
        "init_args:",
        "class_path: ",
        "한글",
        "\x85",
        "true",
        "nan",
        "0x",
        "2020-13-45",
        "<<: ",
    ]
    for _ in range(300):
        name = rng.choice(["pretrain", "finetune", "filter", "properties", "face_parser"])
        text = (CONF / f"{name}.yaml").read_text()
        for _ in range(rng.randint(0, 2)):
            place = rng.randrange(len(text))
            cut = rng.choice([0, 0, 1, rng.randint(1, 60)])
            text = text[:place] + rng.choice([*pieces, ""]) + text[place + cut :]
        path = tmp_path / "own.yaml"
        path.write_text(text)
        try:
            code = main(["fit", "--config", str(path), "--print_config"])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr().err.strip().splitlines()
        assert code in (0, 2), (code, text)
        assert code == 0 or (said[-1].startswith("ohlora: ") and len(said[-1]) < 500), text
        seen["refused" if code else "taken"] += 1
    assert seen["taken"] > 10 and seen["refused"] > 100, seen
