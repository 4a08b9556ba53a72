"""The evaluation of edits: do they do what was asked, and nothing else?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora import handover, rules
from ohlora.attributes import vocabulary
from ohlora.characters.reports import MEASURED, RESULTS, write_report
from ohlora.datamodules.base import ImageDataModule, random_batches
from ohlora.datamodules.latents import Latents as CountedLatents
from ohlora.datamodules.latents import RankedLatents, pieces
from ohlora.directions.edits import (
    FULL_GRID,
    GUIDE,
    Directions,
    Edits,
    Grid,
    Latents,
    LocalBasis,
    PathBasis,
    Steps,
    moved,
)
from ohlora.directions.groups import Groups
from ohlora.directions.held import ScoresAndIdentity
from ohlora.directions.labels import LabelEdits
from ohlora.directions.local import LocalEdits
from ohlora.directions.own import OwnEdits
from ohlora.directions.paths import PathEdits
from ohlora.directions.rest import Rest, Resting, scores_at_rest
from ohlora.directions.touch_up import TouchUp
from ohlora.errors import ConfigError
from ohlora.evaluation.agreement import COMPARED, Agreement
from ohlora.evaluation.conditions import GOOD, IN_CONCEPT, Condition, bounded, outcomes, passing, rates
from ohlora.evaluation.edits import EditReport, correlations, slopes, summary
from ohlora.evaluation.features import Features, Penultimate, RandomFeatures
from ohlora.evaluation.identity import Identity
from ohlora.evaluation.manifolds import LEAST
from ohlora.evaluation.scales import scales_in
from ohlora.evaluation.scores import score_correlations
from ohlora.evaluation.sliders import Limits, SliderEdits
from ohlora.faces.measuring import Scores
from ohlora.faces.parsing import FaceParser, load_parser, parsed
from ohlora.formats import direction_files, network_files
from ohlora.formats.feature_files import FeatureNetwork
from ohlora.formats.identity_files import IdentityFile, guide_of, tell_unfit
from ohlora.modules.base import Stage
from ohlora.modules.sliders import Slid, SliderTest, physical_column
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Discriminator, Generator
from ohlora.networks.sampling import Scorer, counted_latents, scores_of_codes
from ohlora.tracking import run_folder
from ohlora.utils import checks, figures, images
from ohlora.utils.progress import tracked
from ohlora.utils.ranks import gathered

OWN_EDITS: Mapping[type, type[OwnEdits[Any]]] = {LocalBasis: LocalEdits, PathBasis: PathEdits}
"""Basis that a file of directions may hold → the edits that start from it."""
SAME_PERSON = "same_person"
"""What a latent is called whose sliders keep its identity."""
KEPT = 0.9
"""Probability of the same person that a slider keeps, where nothing else is said."""
AWAY = 0.6
"""z-scores from which on a latent is told not to have come to rest."""


class EditEvaluation(Stage[CountedLatents]):
    """Edits latents on a grid of strengths, and lets a judge score the images: the recipe's image generation test.

    The search CNN finds a latent's group; another CNN, the judge, scores the edits, in z-scores of the data that it was
    trained on. A latent passes where each attribute follows its strength with at least the limit's correlation, sign
    included.

    That says nothing of how far an edit goes. So each attribute is also moved alone in fine steps, as a slider is, and
    all at once at random (:mod:`ohlora.evaluation.sliders`). A latent is good where it passes, its sliders reach what
    the world declares, its frames lie among real images and show the same person, and unedited it fits the concept, as
    far as the judge, or the networks of ``concept``, predict what that is about. Search CNN and judge are compared on
    unedited images. Written are ``test_result.csv``, ``test_statistics.csv``, ``latents.safetensors`` and ``sheets/``.

    Args:
        output: Folder of the results.
        generator: Generator weights.
        network: The search CNN.
        judge: The judge CNN, which had no part in the search.
        directions: The directions to evaluate.
        labels: Attributes to move by the generator's label inputs, in place of directions.
        grid: Strengths, attribute → levels, the first changing slowest; of others, those that the world declares.
        full_grid: Edits of the largest full grid. Where all combinations of strengths are more, each attribute changes
            alone, and all together at their ends: see :class:`ohlora.directions.edits.Grid`.
        limits: Attribute → correlation from which on a latent passes; of others, those that the world declares.
        seed: Seed of the latents.
        calibrate: Latents on which strengths are first scaled so that a unit moves an attribute by one of the judge's
            z-scores on average; 0 leaves the units. They are others than those tested, and are edited and touched up
            likewise; of a report's latents (``RankedLatents``), its first that are not tested.
        unedited_count: Unedited images over which is shown how attributes go together, and how realistic they are.
        slider: How far sliders are tried to either side, in units of strength.
        slider_frames: Frames of a slider on either side of the unedited image.
        joint_count: Random settings of all sliders at once, per latent.
        growth_limit: Ends a slider where a further unit of strength adds less than this share of what it adds on the
            grid; see :class:`ohlora.evaluation.sliders.Limits`.
        leakage_limit: Ends a slider where the other attributes change by more than this share of its own change.
        realism_limit: Ends a slider where its frames are less dense among real images than this share of what other
            real images are; it is also the least density of a good latent's sliders.
        reals: Data whose training images are the real ones to compare with; without it, realism is not measured.
        real_count: Real images that frames are compared with, and as many others that say how dense reals are.
        features: Network whose outputs are the features on which density is measured; by default the judge's hidden
            layers, or random ones where the judge is an ensemble.
        concept: Networks that predict what the concept asks for and the judge does not predict, such as filters that
            had no part in the training: whether unedited images fit the concept is then known, and latents that do not
            fit count in no rate of a condition but the original's, though in all means.
        identity: Network that tells whether edits still show the same person, and had no part in the search; without
            it, identity is not judged, and no latent is known to be good.
        identity_limit: What a good latent's sliders keep of the unedited image's identity, at least: a probability of
            the same person, by default 0.9, or, of a network without calibration, a cosine similarity, which has no
            default.
        identity_ends_sliders: Whether a slider ends where a frame keeps less. Otherwise it goes on, and what is lost is
            told. A network that its training found unfit ends no slider.
        parser: A face parser; scores are then also read off parsed maps.
        discriminator: Discriminator weights; its scores of edited and unedited images are then also compared.
        closer_count: How many latents parser and discriminator look at.
        sheets: Latents shown of the best, the middle and the worst each.
        rest: Brings each latent to rest before it is edited, such as open eyes and a head that looks ahead; without it,
            edits start from the expression that a latent has by chance. Latents of an earlier evaluation start as they
            did there.
        touch_up: Trains the edits of each latent against the search CNN before they are judged; without it they stay as
            they were found. It takes a minute per latent, so it is for a few that were chosen
            (:class:`ohlora.datamodules.latents.RankedLatents`).
        guide: Network that recognises people, by which directions may hold the person, and which holds it while edits
            are touched up; not the one that judges.
        image_batch_size: Images made and judged at once.
    """

    data_type = CountedLatents
    output: Path
    generator: Generator
    network: AttributeCNN | AttributeEnsemble
    judge: AttributeCNN | AttributeEnsemble
    edits: Edits
    resting: Resting | None
    start = Space.W

    def __init__(
        self,
        output: str,
        generator: str,
        network: str,
        judge: str,
        directions: str | None = None,
        labels: Sequence[str] | None = None,
        grid: dict[str, list[float]] | None = None,
        full_grid: int = FULL_GRID,
        limits: dict[str, float] | None = None,
        seed: int = 0,
        calibrate: int = 0,
        unedited_count: int = 2000,
        slider: float = 3.0,
        slider_frames: int = 10,
        joint_count: int = 16,
        growth_limit: float = 0.2,
        leakage_limit: float = 0.25,
        realism_limit: float = 0.5,
        reals: ImageDataModule | None = None,
        real_count: int = 2000,
        features: FeatureNetwork | None = None,
        concept: Sequence[str] = (),
        identity: IdentityFile | None = None,
        identity_limit: float | None = None,
        identity_ends_sliders: bool = True,
        parser: str | None = None,
        discriminator: str | None = None,
        closer_count: int = 60,
        sheets: int = 3,
        rest: Rest | None = None,
        touch_up: TouchUp | None = None,
        guide: IdentityFile | None = None,
        image_batch_size: int = 100,
    ) -> None:
        super().__init__()
        if (directions is None) == (labels is None):
            raise ConfigError(f"directions is {directions} and labels {labels}; expected one of them")
        if touch_up is not None and directions is None:
            raise ConfigError("touch_up trains what directions add to codes, and labels have none; leave one out")
        if rest is not None and directions is None:
            raise ConfigError("rest moves codes, which are made anew for every label; set model.init_args.rest to null")
        checks.seeds(seed=seed)
        checks.at_least(1, image_batch_size=image_batch_size, unedited_count=unedited_count)
        checks.at_least(2, slider_frames=slider_frames, joint_count=joint_count)
        checks.above(0, slider=slider)
        checks.at_least(0, growth_limit=growth_limit, leakage_limit=leakage_limit, realism_limit=realism_limit)
        checks.at_least(LEAST, real_count=real_count)
        checks.at_least(0, calibrate=calibrate, sheets=sheets, closer_count=closer_count, full_grid=full_grid)
        self.output, self.seed, self.calibrate = Path(output), seed, calibrate
        self.paths = {"generator": generator, "network": network, "judge": judge}
        self.directions_path, self.labels = directions, tuple(labels or ())
        self.levels: Mapping[str, Sequence[float]] = grid or {}
        self.full_grid, self.limits_given, self.unedited_count = full_grid, limits or {}, unedited_count
        for name in (*self.labels, *self.levels, *self.limits_given):
            _ = vocabulary()[name]  # refuses unknown ones before anything is loaded
        self.parser_path, self.closer_count, self.discriminator_path = parser, closer_count, discriminator
        self.sheets, self.image_batch_size = sheets, image_batch_size
        self.slider, self.slider_frames, self.joint_count = slider, slider_frames, joint_count
        checks.between(-1, 1, identity_limit=identity_limit)
        self.slider_limits = Limits(growth_limit, leakage_limit, realism_limit)
        self.identity_file, self.identity_limit = identity, identity_limit
        self.identity_ends_sliders = identity_ends_sliders
        self.reals, self.real_count, self.features_given = reals, real_count, features
        self.concept_paths = tuple(concept)
        self.rest, self.touch_up, self.guide_file = rest, touch_up, guide

    def latents(self, stream: str, indices: Sequence[int], codes: Codes | None = None) -> Latents:
        """Counted latents of a stream of their own, with codes in the space where edits start.

        Args:
            stream: Which latents.
            indices: Their N numbers.
            codes: Their codes in W; by default what the generator maps them to.
        """
        z, label = counted_latents(self.generator, self.seed, indices, f"{stream}/")
        if codes is None:
            codes = self.generator.map(z, label)
        return Latents(z, label, self.generator.in_space(codes, self.start))

    def _at_start(self, stream: str, indices: Sequence[int]) -> Codes:
        """Codes in W of counted latents, from which edits start; of a report's latents, where they did there."""
        if isinstance(self.data, RankedLatents):
            codes = self.data.codes(indices)
            return replace(codes, values=codes.values.to(self.device))
        if self.resting is not None:
            return self.resting.codes(stream, indices)
        return self.generator.map(*counted_latents(self.generator, self.seed, indices, f"{stream}/"))

    def setup(self, stage: str) -> None:
        """Loads what the evaluation needs, and checks that it fits together.

        Raises:
            ConfigError: If networks, directions, grid, real images and batch size do not fit each other.
            MissingArtifactError: If a file is missing.
        """
        self.unfit = []
        for name, path in self.paths.items():
            self.unfit += [f"{name}: {reason}" for reason in network_files.marks(path)]
            load = network_files.load_generator if name == "generator" else network_files.load_attributes
            setattr(self, name, load(path).requires_grad_(False).to(self.device))
        self.search_scales = scales_in(network_files.provenance(self.paths["network"]))
        self.identity = None if self.identity_file is None else self._use_identity(self.identity_file)
        self.guide = None if self.guide_file is None else self._use_guide(self.guide_file)
        generator = self.paths["generator"]
        self._refuse_judging_guide(network_files.provenance(generator), f"training of {generator}")
        if self.directions_path is not None:
            self._use_directions(self.directions_path)
        else:
            labels = vocabulary().names("label")
            if self.generator.c_dim not in (0, len(labels)):
                raise ConfigError(
                    f"the generator takes {self.generator.c_dim} label values, and {vocabulary().where} declares "
                    f"{len(labels)} ({', '.join(labels)}); name the world it was trained in"
                )
            unlabelled = [name for name in self.labels if name not in labels[: self.generator.c_dim]]
            if unlabelled:
                raise ConfigError(f"the generator has no label for {', '.join(unlabelled)}")
            self.edited, self.groups = self.labels, Groups()
            self.edits = LabelEdits(self.edited, self.generator, labels)
        outputs = self.judge.outputs
        unseen = [name for name in self.edited if name not in outputs]
        if unseen:
            raise ConfigError(f"the judge has no output {', '.join(unseen)}; it has {', '.join(outputs)}")
        self.grid = Grid.of(self.edited, self.levels, self.full_grid)
        self.limits = self._limits()
        self.strengths = self.grid.strengths(self.edited).to(self.device)
        neighbours = [self.grid.neighbours(name) for name in self.edited]
        self.report = EditReport(self.edited, outputs, neighbours).to(self.device)
        self.sliders = self._slider_test()
        self.fits = self._concept_networks()
        known = {*outputs, *(name for network in self.fits for name in network.outputs)}
        self.rules = [rule for rule in rules.concept() if rule.attribute in known]
        self.conditions = self._conditions()
        seen = [name for condition in self.conditions if condition.name == IN_CONCEPT for name in condition.bounds]
        conditions = [condition.name for condition in self.conditions]
        columns = [*self.report.names, *self.sliders.names, *conditions, *seen]
        if double := [name for name, count in Counter(columns).items() if count > 1]:
            raise ConfigError(f"two numbers of the results would be called {', '.join(double)}; rename an attribute")
        self.units = torch.ones(len(self.edited), device=self.device)
        self.discriminator = self.parser = None
        if self.discriminator_path is not None:
            self.discriminator = network_files.load_discriminator(self.discriminator_path).to(self.device)
            size, group = self.data.batch_size, self.discriminator.mbstd_group_size
            if size % min(size, group):
                raise ConfigError(
                    f"the discriminator compares images in groups of {group}, and data.init_args.batch_size is {size}; "
                    "expected a multiple"
                )
        if self.parser_path is not None:
            self.parser = load_parser(self.parser_path)
            readable = [a for a in vocabulary().scored if a.name in self.edited]
            self.read = Scores(readable)
        if self.reals is not None:
            self._read_reals(self.reals)
        self.resting = None
        if self.rest is not None:
            if isinstance(self.data, RankedLatents):
                raise ConfigError(
                    f"the latents of {self.data.report} start as they did there; set model.init_args.rest to null"
                )
            steered = [a for a in vocabulary() if a.name in self.edited]
            wanted = scores_at_rest(steered, self.search_scales, self.paths["network"])
            self.resting = Resting(self.rest, wanted, self.generator, self.network, self.seed)
        if isinstance(self.data, RankedLatents):
            z, _ = counted_latents(self.generator, self.seed, self.data.tested, "test/")
            self.data.check(z, self.paths["generator"])
        self._codes: list[tuple[int, Tensor]] = []
        self._slid: list[tuple[int, Slid]] = []
        self._fitting: list[tuple[int, dict[str, float]]] = []
        self._realism: list[tuple[Tensor, Tensor]] = []
        self._parsed: list[Tensor] = []
        self._tested_steps: list[tuple[int, dict[str, Tensor]]] = []

    def _limits(self) -> dict[str, float]:
        """The correlation from which on each attribute passes."""
        known = {a.name: a.limit for a in vocabulary() if a.limit is not None} | self.limits_given
        missing = [name for name in self.edited if name not in known]
        if missing:
            raise ConfigError(
                f"there is no limit for {', '.join(missing)}; set model.init_args.limits, or limit of the attribute in "
                f"{vocabulary().where}"
            )
        return {name: known[name] for name in self.edited}

    def _concept_networks(self) -> list[AttributeCNN | AttributeEnsemble]:
        """What tells, beside the judge, whether unedited images fit the concept; a ConfigError if one cannot."""
        asked, said_by = {rule.attribute for rule in rules.concept()}, dict.fromkeys(self.judge.outputs, "the judge")
        found = []
        for path in self.concept_paths:
            self.unfit += [f"concept: {reason}" for reason in network_files.marks(path)]
            network = network_files.load_attributes(path).requires_grad_(False).to(self.device)
            if not asked & {*network.outputs}:
                raise ConfigError(
                    f"{path} predicts {', '.join(network.outputs)}, which is not what the concept asks for "
                    f"({', '.join(sorted(asked)) or 'nothing'}); leave it out of model.init_args.concept ([] for none)"
                )
            if double := [name for name in network.outputs if name in said_by]:
                raise ConfigError(
                    f"{path} predicts {', '.join(double)}, and so does {said_by[double[0]]}; leave one of them out of "
                    "model.init_args.concept"
                )
            said_by |= dict.fromkeys(network.outputs, path)
            found.append(network)
        return found

    def _slider_test(self) -> SliderTest:
        scales = scales_in(network_files.provenance(self.paths["judge"]))
        edits = SliderEdits(len(self.edited), self.slider, self.slider_frames)
        settings = (self.slider_limits, self.joint_count, self.seed, self.image_batch_size, self.identity)
        return SliderTest(self.edited, self.generator, self.judge, scales, edits, *settings)

    def _use_identity(self, file: IdentityFile) -> Identity:
        """Loads the identity network, and sets the limit to what it is measured in."""
        identity = file.identity().requires_grad_(False).to(self.device)
        limit = self.identity_limit
        if identity.calibration is None:
            if limit is None:
                raise ConfigError(
                    f"{file.file} has no calibration, so that its measure is the cosine similarity; set "
                    "model.init_args.identity_limit to the one from which on it is the same person, or give threshold "
                    "and scale, or pairs, of model.init_args.identity"
                )
        else:
            limit = KEPT if limit is None else limit
            unedited = float(identity.calibration(torch.ones((), device=self.device)))
            if unedited < limit:
                raise ConfigError(
                    f"identity_limit is {limit}, and by the calibration of {file.file} an image shows the same person "
                    f"as itself with a probability of {unedited:.3f}; expected a lower limit, or a better network"
                )
        self.identity_limit = limit
        # A network that is not fit is told of, and cuts no slider short that a better one might leave.
        ends = limit if self.identity_ends_sliders and identity.unfit is None else -math.inf
        self.slider_limits = replace(self.slider_limits, identity=ends)
        return identity

    def _use_guide(self, file: IdentityFile) -> Identity:
        """Loads the network that holds the person; a ConfigError if it cannot guide, or is the one that judges."""
        judging = self.identity_file
        if judging is not None and network_files.fingerprint(judging.file) == network_files.fingerprint(file.file):
            raise ConfigError(
                f"guide is {file.file} and identity {judging.file}, which are the same network; what guides cannot "
                "judge: give another as guide, or leave it out"
            )
        return guide_of(file).to(self.device)

    def _read_reals(self, reals: ImageDataModule) -> None:
        """Finds the real images; a ConfigError if they are of another size than the generator's."""
        reals.setup("test")
        found, size = reals.train_set.resolution, self.generator.resolution
        if found != size:
            raise ConfigError(
                f"the real images have {found}×{found} pixels, and the generator makes {size}×{size}; set "
                "model.init_args.reals.init_args.resolution"
            )

    def _compare_with(self, reals: ImageDataModule) -> None:
        """Looks at the real images that frames are compared with."""
        if self.features_given is not None:
            features: Features = self.features_given.load()
        elif isinstance(self.judge, AttributeCNN):
            features = Penultimate(self.judge)
        else:
            features = RandomFeatures(self.generator.resolution)
        count, stream = 2 * self.real_count, "evaluation/reals"
        batches = random_batches(reals.train_set, count, self.seed, stream, self.image_batch_size)
        self.sliders.compare_with(batches, features, self.device)

    def _conditions(self) -> list[Condition]:
        """What a good latent meets. A further condition is a further entry, on numbers of a latent by their names."""
        found = [passing(self.limits)]
        for name in self.edited:
            declared = vocabulary().declared.get(name)
            if declared is not None and declared.reach is not None:
                (low, high), value = declared.reach, physical_column(name) or name
                bounds = {f"{value}_lowest": (-math.inf, low), f"{value}_highest": (high, math.inf)}
                found.append(Condition(f"{name}_reached", bounds))
        ruled = [(f"unedited_{rule.attribute}", rule.comparison, rule.limit) for rule in self.rules]
        if ruled:
            found.append(Condition(IN_CONCEPT, bounded(ruled)))
        if self.reals is not None:
            bounds = {f"{name}_density": (self.slider_limits.realism, math.inf) for name in self.edited}
            found.append(Condition("realistic", bounds))
        # Without an identity network its numbers are missing, so that it is not known.
        limit = KEPT if self.identity_limit is None else self.identity_limit
        kept = {f"{name}_identity_min": (limit, math.inf) for name in self.edited}
        return [*found, Condition(SAME_PERSON, kept)]

    def _use_directions(self, path: str) -> None:
        found = direction_files.load_directions(path)
        self._refuse_judging_guide(found.provenance, f"search of {path}")
        try:
            self.generator.in_space(found.steps.flat(), found.space)
        except ValueError as error:
            raise ConfigError(f"{path} is for another generator: {error}") from error
        self.start = Space.S if found.space is Space.S else Space.W
        self.edited, self.groups, self.edits = found.attributes, found.groups, found
        if found.basis is not None:
            making = self.generator, self._to_hold(path, found), self.image_batch_size
            self.edits = OWN_EDITS[type(found.basis)](self.edited, found.basis, *making)

    def _refuse_judging_guide(self, provenance: Mapping[str, Any], what: str) -> None:
        """Refuses to let a network judge whose guidance made what is judged, as the provenance of that tells."""
        known, judging = provenance.get(GUIDE), self.identity_file
        if known is not None and judging is not None and network_files.is_fingerprint(known, judging.file):
            raise ConfigError(
                f"{judging.file}, which is to judge whether it is the same person, guided the {what}; set "
                "model.init_args.identity to another network"
            )

    def _to_hold(self, path: str, found: Directions) -> Scorer:
        """What latents' own edits hold: scores and, where the directions ask for it, the person.

        Raises:
            ConfigError: If the guide of the search is missing, or another one is given.
        """
        assert found.basis is not None
        if found.basis.axes is None:
            return self.network
        if self.guide is None or self.guide_file is None:
            raise ConfigError(
                f"{path} holds the person, as a network sees it; set model.init_args.guide to the one of its search"
            )
        width = self.guide.embed(torch.zeros(1, 3, *[self.generator.resolution] * 2, device=self.device)).shape[1]
        known = found.provenance.get(GUIDE)
        if not network_files.is_fingerprint(known, self.guide_file.file) or width != len(found.basis.axes):
            raise ConfigError(
                f"{path} holds the person as another network than {self.guide_file.file} sees it; set "
                "model.init_args.guide to the one of its search"
            )
        return ScoresAndIdentity(self.network, self.guide, found.basis.axes.to(self.device))

    def on_test_start(self) -> None:
        """Looks at real and unedited images, then calibrates if asked to."""
        if self.reals is not None:
            self._compare_with(self.reals)
        parts = tracked(self._mine(self.unedited_count, self.image_batch_size), "unedited images")
        seen, both = [], []
        for part in parts:
            frames = self.sliders.look(self.latents("unedited", part).codes)
            seen.append((frames.scores, frames.density))
            if few := sum(index < COMPARED for index in part):
                both.append((self._searched(frames.images[:few]), frames.scores[:few]))
        scores, densities = zip(*gathered(seen), strict=True)
        self._seen = dict(zip(self.judge.outputs, np.concatenate(scores).T, strict=True))
        if self.sliders.density is not None:
            self._unedited_density = float(np.concatenate(densities).mean())
        self._compare_networks(*(np.concatenate(of) for of in zip(*gathered(both), strict=True)))
        if self.calibrate:
            self._calibrate()

    @torch.no_grad()
    def _searched(self, images: Tensor) -> np.ndarray:
        """The search CNN's scores of N images, N × its outputs."""
        found: np.ndarray = self.network(images).double().cpu().numpy()
        return found

    def _compare_networks(self, searched: np.ndarray, judged: np.ndarray) -> None:
        """Whether search CNN and judge see the same in unedited images, and what the data also showed.

        Args:
            searched: The search CNN's scores of N images, N × its outputs.
            judged: The judge's, likewise.
        """
        by_search = dict(zip(self.network.outputs, searched.T, strict=True))
        by_judge = dict(zip(self.judge.outputs, judged.T, strict=True))
        self._agreement = Agreement.of(self.edited, by_search, by_judge, self.search_scales)
        self.unfit += self._agreement.reasons

    def _calibrate(self) -> None:
        """Sets units so that strength 1 is one of the judge's z-scores, on latents that are not tested."""
        own = [self.judge.outputs.index(name) for name in self.edited]
        begun = [(latents, self._begun(latents)) for latents in tracked(self._calibrating(), "calibrating")]
        falling: dict[str, None] = {}
        for _ in range(2):  # slopes change with strengths
            parts = []
            for latents, (group, _, steps) in begun:
                judged = self._edited(latents, group, steps)[1]
                parts.append(slopes(self.strengths.double(), judged)[:, range(len(own)), own].cpu())
            mean = torch.cat(gathered(parts)).mean(dim=0)
            falling |= {name: None for name, value in zip(self.edited, mean.tolist(), strict=True) if value <= 0}
            self.units = self.units / torch.where(mean > 0, mean, 1.0).to(self.units)
        if falling and self.trainer.is_global_zero:
            print(f"strengths of {', '.join(falling)} are not scaled as they should be: the judge saw it fall")

    def _calibrating(self) -> list[Latents]:
        """This process's share of the latents on which units are set, in batches; they start as those tested do."""
        stream, cases = "calibration", [*range(self.calibrate)]
        if isinstance(self.data, RankedLatents):
            stream, cases = "test", self.data.others(self.calibrate)
            if len(cases) < self.calibrate and self.trainer.is_global_zero:
                print(f"{self.data.report} has {len(cases)} latents that are not tested: strengths are scaled on these")
        parts = pieces(cases[self.global_rank :: self.trainer.world_size], self.data.batch_size)
        return [self.latents(stream, part, self._at_start(stream, part)) for part in parts]

    def _mine(self, count: int, size: int) -> list[range]:
        """This process's share of so many latents, in batches."""
        return pieces(range(self.global_rank, count, self.trainer.world_size), size)

    def _pictures(self, codes: Codes) -> np.ndarray:
        """Images of codes as grey levels, N×H×W×3 uint8."""
        parts = codes.split(self.image_batch_size)
        return np.concatenate([images.to_uint8(self.generator.synthesize(part)) for part in parts])

    def _scores(self, codes: Codes, *networks: AttributeCNN | AttributeEnsemble) -> list[Tensor]:
        return scores_of_codes(self.generator, networks, codes, self.image_batch_size)

    def _moved(self, latents: Latents, group: Tensor, steps: Steps | None, strengths: Tensor) -> Codes:
        """N×E codes of N latents moved by E×P strengths; ``steps`` are the latents' own, if they have some."""
        moving = strengths.to(self.device) * self.units
        return self.edits.codes(latents, group, moving) if steps is None else moved(latents.codes, moving, steps)

    def _begun(self, latents: Latents) -> tuple[Tensor, list[Tensor], Steps | None]:
        """What edits of N latents begin with.

        Returns:
            Groups (N,), scores of the unedited images by the judge and each concept network, and the latents' own
            steps, if they have some.
        """
        seen, *unedited = self._scores(latents.codes, self.network, self.judge, *self.fits)
        group = torch.from_numpy(self.groups.assign(self.network.outputs, seen.cpu().numpy())).to(self.device)
        return group, [scores.double() for scores in unedited], self._own_steps(latents, group)

    def _edited(self, latents: Latents, group: Tensor, steps: Steps | None) -> tuple[Codes, Tensor]:
        """Codes of all edits on the grid, N×E, and the judge's scores of them, N×E×K."""
        codes = self._moved(latents, group, steps, self.strengths)
        (edited,) = self._scores(codes.flat(), self.judge)
        return codes, edited.double().reshape(*codes.batch, -1)

    def _own_steps(self, latents: Latents, group: Tensor) -> Steps | None:
        """What strengths add to N latents, N×P; None where it is what they add to all others of the group."""
        found = self.edits.own(latents.codes) if isinstance(self.edits, OwnEdits) else None
        if self.touch_up is None:
            return found
        if found is None:
            assert isinstance(self.edits, Directions)
            found = Steps(replace(self.edits.steps, values=self.edits.steps.values.to(self.device)[group]))
        return self.touch_up(
            latents.codes, found, self.edited, self.generator, self.network, self.search_scales, self.guide
        )

    @torch.no_grad()
    def test_step(self, batch: list[int], batch_idx: int) -> None:
        """Edits the latents of a batch, and judges the edits."""
        if self.global_rank >= self.data.count:
            return  # a repeated latent
        start = self._at_start("test", batch)
        latents = self.latents("test", batch, start)
        self._codes += zip(batch, start.values.cpu(), strict=True)
        group, unedited, steps = self._begun(latents)
        codes, judged = self._edited(latents, group, steps)
        if steps is not None:  # a character needs what was tested
            tensors = {name: value.cpu() for name, value in steps.tensors.items()}
            tensors["steps"] = tensors["steps"].float()
            for place, index in enumerate(batch):
                self._tested_steps.append((index, {name: value[place] for name, value in tensors.items()}))
        self.report.update(torch.tensor(batch, device=self.device), group, self.strengths, judged, unedited[0])
        by_network = zip((self.judge, *self.fits), unedited, strict=True)
        seen = {name: of for network, scores in by_network for name, of in zip(network.outputs, scores.T, strict=True)}
        for place, index in enumerate(batch):
            own = {f"unedited_{rule.attribute}": float(seen[rule.attribute][place]) for rule in self.rules}
            self._fitting.append((index, own))
        of_grid = slopes(self.strengths.double(), judged)[:, range(len(self.edited)), self.report.own].tolist()
        for place, index in enumerate(batch):
            of_latent = None if steps is None else steps.part(place)
            moving = partial(self._moved, latents.part(place), group[[place]], of_latent)
            self._slid.append((index, self.sliders.measure(index, moving, of_grid[place])))
        if batch[-1] < self.closer_count:
            if self.discriminator is not None and len(batch) == self.data.batch_size:  # groups must be whole
                self._compare_realism(self.discriminator, latents, codes)
            if self.parser is not None:
                self._read_parsed(self.parser, codes)

    def _compare_realism(self, discriminator: Discriminator, latents: Latents, codes: Codes) -> None:
        """The discriminator's scores of each latent's edits and of itself; neighbours in its groups are other faces."""
        labels = latents.label if discriminator.c_dim else None
        turned = [latents.codes, *(Codes(of_edit, codes.space) for of_edit in codes.values.unbind(1))]
        scores = [discriminator(self.generator.synthesize(of_edit).clamp(-1, 1), labels) for of_edit in turned]
        table = torch.stack(scores, dim=1)
        self._realism.append((table[:, 0].cpu(), table[:, 1:].mean(dim=1).cpu()))

    def _read_parsed(self, parser: FaceParser, codes: Codes) -> None:
        """Correlations of strengths with scores read off parsed maps, N×P; NaN of what is not scored so."""
        for of_latent in codes.values:
            pictures = self._pictures(Codes(of_latent, codes.space))
            rows = [self.read(p, found) for p, found in zip(pictures, parsed(parser, pictures), strict=True)]
            scores = [[row.get(name, math.nan) for name in self.edited] for row in rows]
            table = torch.tensor(scores, dtype=torch.float64)
            r = correlations(self.strengths.cpu().double(), table[None])[0]
            self._parsed.append(torch.diagonal(r)[None])

    def on_test_epoch_end(self) -> None:
        """Rank zero writes and shows the results."""
        slid = dict(gathered(self._slid))
        fitting = dict(gathered(self._fitting))
        rows = [row | slid[int(row["index"])].numbers | fitting[int(row["index"])] for row in self.report.compute()]
        extra = self._agreement.numbers
        if self.sliders.density is not None:
            extra |= {"unedited_density": self._unedited_density, "real_density": self.sliders.density.of_reals}
        if self.discriminator is not None:
            pairs = gathered(self._realism)
            if not pairs:
                raise ConfigError(
                    f"no whole batch of {self.data.batch_size} lies within the first {self.closer_count} latents; "
                    "choose a smaller data.init_args.batch_size or a larger closer_count"
                )
            plain, edited = (torch.cat(scores) for scores in zip(*pairs, strict=True))
            extra["realism_change"] = float((edited - plain).mean() / plain.std())
        if self.parser is not None:
            means = torch.cat(gathered(self._parsed)).nanmean(dim=0)
            read = zip(self.edited, means.tolist(), strict=True)
            extra |= {f"{name}_parsed_corr_mean": v for name, v in read if name in self.read.names}
        steps, codes = dict(gathered(self._tested_steps)), dict(gathered(self._codes))
        if self.trainer.is_global_zero:
            reason, output = self.partial(), self.output
            if reason is not None:
                self.say_partial(reason)
                self.output = run_folder(self.trainer)
            self._report(rows, extra, codes, steps, slid)
            self.output = output

    def _report(
        self,
        rows: list[dict[str, float]],
        extra: dict[str, float],
        codes: Mapping[int, Tensor],
        steps: Mapping[int, Mapping[str, Tensor]],
        slid: Mapping[int, Slid],
    ) -> None:
        edited, names = self.edited, self.groups.names
        met = [outcomes(self.conditions, row) for row in rows]
        statistics = summary(rows, edited, self.judge.outputs, self.limits) | extra | rates(met)
        results = []
        for row, of_latent in zip(rows, met, strict=True):
            result: dict[str, Any] = {"case": int(row["index"]), "vector_no": 0, "passed": of_latent["passed"]}
            result["group_name"] = names[int(row["group"])]
            measured = {key: round(value, 4) for key, value in row.items() if key not in ("index", "group")}
            result |= {f"{name}_corr": measured[f"{name}_corr"] for name in edited}
            result["sum_abs_corr"] = round(sum(abs(row[f"{name}_corr"]) for name in edited), 4)
            result[GOOD] = of_latent[GOOD]
            results.append(result | of_latent | measured)
        rounded = {key: round(value, 4) for key, value in statistics.items()}
        rounded["sum_abs_corr_mean"] = round(sum(row["sum_abs_corr"] for row in results) / len(results), 4)
        cases = [result["case"] for result in results]
        # In W whatever moves them: there a character can be compared with directions of any space.
        start = Codes(torch.stack([codes[case] for case in cases]).to(self.device), Space.W)
        latents = self.latents("test", cases, start)
        group = torch.tensor([int(row["group"]) for row in rows], device=self.device)
        tensors = {"case": torch.tensor(cases), "z": latents.z, "codes": start.values, "group": group}
        tensors["units"] = self.units
        tensors["ranges"] = torch.from_numpy(np.stack([slid[case].ranges for case in cases]))
        for what in MEASURED:
            exact = [[row[f"{name}_{what}"] for name in edited] for row in rows]
            tensors[what] = torch.tensor(exact, dtype=torch.float64)
        if latents.label is not None:
            tensors["label"] = latents.label
        if steps:
            tensors |= {name: torch.stack([steps[case][name] for case in cases]) for name in steps[cases[0]]}
        about: dict[str, Any] = {"space": str(start.space), "attributes": list(edited)}
        about |= {"group_names": list(names), "levels": dict(self.grid.levels), "seed": self.seed}
        about["unit"] = "data"
        about |= handover.marked(self.unfit)
        about["meanings"], motions = vocabulary().described(edited)
        about["motion_shares"] = {name: asdict(motion) for name, motion in motions.items()}
        write_report(self.output, results, rounded, tensors, self.paths["generator"], self.directions_path, **about)
        pictures, tables = self._heat_maps(statistics)
        by_name = {name: np.array([row[f"{name}_corr"] for row in rows]) for name in edited}
        shares = {name: f"{statistics[f'{name}_passed_ratio']:.0%} pass" for name in edited}
        label = "correlation of strength and score"
        pictures["correlations"] = figures.histograms(by_name, self.limits, shares, label, (0, 1))
        of_sliders = self.sliders.curves([slid[case] for case in cases])
        pictures, tables = pictures | of_sliders[0], tables | of_sliders[1]
        tables |= {"test_result": results, "edits": self._sheets(results, latents, group, steps)}
        for logger in self.loggers:
            logger.log_metrics({f"test/{key}": float(value) for key, value in rounded.items()})
        self.show(pictures, tables)
        shown = ", ".join(f"{name} {statistics[f'{name}_corr_mean']:.3f}" for name in edited)
        self._say_what_is_not_known(met)
        if self.resting is not None:
            self._say_what_did_not_rest(self.resting.scores, slid.values())
        handover.warn(self.output, self.unfit, *self._agreement.failing)
        good = f", {statistics['good_ratio']:.1%} are good" if "good_ratio" in statistics else ""
        if good and (outside := sum(of_latent.get(IN_CONCEPT) is False for of_latent in met)):
            good += f" of the {len(rows) - outside} that fit the concept"
        print(
            f"{statistics['passed']} of {len(rows)} latents pass ({statistics['passed_ratio']:.1%}){good}; mean r "
            f"{shown}: {self.output / RESULTS}"
        )

    def _say_what_did_not_rest(self, wanted: Mapping[str, float], slid: Collection[Slid]) -> None:
        """Says how many latents start elsewhere than the world asks, by the judge; ``wanted``: attribute → z-score."""
        away = sum(any(abs(of.numbers[f"{name}_start"] - z) > AWAY for name, z in wanted.items()) for of in slid)
        if away:
            print(
                f"{away} of {len(slid)} latents did not come to rest: the judge's score of {', '.join(wanted)} is more "
                f"than {AWAY} z-scores away"
            )

    def _say_what_is_not_known(self, met: Sequence[Mapping[str, bool | None]]) -> None:
        """Says what is missing from the results, and why."""
        judge = self.paths["judge"]
        if unknown := [name for name in self.edited if name not in self.sliders.scales]:
            print(f"{judge} does not tell the range of its data: the share that {', '.join(unknown)} reach is left out")
        if unknown := [name for name in self.sliders.columns if name not in self.sliders.physical]:
            columns = ", ".join(self.sliders.columns[name] for name in unknown)
            print(
                f"{judge} was trained on no table with {columns}: physical values of {', '.join(unknown)} are left out"
            )
        if self.reals is None:
            print("realism is not measured, since model.init_args.reals names no real images")
        if self.identity is None:
            print(
                "identity was not judged, since model.init_args.identity names no network, so that no latent is known "
                "to be good"
            )
        elif self.identity.unfit is not None:
            assert self.identity_file is not None
            unfit = f"{self.identity_file.file} is not fit for use: {self.identity.unfit}"
            print(f"{unfit}; what it says of identity is told, and ends no slider")
        if self.guide_file is not None and self.guide is not None:
            holding = isinstance(self.edits, OwnEdits) and self.edits.basis.axes is not None
            if self.touch_up is None and not holding:
                print(f"guide {self.guide_file.file} was not used: these edits do not ask for one")
            else:
                tell_unfit(self.guide_file, self.guide)
        if all(of_latent.get(IN_CONCEPT) is False for of_latent in met):
            print("no tested latent fits the concept: what share of those that do is good remains open")
        unknown = [of.name for of in self.conditions if any(of_latent[of.name] is None for of_latent in met)]
        if unknown := [name for name in unknown if name != SAME_PERSON]:
            print(f"{', '.join(unknown)} cannot be known, so that no latent is known to be good; train the judge anew")

    def _heat_maps(self, statistics: Mapping[str, float]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """How attributes go together over unedited images, and what each edit does to each of them.

        ``statistics`` are means over the tested latents.
        """
        outputs = self.judge.outputs
        pictures, tables = score_correlations(self._seen)
        slopes_of = [[statistics[f"slope_{name}_{other}_mean"] for other in outputs] for name in self.edited]
        shown = {
            "edit_correlations": (self.report.followed.cpu().numpy(), "mean correlation of strength and score"),
            "edit_slopes": (np.array(slopes_of), "z-scores per unit of strength"),
        }
        for name, (values, title) in shown.items():
            pictures[name] = figures.heat_map(values, self.edited, outputs, title)
            tables[name] = figures.named_rows(values, self.edited, outputs, "edit")
        return pictures, tables

    @torch.no_grad()
    def _sheets(
        self,
        results: list[dict[str, Any]],
        latents: Latents,
        group: Tensor,
        steps: Mapping[int, Mapping[str, Tensor]],
    ) -> list[dict[str, Any]]:
        """Sheets of the best, middle and worst latents, by the lowest of a latent's correlations, with numbers."""
        edited = self.edited
        order = sorted(range(len(results)), key=lambda k: -min(results[k][f"{name}_corr"] for name in edited))
        count = min(self.sheets, max(1, len(order) // 3))
        middle = (len(order) - count) // 2
        chosen = {"best": order[:count], "middle": order[middle : middle + count], "worst": order[-count:]}
        shown: list[dict[str, Any]] = []
        for old in (self.output / "sheets").glob("*_case_*.png"):  # of an earlier test
            old.unlink()
        for what, place in ((what, place) for what, places in chosen.items() for place in places):
            row = results[place]
            own = {name: value[None] for name, value in steps[row["case"]].items()} if steps else None
            tested = None if own is None else Steps.of_latents(own, self.start)
            codes = self._moved(latents.part(place), group[[place]], tested, self.strengths)
            kept = {n: f", least identity {row[f'{n}_identity_min']:.2f}" for n in edited if f"{n}_identity_min" in row}
            title = f"case {row['case']}, group {row['group_name']}, {'pass' if row['passed'] else 'fail'}"
            lines = [title] + [
                f"{n}: r {row[f'{n}_corr']:.3f}, slope {row[f'{n}_slope']:.2f}{kept.get(n, '')}" for n in edited
            ]
            sheet = self._sheet(self._pictures(codes.flat()), lines)
            images.save_png(sheet, self.output / "sheets" / f"{what}_case_{row['case']:04d}.png")
            about = {"sheet": sheet, "which": what, "case": row["case"], "group": row["group_name"]}
            told = ("passed", GOOD, *(f"{n}_{what}" for what in ("corr", "reach", "identity_min") for n in edited))
            shown.append(about | {name: row[name] for name in told if name in row})
        return shown

    def _sheet(self, pictures: np.ndarray, lines: list[str]) -> np.ndarray:
        """All edits of a full grid; of any other, those in which one attribute changes alone."""
        if self.grid.full:
            return figures.edit_sheet(pictures, self.grid.levels, lines)
        rows = {
            f"{name} {levels[0]:+.2f} … {levels[-1]:+.2f}": images.enlarge(pictures[self.grid.alone(name)], 80)
            for name, levels in self.grid.levels.items()
        }
        return figures.captioned(figures.strips(rows), lines)
