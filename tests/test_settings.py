"""Mistakes on the command line and in configurations, found without the parser; helps and completions of the same."""

from __future__ import annotations

import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from ohlora import commandline, pipeline, settings, usage, worlds
from ohlora.__main__ import main
from ohlora.errors import OhloraError
from tests.conftest import CONF, ROOT
from tests.documented import commands, where

Run = Callable[..., int]
V8 = ["fit", "finetune_v8", "--world", "toy"]
MISTAKES = [
    (["--model.init_args.kimgg", "3"], "--model.init_args.kimgg: ohlora.modules.gan.GAN has no such setting; did you "
     "mean model.init_args.kimg?"),
    (["--model.kimgg=3"], "did you mean model.init_args.kimg?"),
    (["--model.init_args.kimg"], "--model.init_args.kimg: a value must follow"),
    (["--model.init_args.kimg", "abc"], "--model.init_args.kimg is abc; expected a number"),
    (["--model.init_args.add_labels", "3.5"], "--model.init_args.add_labels is 3.5; expected label or a whole number"),
    (["--model.init_args.labels", "real"], "labels is real; expected none, zeros, normal or dataset"),
    (["--model.init_args.trainable_generator", "mapping.*"], "is mapping.*; expected a list"),
    (["--model.init_args.architecture.resolutio", "3"], "did you mean model.init_args.architecture.resolution?"),
    (["--model.init_args.architecture.z_size", "3"], "the setting z_size is now called z_dim"),
    (["--model.init_args.average_half_life", "3"], "the setting average_half_life is now called ema_kimg"),
    (["--model.init_args.generator_optimizer.init_args.lrr", "3"], "torch.optim.Adam has no such setting"),
    (["--model", "ohlora.modules.gan.GANN"], "no class ohlora.modules.gan.GANN; did you mean ohlora.modules.gan.GAN?"),
    (["--data", "ohlora.datamodules.labels.LabelledImages"], "is now ohlora.datamodules.annotations.AnnotatedImages"),
    (["--trainer.max_epoch", "3"], "--trainer.max_epoch: there is no such setting; did you mean trainer.max_epochs?"),
    (["--trainer.max_epochs", "many"], "--trainer.max_epochs is many; expected a whole number or null"),
    (["--trainer.logger.init_args.mode", "offlin"], "mode is offlin; expected auto, online, offline or disabled"),
    (["--checkpoint.every", "3"], "did you mean checkpoint.every_kimg?"),
    (["--kimg", "3"], "--kimg: there is no such setting; did you mean model.init_args.kimg?"),
    (["--worl", "toy"], "--worl: there is no such setting; did you mean world?"),
    (["50"], "50 belongs to no option; options begin with --"),
    (["--config", "nowhere.yaml"], "--config nowhere.yaml: no such file"),
    (["--config", "configs/toy/finetune_v9.yaml"], "no such file; did you mean configs/toy/finetune_v8.yaml?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"), MISTAKES, ids=lambda case: " ".join(case) if isinstance(case, list) else ""
)
def test_mistakes_are_found(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*V8, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ohlora: ") and message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {init_args: {kimgg: 3}}", "model.init_args.kimgg: ohlora.modules.gan.GAN has no such setting; did"),
        ("trainer: {max_epoch: 3}", "trainer.max_epoch: there is no such setting; did you mean trainer.max_epochs?"),
        ("modle: {init_args: {kimg: 3}}", "modle: there is no such setting; did you mean model?"),
        ("model: {init_args: {kimg: [3]}}", "model.init_args.kimg is [3]; expected a number"),
        ("model: {class_path: ohlora.modules.gan.GAN, init_arg: {}}", "did you mean model.init_args?"),
        ("data: {class_path: ohlora.datamodules.labels.LabelledImages}", "datamodules.labels.LabelledImages is now"),
        (
            "trainer: {callbacks: [{class_path: ohlora.callbacks.grids.SampleGrid, init_args: {row: 3}}]}",
            "trainer.callbacks[0].init_args.row: ohlora.callbacks.grids.SampleGrid has no such setting; did you mean",
        ),
        ("a: [", "is no YAML"),
    ],
)  # fmt: skip
def test_mistakes_in_a_configuration_name_the_file(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    assert main([*V8, "--config", str(own)]) == 2
    assert f"ohlora: {own}" in (said := " ".join(capsys.readouterr().err.split())) and message in said


def test_they_are_found_before_anything_heavy_is_imported() -> None:
    cases = [[*V8, *words] for words, _ in MISTAKES] + [
        [*V8, "--help"],
        ["fit", "-h"],
        ["completion", "--words", "fit", "f"],
    ]
    program = f"""
import sys
from ohlora.__main__ import main
for words in {cases!r}:
    main(words)
    slow = [name for name in ("torch", "lightning", "jsonargparse", "omegaconf", "numpy") if name in sys.modules]
    assert not slow, (words, slow)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def checked(words: list[str]) -> dict[str, Any]:
    return settings.check(commandline.expanded(words)[0])


def test_nothing_that_ships_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for world in map(pipeline.world, worlds.SHIPPED):
        for stage in world.stages.values():
            if stage.configured:
                checked([stage.command, stage.name, "--world", world.given])
    for path in CONF.glob("*.yaml"):
        for verb in worlds.VERBS:
            checked([verb, "--config", str(path)])
    count = 0
    for command in commands():
        if command.words[:3] == ["python", "-m", "ohlora"] and command.words[3] in worlds.VERBS:
            monkeypatch.chdir(where(command, tmp_path))
            count += bool(checked(command.words[3:]))
    assert count > 30
    assert capsys.readouterr().err == ""


VALUES = ["abc", "3", "3.5", "-1", "1e-3", "true", "null", "[1, 2]", "[a]", "{a: 1}", "none", "${oc.env:HOME}"]


@pytest.mark.parametrize("path", [name for name in settings.schema()["$defs"] if name.startswith(("ohlora", "torch"))])
def test_what_is_refused_the_parser_refuses_too(path: str) -> None:
    node = settings.of_class(path)
    assert node is not None
    parser = ArgumentParser(exit_on_error=False, parser_mode="omegaconf")
    parser.add_class_arguments(pkgutil.resolve_name(path), fail_untyped=False)
    refused = 0
    for name in [*node["properties"], "no_such_setting"]:
        for value in VALUES:
            for given in (settings.Word(value), yaml.safe_load(value)):
                problem = settings.problem({name: given}, node, {}, "")
                if problem is None:
                    continue
                refused += 1
                with pytest.raises((ArgumentError, TypeError), match=name) as found:
                    if isinstance(given, settings.Word):
                        parser.parse_args([f"--{name}={value}"])
                    else:
                        parser.parse_object({name: given})
                assert "are required" not in str(found.value), (name, given, problem)
    assert refused


def test_another_version_of_a_library_is_left_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "released", lambda library: "99.0")
    assert checked([*V8, "--trainer.max_epoch", "3", "--model.init_args.generator_optimizer.init_args.lrr", "3"])
    with pytest.raises(OhloraError, match="GAN has no such setting"):
        checked([*V8, "--model.init_args.kimgg", "3"])


def test_a_setting_newer_than_the_schema_is_left_to_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    older = json.loads(json.dumps(settings.schema()))
    del older["$defs"]["ohlora.modules.gan.GAN"]["properties"]["kimg"]
    monkeypatch.setattr(settings, "schema", lambda: older)
    assert checked([*V8, "--model.init_args.kimg", "3"])


def test_a_class_of_ones_own_is_left_to_the_parser() -> None:
    assert checked([*V8, "--model", "mine.Model", "--model.init_args.colour", "blue"])
    assert checked([*V8, "--trainer.callbacks+", "mine.Callback", "--trainer.callbacks.init_args.colour", "blue"])
    appended = ["--trainer.logger+=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.init_args.save_dir", "x"]
    assert checked([*V8, *appended]), "a setting of what was appended, not of the logger that every run has"


def test_settings_that_outlive_their_class_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config", str(CONF / "directions.yaml"), "--model.init_args.finder"]
    words += ["ohlora.directions.ridge.Ridge"]  # the configuration names an SVM, and its group_by
    told = "model.init_args.finder.init_args.group_by stays as it was said for ohlora.directions.svm.SVM"
    checked(words)
    assert told in capsys.readouterr().err
    checked([*words, "--model.init_args.finder.init_args.group_by", "[]"])
    checked([*words[:-1], "ohlora.directions.svm.SVM"])
    assert capsys.readouterr().err == ""


def test_help_shows_what_is_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for verb in worlds.VERBS:
        assert main([verb, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 45 and max(map(len, lines)) <= 80
        assert any("--trainer.max_epochs" in line for line in lines)
    assert main(["fit", "finetune_v8", "--world", "toy", "--model.init_args.r1_gamma", "7", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "kimg Length of training, in thousands of images [10]" in text
    assert "r1_gamma R1 enters the loss as γ/2 times the penalty [7]" in text and "manifest CSV" in text


def test_the_common_settings_exist() -> None:
    words = [word for name in usage.COMMON if name not in ("config", "world") for word in (f"--{name}", "null")]
    assert checked(["fit", *words])


def test_all_settings_are_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["fit", "--help-all"])
    assert done.value.code == 0 and "--trainer.gradient_clip_val" in capsys.readouterr().out


COMPLETED = [
    (["fi"], {"fit", "filter", "finish"}),
    (["fit", "finetune_v8", "--world", "t"], {"toy"}),
    (["fit", "finetune_v"], {"finetune_v1", "finetune_v1_projection", "finetune_v8"}),
    (
        ["fit", "finetune_v8", "--model.init_args.la"],
        {f"--model.init_args.{name}" for name in ("labels", "label_head", "label_rate", "label_contrast")},
    ),
    (["fit", "finetune_v8", "--model.init_args.labels", "n"], {"none", "normal"}),
    (["fit", "finetune_v8", "--trainer.max_"], {"--trainer.max_epochs", "--trainer.max_time"}),
    (["filter", "--k"], {"--keep"}),
    (["completion", "z"], {"zsh"}),
]
SHELLS = {
    "bash": "eval \"$(ohlora completion bash)\"; COMP_WORDS=(ohlora {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
    "_ohlora; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
    "zsh": "compdef() {{}}; compadd() {{ shift; print -l -- \"${{(@P)1}}\" }}; _files() {{}}; "
    "eval \"$(ohlora completion zsh)\"; words=(ohlora {words}); CURRENT=$#words; _ohlora",
    "fish": "ohlora completion fish | source; complete -C \"ohlora {words}\"",
}  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "ohlora"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ohlora "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    for words, expected in COMPLETED:
        script = SHELLS[shell].format(words=" ".join(words))
        done = subprocess.run([shell, "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path, check=True)
        found = {re.split(r"\t", line)[0] for line in done.stdout.splitlines()}
        assert {word for word in found if word.startswith(words[-1])} == expected, (words, done.stdout, done.stderr)
