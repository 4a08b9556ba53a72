"""Directions in StyleSpace through the whole chain, on every family of generators.

Samples, search, evaluation, choice, character, film and the studio's steering, by the real command line on tiny
networks; what comes out is compared with what codes and steps say by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ohlora import attributes, pipeline
from ohlora.__main__ import main
from ohlora.characters.character import Character
from ohlora.characters.reports import Report
from ohlora.directions.edits import Directions, Steps
from ohlora.directions.groups import Groups
from ohlora.formats import network_files, sample_files
from ohlora.formats.direction_files import load_directions, save_directions
from ohlora.networks import stylegan2, stylegan3
from ohlora.networks.attribute_cnn import attribute_cnn
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Generator
from ohlora.networks.sampling import counted_latents
from ohlora.studio.steering import SteeringSession
from ohlora.utils import images
from ohlora.utils.files import read_rows
from scripts import compare_directions
from tests.conftest import CONF, ROOT, TINY, tiny_networks
from tests.documented import blocks, titled
from tests.networks.test_identity import tiny as tiny_identity
from tests.toy_tables import options

Run = Callable[..., int]
EDITED = ("eyes", "mouth")


def tiny_stylegan() -> Generator:
    return tiny_networks()[0]


def tiny_stylegan2() -> Generator:
    """One with labels."""
    torch.manual_seed(0)
    return stylegan2.Generator(**TINY, z_dim=8, w_dim=8, mapping_layers=2, c_dim=2, labels="normal")


def tiny_stylegan3() -> Generator:
    """Configuration T with three layers, whose filters are windows."""
    torch.manual_seed(2)
    filtered: dict[str, Any] = {"inputs": 4, "outputs": 4, "kernel": 3, "up": 2, "down": 2}
    filtered |= {"up_taps": 12, "down_taps": 12, "radial": False}
    cropped, square = [-11, -12, -11, -12], [9, 8, 9, 8]
    rgb = dict.fromkeys(("up", "down", "kernel"), 1) | {"inputs": 4, "outputs": 3, "up_taps": 0, "down_taps": 0}
    layers = [
        filtered | {"padding": square},
        filtered | {"padding": cropped},
        rgb | {"radial": False, "padding": [0, 0, 0, 0]},
    ]
    features = {"channels": 4, "size": 36, "sampling_rate": 16.0, "bandwidth": 2.0}
    found = stylegan3.Generator(16, z_dim=8, w_dim=8, c_dim=0, mapping_layers=2, input=features, layers=layers)
    for name, buffer in found.named_buffers():
        if name.endswith("filter"):
            buffer.copy_(torch.hann_window(14)[1:-1] / 7.5)
    torch.nn.init.normal_(found.get_buffer("input_layer.frequencies"))
    return found


@dataclass
class Chain:
    """What is known of one generator; commands run below ``folder``."""

    folder: Path
    ohlora: Run
    generator: Generator

    def run(self, command: str, conf: str, name: str, settings: dict[str, object], *words: str) -> None:
        paths = {"generator": "generator.safetensors", "network": "cnn.safetensors"}
        given = {"output": self.folder / name} | {key: self.folder / file for key, file in paths.items()} | settings
        said = options({f"model.init_args.{key}": value for key, value in given.items()})
        assert self.ohlora(command, conf, *said, *words, stage_dir=self.folder / f"{name}-{command}") == 0

    def search(self, name: str, path: str, *words: str, **settings: object) -> Directions:
        chosen = {
            "class_path": f"ohlora.directions.{path}",
            "init_args": {"targets": EDITED, "group_by": [], **settings},
        }
        self.run("fit", "directions", name, {"finder": json.dumps(chosen)}, *words)
        return load_directions(self.folder / name / "directions.safetensors")

    def evaluate(self, name: str) -> Report:
        judged = {"directions": self.folder / name / "directions.safetensors", "judge": self.folder / "cnn.safetensors"}
        tested = {"grid": "{eyes: [-1, 0, 1], mouth: [-1, 0, 1]}", "limits": "{eyes: 0.1, mouth: 0.1}", "sheets": 1}
        tested |= {"leakage_limit": 99, "growth_limit": 0}  # random networks do not keep to any
        self.run("test", "evaluation", name, judged | tested, "--data.init_args.count", "16")
        return Report.load(self.folder / name)

    def w(self, case: int) -> Codes:
        """A tested latent's code."""
        with torch.inference_mode():
            return self.generator.map(*counted_latents(self.generator, 0, [case], "test/"))

    def picture(self, codes: Codes) -> np.ndarray:
        """One image, H×W×3 uint8."""
        with torch.inference_mode():
            return np.asarray(images.to_uint8(self.generator.synthesize(codes))[0])

    def edited(self, case: int, step: Tensor, space: Space = Space.S) -> np.ndarray:
        """The image of a tested latent's code plus a step."""
        with torch.inference_mode():
            return self.picture(Codes(self.generator.in_space(self.w(case), space).values + step, space))


@pytest.fixture(params=[tiny_stylegan, tiny_stylegan2, tiny_stylegan3])
def chain(request: pytest.FixtureRequest, tmp_path: Path, ohlora: Run) -> Chain:
    network_files.save_network(request.param().eval(), tmp_path / "generator.safetensors")
    torch.manual_seed(0)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "cnn.safetensors")
    generator = network_files.load_generator(tmp_path / "generator.safetensors").requires_grad_(False)
    return Chain(tmp_path, ohlora, generator)


def same(one: Any, other: np.ndarray) -> bool:
    """Whether pictures are equal to one grey level: batches differ in the last bit."""
    return bool(np.abs(np.asarray(one).astype(int) - other).max() <= 1)


def changed(character: Character, monkeypatch: pytest.MonkeyPatch, **strengths: float) -> list[int]:
    """Which style channels reach the synthesis otherwise than those of the unedited image."""
    seen: list[Tensor] = []
    compute = character.generator.compute_images

    def watched(styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        seen.append(styles)
        return compute(styles, noise)

    with monkeypatch.context() as patched:
        patched.setattr(character.generator, "compute_images", watched)
        character.render(strict=True)
        character.render(strict=True, **strengths)
    return (seen[0] != seen[1])[0].nonzero().flatten().tolist()


def in_w_of(character: Character) -> Character:
    """The same face, steered by steps in W."""
    steps = Steps(Codes(torch.ones(1, 2, character.generator.w_dim), Space.W))
    return Character(character.generator, character.code, EDITED, steps, character.ranges, character.card)


def test_from_the_search_to_the_studio(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, folder = chain.generator, chain.folder
    single: dict[str, object] = {"candidates": 4, "verified": 4, "covariance_count": 100}
    samples = []
    if generator.kind == "stylegan":
        chain.run("predict", "sample", "samples", {}, "--data.init_args.count", "60")
        samples += ["--data.init_args.folder", str(folder / "samples")]
        single |= {"rank": "difference", "fraction": 0.1}
    else:
        single |= {"rank": "gradient", "latents": 20}
    few: dict[str, object] = {"latents": 20, "rounds": 2, "hold": [], "covariance_count": 100}
    found = {
        "single": chain.search("single", "single_channel.SingleChannel", *samples, **single),
        "channels": chain.search("channels", "channels.Channels", **few),
    }
    characters: dict[str, Character] = {}
    for name, directions in found.items():
        assert directions.space is Space.S and directions.vectors.shape == (1, 2, sum(generator.style_sizes))
        report = chain.evaluate(name)
        assert len(list((folder / name / "sheets").iterdir())) == 3

        # Choice, character and film.
        assert main(["select", str(folder / name), str(folder / name / "chosen"), "--count", "1"]) == 0
        file = folder / f"{name}.safetensors"
        assert main(["export-character", "tested", str(folder / name), "best", str(file)]) == 0
        assert main(["animate", str(file), str(folder / f"{name}.gif"), "--sweep", "0.3", "--idle", "0.2"]) == 0
        character = Character.load(file)
        case = int(character.card["case"])
        with Image.open(folder / f"{name}.gif") as film:
            assert getattr(film, "n_frames", 1) >= 8

        # A strength of 1 is one z-score of the attribute, and adds to the code what was found.
        place = report.place_of(case)
        slopes = load_file(folder / name / "latents.safetensors")["slope"][place]
        unedited = chain.picture(chain.w(case))
        assert same(character.render(), unedited)
        wide = replace(character, ranges=dict.fromkeys(EDITED, (-1.0, 1.0)))  # a face that moves little is clamped
        expected = {}
        for p, attribute in enumerate(EDITED):
            step = directions.steps.values[0, p] / slopes[p]
            expected[attribute] = chain.edited(case, step.float())
            assert same(wide.render(strict=True, **{attribute: 1.0}), expected[attribute])
            assert not same(expected[attribute], unedited)
            moved = changed(wide, monkeypatch, **{attribute: 1.0})
            if name == "single":
                chosen = directions.provenance["channels"][attribute]
                assert moved == [generator.style_offsets[chosen["layer"]] + chosen["channel"]]
                (row,) = [
                    row
                    for row in read_rows(folder / "single-fit" / "runs" / "0001" / "channels.csv")
                    if row["attribute"] == attribute and row["chosen"] == "True"
                ]
                assert {key: int(row[key]) for key in chosen} == chosen
            else:
                assert len(moved) > 0.5 * directions.vectors.shape[-1]

        characters[name] = wide

        # The candidates' sheet shows the character from end to end of each slider, unedited, and combined.
        with Image.open(folder / name / "chosen" / "candidates.png") as sheet:
            shown = np.asarray(sheet.convert("RGB"))[12:-12, 12:-12]
        assert same(shown, report.picture(place))
        height = 128 + 4 + 22  # with the gaps of its row and the caption
        rows_of_pictures = [shown[top : top + 128] for top in range(len(shown) - 130, 0, -height)][2::-1]
        (low_eyes, high_eyes), (low_mouth, high_mouth) = (character.ranges[a] for a in EDITED)
        ends: list[list[float]] = [[low_eyes, 0], [high_eyes, 0], [0, low_mouth], [0, high_mouth], [0, 0]]
        places = [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0)]
        for (down, column), picture in zip(places, character.frames(ends), strict=True):
            assert same(rows_of_pictures[down][::8, 2 + 130 * column : 130 * (column + 1) : 8], picture)

        # Steering, beside directions of another space.
        session = SteeringSession(wide)
        ((shown,),) = session.pictures([[1.0, 0.0]])[0]
        assert same(shown, expected["eyes"])
        torch.manual_seed(3)
        in_w = torch.randn(1, 2, generator.w_dim)
        save_directions(Directions.of_steps(EDITED, Codes(in_w, Space.W), Groups(), "made"), folder / "w.safetensors")
        session.compare(folder / "w.safetensors")
        (beside,) = session.pictures([[1.0, 0.0]])[0][1]
        assert same(beside, chain.edited(case, in_w[0, 0], Space.W))

    # A character steered by single channels, beside all channels, and one steered in W beside them.
    for character in (characters["single"], in_w_of(characters["single"])):
        session = SteeringSession(character)
        session.compare(folder / "channels" / "directions.safetensors")
        (beside,) = session.pictures([[0.0, 1.0]])[0][1]
        step = found["channels"].steps.values[0, 1]
        assert same(beside, chain.edited(int(character.card["case"]), step))


def test_samples_of_another_generator_are_refused(
    tmp_path: Path, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their codes would be style channels of faces that were never scored."""
    for name, generator in (("generator", tiny_stylegan()), ("other", tiny_networks(seed=5)[0])):
        network_files.save_network(generator, tmp_path / f"{name}.safetensors")
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), tmp_path / "cnn.safetensors")
    of_other = {"outputs": ["eyes"], "generator": network_files.fingerprint(tmp_path / "other.safetensors")}
    for name, size, about in (("samples", 8, of_other), ("made", 5, {"outputs": ["eyes"]})):
        sample_files.write_shard(tmp_path / name, 0, torch.randn(20, size), torch.randn(20, 1), about)
    finder = {"class_path": "ohlora.directions.single_channel.SingleChannel", "init_args": {"group_by": []}}
    words = options(
        {
            "model.init_args.output": tmp_path / "found",
            "model.init_args.generator": tmp_path / "generator.safetensors",
            "model.init_args.network": tmp_path / "cnn.safetensors",
            "model.init_args.finder": json.dumps(finder),
            "data.init_args.folder": tmp_path / "samples",
        }
    )
    assert ohlora("fit", "directions", *words) == 2
    said = capsys.readouterr().err
    assert (
        f"{tmp_path / 'samples'} was sampled from another generator than {tmp_path / 'generator.safetensors'}" in said
    )
    # Sets that do not name their generator, with codes of another length.
    assert ohlora("fit", "directions", *words, "--data.init_args.folder", str(tmp_path / "made")) == 2
    assert "made does not fit " in capsys.readouterr().err


@pytest.mark.slow
def test_the_comparison_runs_both_finders(tmp_path: Path, weights: tuple[Path, Path], ohlora: Run) -> None:
    """As ``configs/toy/compare_directions.yaml`` and the recipe configure them, but smaller."""
    torch.manual_seed(0)
    cnn = tmp_path / "cnn.safetensors"
    attributes.use(pipeline.world("toy").attributes)
    network_files.save_network(attribute_cnn("merged", "small", 16).eval(), cnn)
    attributes.use(None)
    for seed, name in enumerate(("identity", "guide")):
        network_files.save_network(tiny_identity(seed), tmp_path / f"{name}.safetensors")
    networks = {"generator": str(weights[0]), "network": str(cnn)}
    judged: dict[str, Any] = {
        "judge": str(cnn),
        "reals": None,
        "rest": None,
        "concept": [],
        "identity": {"file": str(tmp_path / "identity.safetensors")},
    }
    made = {"sampling": networks, "search": networks | {"judge": str(cnn)}, "evaluation": networks | judged}
    for name, given in made.items():
        OmegaConf.save(OmegaConf.create({"model": {"init_args": given}}), tmp_path / f"{name}.yaml")
    config = OmegaConf.load(ROOT / "configs" / "toy" / "compare_directions.yaml")
    methods = {name: config.methods[name] for name in ("single_channel", "channels", "paths_guided")}
    small = {"single_channel": {"candidates": 2, "verified": 2}, "channels": {"covariance_count": 50}}
    small["paths_guided"] = {"covariance_count": 50, "nodes": 2, "identity_axes": 2}
    for name, method in methods.items():
        method.finder.init_args = {**method.finder.get("init_args", {}), **small[name]}
    config.methods = methods
    config.root, config.guide = str(tmp_path / "compared"), str(tmp_path / "guide.safetensors")
    config.network = str(cnn)
    config.recipe = [*config.recipe, str(CONF / "directions.yaml"), str(tmp_path / "search.yaml")]
    config.evaluation = [*config.evaluation, str(CONF / "evaluation.yaml"), str(tmp_path / "evaluation.yaml")]
    config.sampling = [str(CONF / "sample.yaml"), str(tmp_path / "sampling.yaml")]
    config.latents, config.calibrate, config.seeds, config.samples, config.gradients = 4, 2, [0], [100], [4]
    config.parser = config.discriminator = None
    OmegaConf.save(config, tmp_path / "config.yaml")
    words = ["--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "table.csv")]
    assert compare_directions.main([*words, "--figure", str(tmp_path / "figure.png")]) == 0
    rows = read_rows(tmp_path / "table.csv")
    verified = 2 * 4 * 2 * 5
    assert [(row["method"], row["images"], row["images_per_latent"]) for row in rows] == [
        ("single_channel", str(100 + verified), "0"),
        ("channels", "12", "0"),
        ("paths_guided", "12", "16"),
    ]
    cell = json.loads((tmp_path / "compared" / "cells" / "channels-4-0.json").read_text())
    change = cell["change_and_identity"]
    assert float(change[-1]["identity_lost"]) == 0.5 and float(change[0]["eyes"]) <= float(change[-1]["eyes"])
    areas = {row["method"]: float(row["change_area_eyes"]) for row in rows}
    assert areas["channels"] == cell["change_area_eyes"] > 0 and "change_and_identity" not in rows[0]
    with Image.open(tmp_path / "figure_identity.png") as figure:
        assert figure.width > 600
    ran = OmegaConf.load(tmp_path / "compared" / "runs" / "single_channel-100-0" / "runs" / "0001" / "config.yaml")
    assert ran.model.init_args.finder.init_args.fraction == 0.02  # and not that of the recipe's SVM


def test_one_line_of_a_world_chooses_the_finder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "your_stylegan.md"
    world = dict(titled(page))["cats.yaml"]
    (block,) = [text for about, text in blocks(page, "yaml") if "channels.Channels" in text]
    found = []
    for line in [line for line in block.splitlines() if line.startswith("  vectorfind")]:
        (tmp_path / "cats.yaml").write_text(world.replace("  vectorfind_v9:\n", f"{line}\n"))
        with pytest.raises(SystemExit, match="0"):
            main(["fit", line.split(":")[0].strip(), "--world", "cats.yaml", "--print_config"])
        finder = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["finder"]
        found.append((finder["class_path"].rpartition(".")[2], *map(finder["init_args"].get, ("rank", "fraction"))))
    assert found == [
        ("Channels", None, None),
        ("SingleChannel", "gradient", 0.02),
        ("SingleChannel", "difference", 0.02),
    ]
