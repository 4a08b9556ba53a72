"""What is called otherwise than in earlier versions, old → new.

Old names are refused with the new one and never read: a setting, class or configuration by :func:`now_called`, a
checkpoint by the entry point, a folder of artifacts by :func:`moving`, which gives the command that moves it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

# fmt: off
SETTINGS: Mapping[str, str] = {
    "z_size": "z_dim", "w_size": "w_dim", "label_size": "c_dim", "std_group": "mbstd_group_size",
    "w_avg_decay": "w_avg_beta", "average_half_life": "ema_kimg", "num_layers": "num_ws",
    "psi": "truncation_psi", "psi_layers": "truncation_cutoff", "passes": "trainer.max_epochs", "noise": "noise_mode",
    "labels": "annotations", "method": "finder", "test_count": "count", "made_by": "(gone)",
    "scale_count": "unedited_count",
}
"""Settings; of those that are gone, nothing has to be said in their place."""
VALUES: Mapping[str, str] = {"noise: fixed": "noise_mode: const"} | {
    f"method: {module}": f"finder: ohlora.directions.{module}.{name}"
    for module, name in (("svm", "SVM"), ("mean_difference", "MeanDifference"), ("ridge", "Ridge"),
                         ("random", "Random"), ("jacobian", "Jacobian"), ("local", "Local"))
}
CLASSES: Mapping[str, str] = {
    "ohlora.datamodules.labels.LabelledImages": "ohlora.datamodules.annotations.AnnotatedImages",
    "ohlora.modules.parsing.ScoreProperties": "ohlora.modules.scores.ScoreProperties",
    "ohlora.character.Character": "ohlora.characters.character.Character",
}
STAGES: Mapping[str, str] = {
    "generate_10k": "generate_original", "generate_15k": "generate_v1", "score_10k": "score_original",
    "score_15k": "score_v1", "filter_10k": "filter_original", "filter_15k": "filter_v1", "sample_240k": "sample_v8",
}
# fmt: on
COMMANDS: Mapping[str, str] = {f"test vectorfind_{version}": f"test evaluate_{version}" for version in ("v8", "v9")}
"""Commands with the stage they run."""
# fmt: off
SCRIPTS: Mapping[str, str] = {
    "import_weights": "import-weights", "export_weights": "export-weights", "import_directions": "import-directions",
    "filter_images": "filter", "merge_cnns": "merge", "select_characters": "select",
    "export_character": "export-character", "animate_character": "animate", "draw_faces": "draw-faces", "demo": "demo",
}
# fmt: on
"""Scripts that are commands now."""
FILES: Mapping[str, str] = {
    f"vectorfind_{version}/{name}": f"evaluate_{version}/{name}"
    for version in ("v8", "v9")
    for name in ("test_result.csv", "test_statistics.csv", "latents.safetensors")
}
"""Files below a world's root that moved to another folder."""
TABLES = {
    "setting": SETTINGS,
    "value": VALUES,
    "class": CLASSES,
    "stage, its configuration and folder": STAGES,
    "command": {f"ohlora {old}": f"ohlora {new}" for old, new in COMMANDS.items()}
    | {f"python scripts/{old}.py": f"ohlora {new}" for old, new in SCRIPTS.items()}
    | {"python scripts/score_drawn_faces.py": "python scripts/measure_drawn_faces.py"},
    "file": FILES,
}
"""All of it by kind."""


def now_called(message: str) -> str | None:
    """What to say in place of an error about an old name, which the error quotes; None where it quotes none."""
    for old, new in CLASSES.items():
        if old in message or f"'{old.rpartition('.')[0]}'" in message:
            return f"{old} is now {new}"
    refused = re.findall(r"(?:Option|Key|argument|setting) '?(?:[\w.]*\.)?(\w+)'? is not ", message)
    refused += re.findall(r"[uU]nrecognized arguments: --(?:\w+\.)*(\w+)", message)
    return next((setting_now(old) for old in refused if old in SETTINGS), None)


def setting_now(old: str) -> str:
    """What became of a setting."""
    if SETTINGS[old] == "(gone)":
        return f"the setting {old} is gone; leave it out"
    values = [f"{before} is now {after}" for before, after in VALUES.items() if before.startswith(f"{old}:")]
    return "; ".join([f"the setting {old} is now called {SETTINGS[old]}", *values])


def moving(path: str | Path) -> str | None:
    """The shell command that moves what an earlier version made to where a file or folder is missing.

    None unless the old file or folder is there.
    """
    for folder in (Path(path), *Path(path).parents):
        root, name = folder.parent, folder.name
        for old in (root / old for old, new in STAGES.items() if new == name):
            if old.is_dir() and not folder.exists():
                # Tables name generated images by their folder, so that its old name must go on leading there.
                link = f" && {shlex.join(['ln', '-s', name, str(old)])}" if name.startswith("generate") else ""
                return shlex.join(["mv", str(old), str(folder)]) + link
        there = [
            str(root / old)
            for old, new in FILES.items()
            if new.startswith(f"{name}/") and (root / old).is_file() and not (root / new).exists()
        ]
        if there:
            return f"{shlex.join(['mkdir', '-p', str(folder)])} && {shlex.join(['mv', *there, str(folder)])}"
    return None
