"""Order of data, drawn faces, image files and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ohlora import attributes
from ohlora.datamodules.annotations import AnnotatedImages
from ohlora.datamodules.base import ImageDataset, collate
from ohlora.datamodules.drawn_faces import DrawnFaceDataset, DrawnFaces
from ohlora.datamodules.images import Images
from ohlora.datamodules.latents import Latents
from ohlora.datamodules.sampler import CountedSampler
from ohlora.errors import ConfigError, DataError, MissingArtifactError
from ohlora.toy import drawing
from ohlora.utils import counted, images
from ohlora.utils.files import read_rows

Run = Callable[..., int]


def take(count: int, start: int = 0, rank: int = 0, world_size: int = 1) -> list[int]:
    return list(islice(CountedSampler(5, 3, lambda: start, rank, world_size), count))


def test_an_epoch_ends_where_it_should_wherever_iteration_begins() -> None:
    whole = list(islice(CountedSampler(5, 3, lambda: 0), 12))
    for begun in (6, 8):  # the second epoch of six positions
        ranks = [CountedSampler(5, 3, lambda begun=begun: begun, rank, 2) for rank in (0, 1)]  # type: ignore[misc]
        for sampler in ranks:
            sampler.epoch, sampler.done = 6, lambda begun=begun: begun - 6  # type: ignore[misc]
        assert [place for pair in zip(*ranks, strict=True) for place in pair] == whole[begun:]
        assert len(ranks[0]) == 3
    with pytest.raises(TypeError, match="endless"):
        len(CountedSampler(5, 3, lambda: 0))


def test_order_is_a_function_of_seed_and_position() -> None:
    whole = take(20)
    assert all(sorted(whole[k : k + 5]) == [0, 1, 2, 3, 4] for k in (0, 5, 10, 15))
    assert whole[:5] != whole[5:10] or whole[5:10] != whole[10:15]
    assert take(13, start=7) == whole[7:]
    ranks = [take(10, rank=r, world_size=2) for r in (0, 1)]
    assert [index for pair in zip(*ranks, strict=True) for index in pair] == whole


def test_drawn_faces_depend_on_seed_and_index_only() -> None:
    data, more = DrawnFaceDataset(6, 32, seed=4), DrawnFaceDataset(9, 32, seed=4)
    expected = drawing.draw(drawing.sample_truth(4, 3), 32).image
    assert (data[3]["image"] == expected).all() and (more[3]["image"] == expected).all()
    assert (data[3]["image"] == expected).all()  # and again, from memory
    assert not (DrawnFaceDataset(6, 32, seed=5)[3]["image"] == expected).all()


def test_drawn_faces_are_training_data() -> None:
    data = DrawnFaces(16, train_size=3, batch_size=2, seed=7)
    data.setup("fit")
    expected = [drawing.draw(drawing.sample_truth(7, index), 16).image for index in range(3)]
    assert [np.array_equal(data.train_set[k]["image"], expected[k]) for k in range(3)] == [True] * 3
    chosen = data.training_images(9, seed=1, stream="some")
    assert chosen.shape == (3, 16, 16, 3) and chosen.dtype == np.uint8
    order = counted.permutation(1, "some", 0, 3)
    assert np.array_equal(chosen, np.stack([expected[k] for k in order]))
    assert np.array_equal(data.training_images(2, seed=1, stream="some"), chosen[:2])


def test_data_that_was_not_connected_says_so(image_folder: Path) -> None:
    data = Images(16, folder=str(image_folder), flip=True)
    data.setup("fit")
    data.trainer = SimpleNamespace(training=True, global_rank=0, world_size=1)  # type: ignore[assignment]
    for use in (data.train_dataloader, lambda: data.on_after_batch_transfer({"image": torch.zeros(2, 3, 16, 16)}, 0)):
        with pytest.raises(ConfigError, match=r"Images has no clock; call stage.connect\(data\)"):
            use()
    with pytest.raises(ConfigError, match=r"call stage.connect\(data\) before trainer.predict"):
        Latents(3).shares_to_do()


def test_rates_reach_the_drawing() -> None:
    glasses, none = (DrawnFaceDataset(8, 32, 0, rates={"glass": rate}) for rate in (1.0, 0.0))
    assert all((glasses[k]["image"] != none[k]["image"]).any() for k in range(8))


def test_pixels_survive_the_way_in_and_out() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    tensors = images.to_float(levels)
    assert float(tensors.min()) == -1 and float(tensors.max()) == 1
    assert (images.to_uint8(tensors) == levels).all()
    beyond = np.clip((levels.astype(float) * 3) - 255, 0, 255)  # three times as far from the middle
    assert np.abs(images.to_uint8(tensors * 3) - beyond).max() <= 1


@pytest.mark.parametrize("cache", ["auto", "memory", "none"])
def test_image_files(image_folder: Path, cache: str) -> None:
    data = Images(16, folder=str(image_folder), cache=cache)
    data.setup("fit")
    assert len(data.train_set) == 12
    with Image.open(image_folder / "004.png") as picture:
        assert (data.train_set[4]["image"] == np.asarray(picture)).all()


def test_batches_say_which_images_they_hold(image_folder: Path) -> None:
    files = Images(16, folder=str(image_folder))
    files.setup("fit")
    datasets: list[ImageDataset] = [files.train_set, DrawnFaceDataset(6, 16, seed=0)]
    for dataset in datasets:
        batch = collate([dataset[4], dataset[2]])
        assert batch["index"] == [4, 2] and "flipped" not in batch


def test_mirrored_images_belong_to_positions(image_folder: Path) -> None:
    """Whether an image is mirrored hangs on its place in the order, not on batches or ranks."""
    flipped: dict[int, bool] = {}
    for rank, world, seen, size in ((0, 1, 0, 12), (0, 2, 4, 4), (1, 2, 4, 4)):
        data = Images(16, folder=str(image_folder), flip=True)
        data.setup("fit")
        data.connect(partial(int, seen))
        trainer = SimpleNamespace(training=True, global_rank=rank, world_size=world)
        data.trainer = trainer  # type: ignore[assignment]
        before = collate([data.train_set[k] for k in range(size)])
        after = data.on_after_batch_transfer(before, 0)
        for k, mirrored in enumerate(after["flipped"]):
            expected = before["image"][k].flip(2) if mirrored else before["image"][k]
            assert torch.equal(after["image"][k], expected)
            assert flipped.setdefault(seen + rank + k * world, mirrored) == mirrored
        trainer.training = False
        assert "flipped" not in data.on_after_batch_transfer(before, 0)
    assert 2 <= sum(flipped.values()) <= 10


def test_what_mirroring_changes_is_not_mirrored(image_folder: Path) -> None:
    sides = {name: {"meaning": name, "kind": "binary", "roles": ["filter", "label"]} for name in ("left", "right")}
    sides["left"]["mirror"], sides["right"]["mirror"] = "right", "left"
    attributes.use(attributes.Vocabulary.read(Path("mine.yaml"), sides))
    with pytest.raises(ConfigError, match=r"mirroring changes left, right, as mine\.yaml declares"):
        Images(16, manifest="any.csv", label_columns="label", flip=True)
    with pytest.raises(ConfigError, match=r"mirroring changes left, as mine\.yaml declares"):
        AnnotatedImages(16, "any.csv", "left", flip=True)
    assert Images(16, manifest="any.csv", label_columns="label").label_names == ("left", "right")


def test_bad_images_are_listed_by_name(image_folder: Path) -> None:
    (image_folder / "003.png").write_bytes(b"no image")
    content = (image_folder / "004.png").read_bytes()
    (image_folder / "004.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (8, 8)).save(image_folder / "005.png")
    Image.new("RGBA", (16, 16)).save(image_folder / "006.png")
    with pytest.raises(DataError) as caught:
        Images(16, folder=str(image_folder)).setup("fit")
    message = str(caught.value)
    assert message.startswith("4 of 12 images cannot be used")
    for part in (
        "003.png: unreadable",
        "004.png: unreadable",
        "005.png: size 8×8; expected 16×16",
        "006.png: transparent in places",
        "on_bad_image to skip",
    ):
        assert part in message


def test_images_all_of_another_size_want_another_resolution(image_folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"Set resolution \(of model or data\) to theirs, or data\.init_args\.resize to true"
    ):
        Images(32, folder=str(image_folder)).setup("fit")
    (image_folder / "003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Mend or remove them$"):
        Images(32, folder=str(image_folder)).setup("fit")


def test_skipped_images_are_counted_and_listed(
    image_folder: Path, tmp_path: Path, weights: tuple[Path, Path], ohlora: Run
) -> None:
    (image_folder / "003.png").write_bytes(b"no image")
    words = [
        *("--model.init_args.generator", str(weights[0])),
        *("--model.init_args.discriminator", str(weights[1])),
        *("--data.init_args.folder", str(image_folder)),
    ]
    assert ohlora("fit", "finetune", *words) == 2
    assert ohlora("fit", "finetune", *words, "--data.init_args.on_bad_image", "skip") == 0
    rows = read_rows(tmp_path / "stage" / "runs" / "0002" / "skipped.csv")
    assert [Path(row["path"]).name for row in rows] == ["003.png"] and "unreadable" in rows[0]["reason"]


def test_images_are_held_out_of_training(tmp_path: Path) -> None:
    for k in range(40):
        images.save_png(np.full((4, 4, 3), k, np.uint8), tmp_path / f"{k:02d}.png")

    def levels(of: ImageDataset) -> list[int]:
        return [int(of[k]["image"][0, 0, 0]) for k in range(len(of))]

    def split(held_out: int, stage: str = "fit", seed: int = 0) -> tuple[list[int], list[int]]:
        data = Images(4, folder=str(tmp_path), held_out=held_out, seed=seed)
        data.setup(stage)
        return levels(data.train_set), levels(data.held_out) if data.held_out is not None else []

    taken, held = split(3)
    assert len(held) == 3 and sorted([*taken, *held]) == list(range(40)) and taken == sorted(taken)
    assert split(3) == (taken, held) and split(3, seed=1)[1] != held
    assert len(split(1000)[1]) == 4  # a tenth
    assert split(0) == (list(range(40)), []) and split(3, "predict") == (list(range(40)), [])
    with pytest.raises(ConfigError, match="held_out is -1"):
        Images(4, folder=str(tmp_path), held_out=-1)


def test_the_labels_of_images_held_out_are_not_drawn(image_folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"images/{k:03d}.png,{k}\n" for k in range(12))
    (tmp_path / "manifest.csv").write_text(f"path,eyes_score\n{rows}")
    data = Images(16, manifest=str(tmp_path / "manifest.csv"), label_columns=["eyes"], held_out=5)
    data.setup("fit")
    labels = data.train_set.labels
    assert data.held_out is not None and labels is not None and len(labels) == 11 and data.held_out.labels is not None
    assert sorted([*labels[:, 0], *data.held_out.labels[:, 0]]) == list(range(12))


def test_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="nowhere does not exist"):
        Images(16, folder=str(tmp_path / "nowhere")).setup("fit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        Images(16, folder=str(tmp_path / "empty")).setup("fit")


def test_manifests(image_folder: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("index,path,eyes\n0,images/002.png,0.5\n1,images/001.png,-1\n")
    data = Images(16, manifest=str(manifest), label_columns=["eyes"])
    data.setup("fit")
    assert data.train_set.labels is not None and data.train_set.labels.tolist() == [[0.5], [-1.0]]
    with Image.open(image_folder / "002.png") as picture:
        assert (data.train_set[0]["image"] == np.asarray(picture)).all()
    with pytest.raises(DataError, match="missing columns mouth; the header has index, path, eyes"):
        Images(16, manifest=str(manifest), label_columns=["mouth"]).setup("fit")
    manifest.write_text("path,eyes\nimages/002.png,much\n")
    with pytest.raises(DataError, match=r"row 2: eyes is 'much'; expected a finite number"):
        Images(16, manifest=str(manifest), label_columns=["eyes"]).setup("fit")
    manifest.write_text("path,eyes\nimages/002.png,1\nimages/001.png\n")
    with pytest.raises(DataError, match="row 3: too few values; expected path, eyes"):
        Images(16, manifest=str(manifest), label_columns=["eyes"]).setup("fit")
    manifest.write_text("img_name,path\nfirst,images/002.png\n")
    with pytest.raises(DataError, match="row 2: img_name is 'first'; expected the image's number"):
        Images(16, manifest=str(manifest)).setup("fit")
    manifest.write_text("path\nimages/gone.png\n")
    with pytest.raises(DataError, match=r"gone.png: no such file"):
        Images(16, manifest=str(manifest)).setup("fit")
