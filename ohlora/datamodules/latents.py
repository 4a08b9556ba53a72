"""Counted latents as data to predict or test with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ohlora.characters.reports import Report
from ohlora.errors import ConfigError, DataError
from ohlora.networks.codes import Codes

AnySequence = TypeVar("AnySequence", bound=Sequence[int])


def pieces(indices: AnySequence, size: int) -> list[AnySequence]:
    """Cuts a sequence into pieces of a size; the last may be shorter."""
    return [indices[first : first + size] for first in range(0, len(indices), size)]  # type: ignore[misc]


Todo = Callable[[int, int], Sequence[Sequence[int]]]
"""Tells what is still to do of so many latents, in shares that one process does together; the second number is the
batch size."""


class Latents(L.LightningDataModule):
    """Indices 0 … count − 1; what belongs to an index is a function of the stage's seed and the index alone.

    Args:
        count: Number of latents.
        batch_size: Latents per batch and process.
    """

    _todo: Todo | None = None

    def __init__(self, count: int, batch_size: int = 16) -> None:
        super().__init__()
        if count < 1 or batch_size < 1:
            raise ConfigError(f"count is {count} and batch_size {batch_size}; expected at least 1")
        self.count, self.batch_size = count, batch_size

    @cached_property
    def tested(self) -> Sequence[int]:
        """The indices that are tested, in order."""
        return range(self.count)

    def connect(self, todo: Todo) -> None:
        """Takes over the stage's knowledge of what is still to do."""
        self._todo = todo

    def shares_to_do(self) -> Sequence[Sequence[int]]:
        """See :data:`Todo`; raises a ConfigError if the data has not been connected."""
        if self._todo is None:
            raise ConfigError("Latents does not know what is to do; call stage.connect(data) before trainer.predict")
        return self._todo(self.count, self.batch_size)

    def predict_dataloader(self) -> DataLoader[list[int]]:
        """Batches of the indices that are still to do; processes take shares in turn, no batch reaches beyond one.

        A process beyond the number of shares repeats the first; see :meth:`ImageDataModule.in_order`.
        """
        trainer = self.trainer
        assert trainer is not None
        shares = self.shares_to_do()
        mine = shares[trainer.global_rank :: trainer.world_size] or shares[:1]
        return self._batches([list(batch) for share in mine for batch in pieces(share, self.batch_size)])

    def test_dataloader(self) -> DataLoader[list[int]]:
        """Batches of what is :attr:`tested`; processes take turns, and one beyond their number repeats the first."""
        trainer = self.trainer
        assert trainer is not None
        mine = self.tested[trainer.global_rank :: trainer.world_size] or self.tested[:1]
        return self._batches([list(batch) for batch in pieces(mine, self.batch_size)])

    def _batches(self, batches: list[list[int]]) -> DataLoader[list[int]]:
        # A list is a data set. One batch is one item: Lightning notes which items a prediction belongs to, and warns
        # where it cannot.
        return DataLoader(batches, batch_size=1, collate_fn=itemgetter(0))  # type: ignore[arg-type]


class RankedLatents(Latents):
    """The best latents of an earlier evaluation, to be tested again, for instance after a touch-up.

    Args:
        report: Folder of the earlier evaluation, by the same generator and seed.
        count: How many, at most; they are ranked as by ``ohlora select``.
        batch_size: Latents per batch and process.
    """

    def __init__(self, report: str, count: int = 8, batch_size: int = 8) -> None:
        super().__init__(count, batch_size)
        self.report = report

    def setup(self, stage: str) -> None:
        """Reads the report; errors as for :meth:`ohlora.characters.reports.Report.load`."""
        self.count = len(self.tested)

    @cached_property
    def tested(self) -> Sequence[int]:
        """The cases of the report, best first."""
        return [int(self._read.rows[place]["case"]) for place in self._places]

    @cached_property
    def _read(self) -> Report:
        return Report.load(self.report)

    @cached_property
    def _places(self) -> list[int]:
        return self._read.ranked()[: self.count]

    def others(self, count: int) -> list[int]:
        """The first ``count`` cases of the report that are not :attr:`tested`, or as many as there are.

        Raises:
            ConfigError: If there is none.
        """
        tested = set(self.tested)
        found = [case for row in self._read.rows if (case := int(row["case"])) not in tested][:count]
        if not found:
            raise ConfigError(
                f"all latents of {self.report} are tested, and none is left to scale strengths on; test more latents "
                "there, or set model.init_args.calibrate to 0"
            )
        return found

    def codes(self, cases: Sequence[int]) -> Codes:
        """Codes in W of cases of the report, as they were there."""
        found = self._read.codes
        return Codes(found.values[[self._read.place_of(case) for case in cases]], found.space)

    def check(self, z: Tensor, generator: str) -> None:
        """Refuses to test other latents than those of the report under their numbers.

        Args:
            z: Of the latents that are :attr:`tested`.
            generator: The file of the generator.

        Raises:
            DataError: If they are others, or those of another generator.
        """
        Report.load(self.report, generator)  # refuses another generator
        if not torch.equal(z.cpu(), self._read.z[self._places]):
            raise DataError(
                f"{self.report} ranks other latents than those that model.init_args.seed makes; set it as it was there"
            )
