"""What is called otherwise than in earlier versions, old → new, in one table.

Old names are refused with the new one and never read: a setting, class or configuration by :func:`now_called`, a
checkpoint by the entry point, a folder of artifacts by :func:`moving`, which gives the command that moves it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

SETTINGS: Mapping[str, str] = {
    "z_size": "z_dim",
    "w_size": "w_dim",
    "label_size": "c_dim",
    "std_group": "mbstd_group_size",
    "w_avg_decay": "w_avg_beta",
    "average_half_life": "ema_kimg",
    "num_layers": "num_ws",
    "psi": "truncation_psi",
    "psi_layers": "truncation_cutoff",
    "passes": "trainer.max_epochs",
    "noise": "noise_mode",
    "labels": "annotations",
    "method": "finder",
    "test_count": "count",
    "made_by": "",
}
"""Settings; those without a new name are gone, and nothing has to be said in their place."""
VALUES: Mapping[str, str] = {
    "noise: fixed": "noise_mode: const",
    "method: svm": "finder: ohlora.directions.svm.SVM",
    "method: mean_difference": "finder: ohlora.directions.mean_difference.MeanDifference",
    "method: ridge": "finder: ohlora.directions.ridge.Ridge",
    "method: random": "finder: ohlora.directions.random.Random",
    "method: jacobian": "finder: ohlora.directions.jacobian.Jacobian",
    "method: local": "finder: ohlora.directions.local.Local",
}
"""Values of settings."""
CLASSES: Mapping[str, str] = {
    "ohlora.datamodules.labels.LabelledImages": "ohlora.datamodules.annotations.AnnotatedImages",
    "ohlora.modules.parsing.ScoreProperties": "ohlora.modules.scores.ScoreProperties",
    "ohlora.character.Character": "ohlora.characters.character.Character",
}
"""Classes, by their import path."""
STAGES: Mapping[str, str] = {
    "generate_10k": "generate_original",
    "generate_15k": "generate_v1",
    "score_10k": "score_original",
    "score_15k": "score_v1",
    "filter_10k": "filter_original",
    "filter_15k": "filter_v1",
    "sample_240k": "sample_v8",
}
"""Stages: their configurations, and their folders below a world's root."""
COMMANDS: Mapping[str, str] = {
    "test vectorfind_v8": "test evaluate_v8",
    "test vectorfind_v9": "test evaluate_v9",
}
"""Commands of the entry point with the stage they run."""
FILES: Mapping[str, str] = {
    f"vectorfind_{version}/{name}": f"evaluate_{version}/{name}"
    for version in ("v8", "v9")
    for name in ("test_result.csv", "test_statistics.csv", "latents.safetensors")
}
"""Files below a world's root that moved to another folder."""


def now_called(message: str) -> str | None:
    """What to say instead, where an error is about an old name.

    Args:
        message: The error, which quotes the name that was refused.

    Returns:
        One sentence with the new name, or None where no old name is in it.
    """
    for old, new in CLASSES.items():
        if old in message or f"'{old.rpartition('.')[0]}'" in message:
            return f"{old} is now {new}"
    for old in re.findall(r"(?:Option|Key|argument|setting) '?(?:[\w.]*\.)?(\w+)'? is not ", message):
        if old in SETTINGS:
            return setting_now(old)
    for old in re.findall(r"[uU]nrecognized arguments: --(?:\w+\.)*(\w+)", message):
        if old in SETTINGS:
            return setting_now(old)
    return None


def setting_now(old: str) -> str:
    """What became of a setting."""
    new = SETTINGS[old]
    if not new:
        return f"the setting {old} is gone; leave it out"
    values = [f"{before} is now {after}" for before, after in VALUES.items() if before.startswith(f"{old}:")]
    return "; ".join([f"the setting {old} is now called {new}", *values])


def moving(path: str | Path) -> str | None:
    """The command that moves what an earlier version made to where it is looked for.

    Args:
        path: A file or folder that is missing.

    Returns:
        A shell command; None unless the old file or folder is there.
    """
    parts = Path(path).parts
    for old, new in STAGES.items():
        if new in parts:
            root = Path(*parts[: parts.index(new)])
            if (root / old).is_dir() and not (root / new).exists():
                # Tables name generated images by their folder, so that its old name must go on leading there.
                link = f" && ln -s {new} {root / old}" if old.startswith("generate") else ""
                return f"mv {root / old} {root / new}{link}"
    for new_folder in dict.fromkeys(new.split("/")[0] for new in FILES.values()):
        if new_folder in parts:
            root = Path(*parts[: parts.index(new_folder)])
            there = [
                (root / old).as_posix()
                for old, new in FILES.items()
                if new.startswith(f"{new_folder}/") and (root / old).is_file() and not (root / new).exists()
            ]
            if there:
                return f"mkdir -p {root / new_folder} && mv {' '.join(there)} {root / new_folder}"
    return None


def table() -> list[tuple[str, str, str]]:
    """All of it: kind, old name, new name."""
    rows = [("setting", old, new or "(gone)") for old, new in SETTINGS.items()]
    rows += [("value", old, new) for old, new in VALUES.items()]
    rows += [("class", old, new) for old, new in CLASSES.items()]
    rows += [("stage, its configuration and folder", old, new) for old, new in STAGES.items()]
    rows += [("command", f"ohlora {old}", f"ohlora {new}") for old, new in COMMANDS.items()]
    rows += [("file", old, new) for old, new in FILES.items()]
    return rows
