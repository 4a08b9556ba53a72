"""The image generation test: do edits do what was asked, and nothing else?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ohlora.attributes import LABELS
from ohlora.characters.reports import DIRECTIONS, RESULTS, write_report
from ohlora.datamodules.latents import pieces
from ohlora.datamodules.samples import Samples
from ohlora.directions.edits import GRID, LIMITS, Directions, Edits, Grid, Latents, added, tested_as
from ohlora.directions.groups import Groups
from ohlora.directions.local import LabelEdits, LocalBasis, LocalEdits
from ohlora.errors import ConfigError
from ohlora.evaluation.edits import EditReport, correlations, passes, slopes, summary
from ohlora.faces.parsing import FaceParser, load_parser, parsed
from ohlora.faces.scoring import score
from ohlora.formats import direction_files, network_files
from ohlora.modules.base import Stage
from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble
from ohlora.networks.codes import Codes, Space
from ohlora.networks.generator import Discriminator, Generator
from ohlora.networks.sampling import counted_latents, scores_of_codes
from ohlora.pipeline import require
from ohlora.utils import figures, images
from ohlora.utils.ranks import gathered


class ImageGenerationTest(Stage[Samples]):
    """Edits latents on a grid of strengths, and lets a judge look.

    The search CNN finds a latent's group; another CNN, the judge, scores the edits, in its standard deviations over
    samples. A latent passes where each attribute follows its strength with at least the limit's correlation, sign
    included. Written are ``test_result.csv``, ``test_statistics.csv``, ``latents.safetensors`` and ``sheets/``.

    Args:
        label_edits: Attributes to move by the generator's labels; None tests directions.

    The others: see :class:`ohlora.modules.directions.DirectionSearch`.
    """

    generator: Generator
    network: AttributeCNN | AttributeEnsemble
    judge: AttributeCNN | AttributeEnsemble
    discriminator: Discriminator | None
    parser: FaceParser | None
    edits: Edits
    data_type = Samples

    def __init__(
        self,
        output: str,
        generator: str | None,
        network: str | None,
        judge: str | None,
        directions: str | None,
        label_edits: tuple[str, ...] | None,
        grid: dict[str, list[float]] | None,
        limits: dict[str, float] | None,
        calibrate: int,
        scale_count: int,
        parser: str | None,
        closer_count: int,
        discriminator: str | None,
        sheets: int,
        image_batch_size: int,
        test_seed: int,
    ) -> None:
        super().__init__()
        self.output, self.test_seed = Path(output), test_seed
        self.paths = {"generator": generator, "network": network, "judge": judge}
        self.directions_path = Path(directions) if directions else self.output / DIRECTIONS
        self.label_edits, self.calibrate = label_edits, calibrate
        self.levels: Mapping[str, Sequence[float]] = grid or GRID
        self.limits_given, self.scale_count = limits, scale_count
        self.parser_path, self.closer_count, self.discriminator_path = parser, closer_count, discriminator
        self.sheets, self.image_batch_size = sheets, image_batch_size

    def load_networks(self, *names: str) -> None:
        """Loads ``generator``, ``network`` or ``judge``, frozen, onto the stage's device.

        Raises:
            ConfigError: If a path is not set.
            MissingArtifactError: If there is no such file.
        """
        unset = [name for name in names if self.paths[name] is None]
        if unset:
            raise ConfigError(f"this needs {', '.join(unset)}; set model.init_args.{unset[0]}")
        for name in names:
            path = str(self.paths[name])
            require(path)
            load = network_files.load_generator if name == "generator" else network_files.load_attributes
            setattr(self, name, load(path).requires_grad_(False).to(self.device))

    def grid_of(self, attributes: Sequence[str]) -> Grid:
        """The grid of some attributes.

        Raises:
            ConfigError: If one has fewer than two strengths.
        """
        try:
            return Grid.of(attributes, self.levels)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def latents(self, stream: str, indices: Sequence[int]) -> Latents:
        """Counted latents of a stream of their own."""
        z, label = counted_latents(self.generator, self.test_seed, indices, f"{stream}/")
        return Latents(z, label, self.generator.map(z, label).values)

    def record(self, metrics: dict[str, float], pictures: dict[str, np.ndarray], tables: dict[str, Any]) -> None:
        """Notes figures, pictures and tables in the run folder and on W&B."""
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics)
        self.show(pictures, tables)

    # --- before the test

    def setup(self, stage: str) -> None:
        """Loads what the test needs, and checks that it fits together."""
        if stage != "test":
            return
        self.load_networks("generator", "network", "judge")
        if self.label_edits is None:
            found = direction_files.load_directions(self.directions_path)
            self._check_directions(found)
            basis = direction_files.load_basis(self.directions_path)
            self.edited, self.groups, self.edits = found.attributes, found.groups, self._edits(found, basis)
        else:
            unlabelled = [name for name in self.label_edits if name not in LABELS[: self.generator.c_dim]]
            if unlabelled:
                raise ConfigError(f"the generator has no label for {', '.join(unlabelled)}")
            self.edited, self.groups = self.label_edits, Groups()
            self.edits = LabelEdits(self.label_edits, self.generator, LABELS)
        outputs = self.judge.outputs
        unseen = [name for name in self.edited if name not in outputs]
        if unseen:
            raise ConfigError(f"the judge has no output {', '.join(unseen)}; it has {', '.join(outputs)}")
        self.grid = self.grid_of(self.edited)
        limits = LIMITS if self.limits_given is None else self.limits_given
        self.limits = {name: limits.get(name, limits.get(tested_as(name), 0.0)) for name in self.edited}
        self.strengths = self.grid.strengths(self.edited).to(self.device)
        axes = [list(self.grid.levels).index(name) for name in self.edited]
        self.report = EditReport(self.edited, outputs, self.grid.shape, axes).to(self.device)
        self.units = torch.ones(len(self.edited), device=self.device)
        self.discriminator = self.parser = None
        if self.discriminator_path is not None:
            require(self.discriminator_path)
            self.discriminator = network_files.load_discriminator(self.discriminator_path).to(self.device)
            size, group = self.data.test_batch_size, self.discriminator.mbstd_group_size
            if size % min(size, group):
                raise ConfigError(
                    f"the discriminator compares images in groups of {group}, and test_batch_size is {size}; expected "
                    "a multiple"
                )
        if self.parser_path is not None:
            require(self.parser_path)
            self.parser = load_parser(self.parser_path)
        self._realism: list[tuple[Tensor, Tensor]] = []
        self._parsed: list[Tensor] = []
        self._tested_steps: list[tuple[int, Tensor]] = []

    def _check_directions(self, found: Directions) -> None:
        size, layers = self.generator.w_dim, self.generator.num_ws
        shape = found.vectors.shape[2:]
        if shape not in ((size,), (layers, size)):
            raise ConfigError(
                f"{self.directions_path} is for codes of shape {' × '.join(map(str, shape))}, the generator's have "
                f"{size} (in {layers} layers)"
            )

    def _edits(self, found: Directions, basis: LocalBasis | None) -> Edits:
        if basis is None:
            return found
        return LocalEdits(found.attributes, basis, self.generator, self.network, self.image_batch_size)

    def on_test_start(self) -> None:
        """Measures the judge's mean and standard deviation over samples of their own, then calibrates if asked to."""
        mine = range(self.global_rank, self.scale_count, self.trainer.world_size)
        seen = [self._seen(self.latents("scale", part).w)[1].cpu() for part in pieces(mine, self.image_batch_size)]
        scores = torch.cat(gathered(seen)).double()
        self.scale = (scores.mean(dim=0).to(self.device), scores.std(dim=0, correction=0).to(self.device))
        if self.calibrate:
            self._calibrate()

    def _calibrate(self) -> None:
        """Sets units so that strength 1 is one of the judge's standard deviations, on latents of their own; twice."""
        mine = range(self.global_rank, self.calibrate, self.trainer.world_size)
        own = [self.judge.outputs.index(name) for name in self.edited]
        for _ in range(2):
            parts = []
            for part in pieces(mine, self.data.test_batch_size):
                _, _, judged, _, _ = self._edited(self.latents("calibration", part))
                slope = slopes(self.strengths.double(), judged)
                parts.append(slope[:, range(len(own)), own].cpu())
            mean = torch.cat(gathered(parts)).mean(dim=0)
            if bool((mean <= 0).any()):
                names = [name for name, value in zip(self.edited, mean.tolist(), strict=True) if value <= 0]
                print(f"{', '.join(names)} does not rise with its strength and keeps its unit")
            self.units = self.units / torch.where(mean > 0, mean, 1.0).to(self.units)

    # --- the test

    def _seen(self, codes: Tensor) -> list[Tensor]:
        """What search CNN and judge see in the images of codes."""
        return scores_of_codes(self.generator, [self.network, self.judge], in_w(codes), self.image_batch_size)

    def _in_deviations(self, scores: Tensor) -> Tensor:
        mean, deviation = self.scale
        return (scores.double() - mean) / deviation

    def _edited(self, latents: Latents) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Edits latents, and judges them.

        Returns:
            Groups (N,), codes of all edits, their scores N×E×K, those of the unedited images N×K and, of local edits,
            the steps.
        """
        seen, unedited = self._seen(latents.w)
        group = torch.from_numpy(self.groups.assign(self.network.outputs, seen.cpu().numpy())).to(self.device)
        steps, strengths = None, self.strengths * self.units
        if isinstance(self.edits, LocalEdits):
            steps = self.edits.steps(latents.w)
            codes = added(latents.w, strengths, steps)
        else:
            codes = self.edits.codes(latents, group, strengths)
        (scores,) = scores_of_codes(self.generator, [self.judge], in_w(codes.flatten(0, 1)), self.image_batch_size)
        judged = self._in_deviations(scores).reshape(len(latents.w), self.grid.size, -1)
        return group, codes, judged, self._in_deviations(unedited), steps

    @torch.no_grad()
    def test_step(self, batch: list[int], batch_idx: int) -> None:
        """Edits the latents of a batch, and judges the edits."""
        latents = self.latents("test", batch)
        group, codes, judged, unedited, steps = self._edited(latents)
        if steps is not None:  # a character needs what was tested
            self._tested_steps += zip(batch, steps.float().cpu(), strict=True)
        index = torch.tensor(batch, device=self.device)
        self.report.update(index, group, self.strengths, judged, unedited)
        if batch[-1] < self.closer_count:
            if self.discriminator is not None and len(batch) == self.data.test_batch_size:  # groups must be whole
                self._compare_realism(latents, codes)
            if self.parser is not None:
                self._read_parsed(codes)

    def _compare_realism(self, latents: Latents, codes: Tensor) -> None:
        """The discriminator's scores of each latent's edits and of itself; neighbours in its groups are other faces."""
        assert self.discriminator is not None
        n, edits = codes.shape[:2]
        turned = torch.cat([self._by_layer(latents.w)[None], self._by_layer(codes.transpose(0, 1))])
        labels = latents.label if self.discriminator.c_dim else None
        scores = [
            self.discriminator(self.generator.synthesize(in_w(of_edit)).clamp(-1, 1), labels)
            for of_edit in turned.unbind()
        ]
        table = torch.stack(scores, dim=1)
        assert table.shape == (n, edits + 1)
        self._realism.append((table[:, 0].cpu(), table[:, 1:].mean(dim=1).cpu()))

    def _by_layer(self, codes: Tensor) -> Tensor:
        if codes.shape[-2:] == (self.generator.num_ws, self.generator.w_dim):
            return codes
        return codes[..., None, :].expand(*codes.shape[:-1], self.generator.num_ws, -1)

    def _read_parsed(self, codes: Tensor) -> None:
        """Correlations of strengths with scores read off parsed maps, N×P; NaN where a face part is not seen."""
        assert self.parser is not None
        for of_latent in codes:
            made = [
                images.to_uint8(self.generator.synthesize(in_w(part)))
                for part in torch.split(of_latent, self.image_batch_size)
            ]
            pictures = np.concatenate(made)
            rows = [
                score(picture, found) for picture, found in zip(pictures, parsed(self.parser, pictures), strict=True)
            ]
            table = torch.tensor([[row[name] for name in self.edited] for row in rows], dtype=torch.float64)
            r = correlations(self.strengths.cpu().double(), table[None])[0]
            self._parsed.append(torch.diagonal(r)[None])

    def on_test_epoch_end(self) -> None:
        """Rank zero writes and shows the results."""
        rows = self.report.compute()
        extra: dict[str, float] = {}
        if self.discriminator is not None:
            pairs = gathered(self._realism)
            if not pairs:
                raise ConfigError(
                    f"no whole batch of {self.data.test_batch_size} lies within the first {self.closer_count} latents; "
                    "choose a smaller test_batch_size or a larger closer_count"
                )
            plain, edited = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
            extra["realism_change"] = float((edited - plain).mean() / plain.std())
        if self.parser is not None:
            means = torch.cat(gathered(self._parsed)).nanmean(dim=0)
            extra |= {f"{name}_parsed_corr_mean": float(v) for name, v in zip(self.edited, means, strict=True)}
        steps = dict(gathered(self._tested_steps))
        if self.trainer.is_global_zero:
            self._report(rows, extra, steps)

    def _report(self, rows: list[dict[str, float]], extra: dict[str, float], steps: dict[int, Tensor]) -> None:
        edited, names = self.edited, self.groups.names
        statistics = summary(rows, edited, self.judge.outputs, self.limits) | extra
        results = []
        for row in rows:
            r = [row[f"{name}_corr"] for name in edited]
            result: dict[str, Any] = {"case": int(row["index"]), "vector_no": 0}
            result |= {"passed": "O" if passes(row, self.limits) else "X", "group_name": names[int(row["group"])]}
            result |= {f"{name}_corr": round(value, 4) for name, value in zip(edited, r, strict=True)}
            result["sum_abs_corr"] = round(sum(abs(value) for value in r), 4)
            own = {k: round(v, 4) for k, v in row.items() if k not in ("index", "group") and k not in result}
            results.append(result | own)
        rounded = {key: round(value, 4) for key, value in statistics.items()}
        rounded["sum_abs_corr_mean"] = round(sum(row["sum_abs_corr"] for row in results) / len(results), 4)
        cases = [result["case"] for result in results]
        latents = self.latents("test", cases)
        group = torch.tensor([int(row["group"]) for row in rows], device=self.device)
        tensors = {"case": torch.tensor(cases), "z": latents.z, "w": latents.w, "group": group, "units": self.units}
        if latents.label is not None:
            tensors["label"] = latents.label
        if steps:
            tensors["steps"] = torch.stack([steps[case] for case in cases])
        write_report(
            self.output,
            results,
            rounded,
            tensors,
            generator=network_files.fingerprint(str(self.paths["generator"])),
            directions=network_files.fingerprint(self.directions_path) if self.label_edits is None else "",
            attributes=list(edited),
            group_names=list(names),
            levels=dict(self.grid.levels),
            seed=self.test_seed,
        )
        by_name = {name: np.array([row[f"{name}_corr"] for row in rows]) for name in edited}
        pictures = {"correlations": figures.histograms(by_name, self.limits, "correlation of strength and score")}
        tables: dict[str, Any] = {"test_result": results}
        if len(edited) == 3:
            tables["sheets"] = self._sheets(results, latents, group)
        metrics = {f"test/{key}": float(value) for key, value in rounded.items()}
        self.record(metrics, pictures, tables)
        shown = ", ".join(f"{name} {statistics[f'{name}_corr_mean']:.3f}" for name in edited)
        print(
            f"{statistics['passed']} of {len(rows)} latents pass ({statistics['passed_ratio']:.1%}); mean r {shown}: "
            f"{self.output / RESULTS}"
        )

    def _sheets(self, results: list[dict[str, Any]], latents: Latents, group: Tensor) -> list[dict[str, Any]]:
        """Sheets of the best, middle and worst latents, by the worst of a latent's correlations."""
        edited = self.edited
        order = sorted(range(len(results)), key=lambda k: -min(results[k][f"{name}_corr"] for name in edited))
        count = min(self.sheets, max(1, len(order) // 3))
        middle = (len(order) - count) // 2
        shown: list[dict[str, Any]] = []
        for old in (self.output / "sheets").glob("*_case_*.png"):  # of an earlier test
            old.unlink()
        for what, places in (
            ("best", order[:count]),
            ("middle", order[middle : middle + count]),
            ("worst", order[-count:]),
        ):
            for k in dict.fromkeys(places):
                codes = self.edits.codes(latents.part(k), group[k : k + 1], self.strengths * self.units)[0]
                with torch.no_grad():
                    made = [
                        images.to_uint8(self.generator.synthesize(in_w(part)))
                        for part in torch.split(codes, self.image_batch_size)
                    ]
                row = results[k]
                figures_of = [f"{n}: r {row[f'{n}_corr']:.3f}, slope {row[f'{n}_slope']:.2f}" for n in edited]
                title = f"case {row['case']}, group {row['group_name']}, {'pass' if row['passed'] == 'O' else 'fail'}"
                sheet = figures.edit_sheet(np.concatenate(made), self.grid.levels, [title, "   ".join(figures_of)])
                images.save_png(sheet, self.output / "sheets" / f"{what}_case_{row['case']:04d}.png")
                shown.append({"which": what, "sheet": sheet, **row})
        return shown


def in_w(codes: Tensor) -> Codes:
    """Codes N×D in W, or N×L×D by layer."""
    return Codes(codes, Space.W if codes.ndim == 2 else Space.W_BY_LAYER)
