"""Creates the project's W&B workspace: one section per kind of stage, with all curves over thousands of images seen.

Usage::

    python scripts/wandb_workspace.py --entity YOU
    python scripts/wandb_workspace.py --dry-run

Needs ``pip install 'ohlora[dashboards]'`` and, except with ``--dry-run``, a W&B key.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

from ohlora import pipeline, worlds
from ohlora.attributes import Vocabulary
from ohlora.errors import ConfigError
from ohlora.tracking import CLOCK
from ohlora.utils.accounts import wandb_key_found
from ohlora.utils.commands import command


class Panel(NamedTuple):
    """A panel: title, names under which runs log its metrics or pictures, and kind.

    Kinds are ``lines`` (metrics over kimg), ``bars`` (latest values of metrics) and ``pictures``.
    """

    title: str
    names: tuple[str, ...]
    kind: str = "lines"


def sections_of(vocabulary: Vocabulary) -> dict[str, tuple[Panel, ...]]:
    """Title of a section → its panels, for the attributes of a world."""
    filters, labels, expressions = (vocabulary.names(role) for role in ("filter", "label", "expression"))
    predicted = [attribute.name for attribute in vocabulary.predicted_by("merged")]
    return {
        "Concept": (
            Panel("share of images that fit the concept", ("watch/concept_rate", "watch/concept_rate_recipe")),
            Panel("diversity, relative to the start", ("watch/diversity",)),
            Panel("mean filter scores", tuple(f"watch/{name}" for name in filters)),
            Panel(
                "spread of the expressions, relative to the start", tuple(f"watch/spread_kept/{e}" for e in expressions)
            ),
        ),
        "Quality": (
            Panel("Fréchet distance, and its floor", ("watch/frechet_distance", "watch/floor/frechet_distance")),
            Panel("kernel distance, and its floor", ("watch/kernel_distance", "watch/floor/kernel_distance")),
            Panel("untrained distance, and its floor", ("watch/untrained_distance", "watch/floor/untrained_distance")),
            Panel("precision and density", ("watch/precision", "watch/density", "watch/floor/precision")),
            Panel(
                "recall and coverage", tuple(f"watch/{f}{m}" for m in ("recall", "coverage") for f in ("", "floor/"))
            ),
            Panel("spread of the attributes", tuple(f"watch/spread/{name}" for name in predicted)),
            Panel("range that is reached", tuple(f"watch/reached/{name}" for name in predicted)),
            Panel("spread at the end, and over time", ("spread", "spread_course"), "pictures"),
        ),
        "Fine-tuning": (
            Panel("losses", ("loss/generator", "loss/discriminator", "loss/r1")),
            Panel("discriminator, AUROC of real against fake", ("auroc/real_fake",)),
            Panel("correlation of label and attribute", tuple(f"watch/label_correlation/{name}" for name in labels)),
            Panel("leakage of labels to other attributes", tuple(f"watch/label_leakage/{name}" for name in labels)),
            Panel("images per second", ("images_per_second",)),
            Panel("learning rates", ("learning_rate/generator", "learning_rate/discriminator")),
        ),
        "Pictures": (
            Panel("training images", ("reals",), "pictures"),
            Panel("the same latents over time", ("fakes",), "pictures"),
            Panel("concept rate and diversity over time", ("watch",), "pictures"),
        ),
        "Networks": (
            Panel("validation loss", ("loss/validation",)),
            Panel("correlation with the truth", tuple(f"pearson/{name}" for name in predicted)),
            Panel("predictions and targets", ("scatter", "parsing", "roc"), "pictures"),
            Panel("filters out of fold, AUROC", ("out_of_fold/auroc",), "bars"),
        ),
        "Directions": (
            Panel("correlation of strength and score", tuple(f"test/{name}_corr_mean" for name in expressions), "bars"),
            Panel("share of latents that pass, and are good", ("test/passed_ratio", "test/good_ratio"), "bars"),
            Panel("share of the data's range", tuple(f"test/{name}_reach_mean" for name in expressions), "bars"),
            Panel("density along sliders", tuple(f"test/{name}_density_mean" for name in expressions), "bars"),
            Panel(
                "least identity along sliders", tuple(f"test/{name}_identity_min_mean" for name in expressions), "bars"
            ),
            Panel("change against identity", tuple(f"test/{name}_change_area_mean" for name in expressions), "bars"),
            Panel("leakage to other attributes", tuple(f"test/{name}_leakage_mean" for name in expressions), "bars"),
            Panel("correlations of strength and score, over latents", ("correlations",), "pictures"),
            Panel("what each edit does to each attribute", ("edit_correlations", "edit_slopes"), "pictures"),
            Panel("scores and identity along sliders", ("sliders", "identity"), "pictures"),
            Panel("change reached for identity lost", ("change_and_identity",), "pictures"),
        ),
        "Attributes": (
            Panel("how attributes go together", ("score_correlations",), "pictures"),
            Panel("how labels and attributes go together", ("label_correlations",), "pictures"),
            Panel("scores of images", ("score_histograms", "best_and_worst"), "pictures"),
            Panel("share of images that fit the concept", ("passed_ratio",), "bars"),
            Panel("images that pass each rule", tuple(f"passed/{name}" for name in filters), "bars"),
        ),
    }


def built(panel: Panel) -> panels.LinePlot | panels.BarPlot | panels.MediaBrowser:
    """Converts a panel to the class of W&B's library."""
    names = list(panel.names)
    if panel.kind == "pictures":
        return panels.MediaBrowser(title=panel.title, media_keys=names)
    if panel.kind == "bars":
        return panels.BarPlot(title=panel.title, metrics=[*names])
    return panels.LinePlot(title=panel.title, x=CLOCK, y=[*names], title_x="thousands of images seen")


def workspace(entity: str, project: str, of: Mapping[str, Sequence[Panel]]) -> workspaces.Workspace:
    """Builds the workspace of some sections; it is not saved yet."""
    sections = [
        workspaces.Section(name=name, panels=[built(panel) for panel in content], is_open=True)
        for name, content in of.items()
    ]
    return workspaces.Workspace(entity=entity, project=project, name="ohlora", sections=sections)


@command("wandb_workspace")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Creates the project's W&B workspace.")
    parser.add_argument("--entity", help="your W&B user or team")
    parser.add_argument("--project", default="ohlora", help="W&B project (default: ohlora, where runs log)")
    parser.add_argument("--dry-run", action="store_true", help="print the sections instead")
    parser.add_argument("--world", default=worlds.DEFAULT, help=f"whose attributes (default: {worlds.DEFAULT})")
    given = parser.parse_args(args)
    sections = sections_of(pipeline.world(given.world).attributes)
    if given.dry_run:
        for section in workspace(given.entity or "YOU", given.project, sections).sections:
            print(section.name)
            for panel in sections[section.name]:
                print(f"  {panel.title} ({panel.kind}): {', '.join(panel.names)}")
        return
    if not given.entity:
        raise ConfigError("--entity is missing; expected your W&B user or team, or --dry-run")
    if not wandb_key_found():
        raise ConfigError("no W&B key was found; store one with `wandb login`, or use --dry-run")
    print(workspace(given.entity, given.project, sections).save().url)


if __name__ == "__main__":
    sys.exit(main())
