"""The search of directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ohlora import handover
from ohlora.attributes import vocabulary
from ohlora.callbacks.writers import keep_model
from ohlora.characters.reports import DIRECTIONS
from ohlora.datamodules.samples import Samples
from ohlora.directions.edits import GUIDE, Directions
from ohlora.directions.finder import Finder, Notes, Source
from ohlora.errors import ConfigError, DataError
from ohlora.evaluation.agreement import COMPARED, Agreement
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.scales import DataScale, scales_in
from ohlora.formats import direction_files, network_files, sample_files
from ohlora.formats.identity_files import IdentityFile, guide_of, tell_unfit
from ohlora.modules.base import Stage
from ohlora.networks.sampling import counted_latents, scores_by_name, scores_of_codes
from ohlora.pipeline import require
from ohlora.tracking import run_folder
from ohlora.utils import checks, figures
from ohlora.utils.ranks import by_rank_zero


class DirectionSearch(Stage[Samples]):
    """Finds directions that move one attribute each, and writes ``directions.safetensors``.

    A search is a single step of rank zero; other ranks wait. It has no checkpoint: one that was interrupted starts
    anew.

    Args:
        output: Folder of the result.
        finder: How to search: an object of :mod:`ohlora.directions`, by ``class_path``.
        generator: Generator weights, for finders that need them.
        network: The search CNN, likewise.
        judge: A CNN that had no part in the search. With it, the two are first compared on images of the generator, and
            what is found where they disagree is marked; see :mod:`ohlora.handover`.
        guide: Network that recognises people, so that the directions also hold the person, and the finder takes it into
            account; it must have gradients, and cannot judge edits later.
        seed: Of these images.
        medians: The medians that group, as sampling wrote them; by default those beside the samples.
        grid: Strengths at which edits are used later, attribute → levels; by default those that the world
            declares.
        image_batch_size: Images made at once.
    """

    data_type = Samples
    resumable = False
    output: Path

    def __init__(
        self,
        output: str,
        finder: Finder,
        generator: str | None = None,
        network: str | None = None,
        judge: str | None = None,
        guide: IdentityFile | None = None,
        seed: int = 0,
        medians: str | None = None,
        grid: dict[str, list[float]] | None = None,
        image_batch_size: int = 100,
    ) -> None:
        super().__init__()
        checks.at_least(1, image_batch_size=image_batch_size)
        checks.seeds(seed=seed)
        if guide is not None and not finder.holds_identity:
            raise ConfigError(
                f"{type(finder).__name__} cannot hold the person; leave model.init_args.guide out, or set it to null"
            )
        self.output, self.finder, self.medians, self.guide = Path(output), finder, medians, guide
        self.paths, self.judge, self.seed = {"generator": generator, "network": network}, judge, seed
        self.levels: Mapping[str, Sequence[float]] = grid or {}
        self.image_batch_size = image_batch_size
        self.automatic_optimization = False
        # Strategies for several processes insist on a parameter.
        self.unused = nn.Parameter(torch.zeros(1))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """No optimizer: a search takes its own steps."""
        return []

    def setup(self, stage: str) -> None:
        """Checks that the networks that the finder needs are there.

        Raises:
            ConfigError: If a path is not set.
            MissingArtifactError: If there is no such file.
        """
        for path in (self.judge, None if self.guide is None else self.guide.file):
            if path is not None:
                require(path)
        for name in sorted(self._needed & self.paths.keys()):
            if self.paths[name] is None:
                raise ConfigError(f"{type(self.finder).__name__} needs a {name}; set model.init_args.{name}")
            require(str(self.paths[name]))

    @property
    def _needed(self) -> set[str]:
        """Parts of a source that are read: what the finder uses, and what is compared with the judge."""
        return self.finder.needs | (set() if self.judge is None else set(self.paths))

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """The whole search."""
        by_rank_zero(self._search)
        self.trainer.should_stop = True

    def _search(self) -> None:
        notes, source = Notes(), self._source()
        unfit = self._unfit(source)
        found = self.finder.find(source, notes)
        guided = {} if self.guide is None else {GUIDE: network_files.fingerprint(self.guide.file)}
        found = replace(found, provenance=dict(found.provenance) | guided | handover.marked(unfit))
        reason = self.partial()
        path = (self.output if reason is None else run_folder(self.trainer)) / DIRECTIONS
        direction_files.save_directions(found, path)
        if reason is None:
            about = {"method": found.method, "attributes": list(found.attributes), "provenance": dict(found.provenance)}
            keep_model(self.trainer, path, about)
        pictures, tables = cosines(found)
        for logger in self.loggers:
            logger.log_metrics(notes.metrics)
        self.show(notes.pictures | pictures, notes.tables | tables)
        names = found.groups.names
        print(f"{found.method}: {len(names)} groups × {', '.join(found.attributes)}: {path}")

    def _unfit(self, source: Source) -> list[str]:
        """Why what will be found is not fit for use; says so, too, before a long search starts."""
        given = {name: path for name, path in self.paths.items() if path is not None}
        reasons = [f"{name}: {mark}" for name, path in sorted(given.items()) for mark in network_files.marks(path)]
        failing: Sequence[str] = ()
        if self.judge is not None:
            generator, network = source.networks
            judge = network_files.load_attributes(self.judge).requires_grad_(False).to(self.device)
            codes = generator.map(*counted_latents(generator, self.seed, range(COMPARED), "agreement/"))
            searched, judged = scores_of_codes(generator, [network, judge], codes, self.image_batch_size)
            found = Agreement.of(
                vocabulary().names("expression"),
                scores_by_name(network, searched),
                scores_by_name(judge, judged),
                source.scales,
            )
            reasons, failing = reasons + found.reasons, found.failing
        handover.warn(f"what {self.output / DIRECTIONS} is made of", reasons, *failing)
        return reasons

    def _source(self) -> Source:
        """What the finder needs.

        Raises:
            DataError: If samples and generator do not belong together.
        """
        needs, medians = self._needed, self.medians or self.data.medians
        generator = network = None
        scales: Mapping[str, DataScale] = {}
        if "generator" in needs:
            loaded = network_files.load_generator(str(self.paths["generator"]))
            generator = loaded.requires_grad_(False).to(self.device)
        if "network" in needs:
            network = network_files.load_attributes(str(self.paths["network"])).requires_grad_(False).to(self.device)
            scales = scales_in(network_files.provenance(str(self.paths["network"])))
        samples = self.data.read() if "samples" in needs else None
        if samples is not None and generator is not None:
            path, mend = str(self.paths["generator"]), "name that one (model.init_args.generator), or sample anew"
            if samples.generator and not network_files.is_fingerprint(samples.generator, path):
                raise DataError(f"{self.data.folder} was sampled from another generator than {path}; {mend}")
            try:
                generator.in_space(samples.codes, samples.codes.space)
            except ValueError as error:
                raise DataError(f"{self.data.folder} does not fit {path} ({error}); {mend}") from error
        return Source(
            samples,
            generator,
            network,
            sample_files.medians_of(Path(medians)) if self.finder.group_by and medians else {},
            self.levels,
            self.image_batch_size,
            scales,
            self._guide(),
        )

    def _guide(self) -> Identity | None:
        """The network that holds the person, if there is one."""
        if self.guide is None:
            return None
        found = guide_of(self.guide)
        tell_unfit(self.guide, found)
        return found.to(self.device)


def cosines(found: Directions) -> tuple[dict[str, np.ndarray], dict[str, list[dict[str, Any]]]]:
    """Cosines between attributes and between groups, as heat maps and tables."""
    names, edited = found.groups.names, found.attributes
    vectors = found.vectors.flatten(2)
    by_group = vectors @ vectors.mT
    title = "cosine" if len(names) == 1 else "cosine, mean of groups"
    pictures = {"cosines_of_attributes": figures.heat_map(by_group.mean(dim=0).numpy(), edited, edited, title)}
    tables: dict[str, list[dict[str, Any]]] = {
        "cosines_of_attributes": [
            {"group": g, **row}
            for g, of_group in zip(names, by_group.numpy(), strict=True)
            for row in figures.named_rows(of_group, edited, edited)
        ]
    }
    for p, name in enumerate(edited if len(names) > 1 else ()):
        between = (vectors[:, p] @ vectors[:, p].T).numpy()
        pictures[f"cosines_of_groups_{name}"] = figures.heat_map(between, names, names, f"{name}: cosine")
        tables[f"cosines_of_groups_{name}"] = figures.named_rows(between, names, names, "group")
    return pictures, tables
