"""Drawn people as training data: several pictures of each, and pairs of pictures to measure recognition by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ohlora.datamodules.base import Sample
from ohlora.datamodules.epochs import EpochData
from ohlora.errors import ConfigError
from ohlora.evaluation.identity import OTHERS, SAME
from ohlora.toy import drawing, people
from ohlora.utils import checks, counted


class PeopleDataset:
    """Pictures of the drawn people ``first`` … ``first + count − 1`` of a seed; each is drawn at first use and kept.

    A person and its look-alike stand side by side, with all their pictures. Samples also hold the number of the
    ``person``, its ``properties`` (K float32, see :func:`ohlora.toy.people.properties`), and ``seen``: whether the
    picture shows how the person differs from the look-alike.
    """

    labels = None

    def __init__(
        self,
        first: int,
        count: int,
        pictures: int,
        resolution: int,
        seed: int,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.first, self.count, self.pictures, self.resolution = first, count, pictures, resolution
        self.seed, self.rates = seed, rates
        self._drawn: dict[int, Sample] = {}

    def __len__(self) -> int:
        return self.count * self.pictures

    def __getitem__(self, index: int) -> Sample:
        if index not in self._drawn:
            place, picture = divmod(index, self.pictures)
            alike = [self._draw(place // 2 * 2 + k, picture) for k in range(2)]
            seen = people.peak_signal_to_noise(*(sample["image"] for sample in alike)) < people.SEEN
            for k, sample in enumerate(alike):
                where = (place // 2 * 2 + k) * self.pictures + picture
                self._drawn[where] = {**sample, "index": where, "seen": np.array(seen)}
        return self._drawn[index]

    def _draw(self, place: int, picture: int) -> Sample:
        number = self.first + place
        truth = people.portrait(self.seed, number, picture, self.rates)
        image = drawing.draw(truth, self.resolution).image
        return {"image": image, "person": np.array(number), "properties": people.properties(truth)}

    def pairs(self, part: range) -> Pairs:
        """Pairs of pictures to compare, each of different pictures: the same person, look-alikes, others.

        For P pictures there are P·(P − 1) pairs of the same person for each pair of look-alikes, half as many of these,
        and half as many of one of them and a person of the next pair. Look-alikes are compared only where their
        difference can be seen in both pictures; so their pairs may be fewer. Which ones are taken is a function of the
        seed and the person.

        Args:
            part: Which pairs of look-alikes, by their places in the set; two or more.
        """
        many, found = self.pictures, Pairs([], [], [])
        for pair in part:
            start, following = 2 * pair * many, 2 * (pair + 1 if pair + 1 in part else part.start) * many
            random = counted.generator(self.seed, "pairs", self.first // 2 + pair)
            for side in (0, many):
                for k in range(many):
                    for j in range(k):
                        found.add(start + side + j, start + side + k, SAME)
            seen = [k for k in range(many) if self[start + k]["seen"]]
            crossed = [(j, k) for j in seen for k in seen if j != k]
            half = many * (many - 1) // 2
            changed = people.difference(self.seed, self.first + 2 * pair)
            for place in random.permutation(len(crossed))[:half]:
                j, k = crossed[place]
                found.add(start + j, start + many + k, changed)
            for j, k in zip(*random.integers(2 * many, size=(2, half)), strict=True):
                found.add(start + int(j), following + int(k), OTHERS)
        return found


@dataclass
class Pairs:
    """Pairs of pictures, by their places in a set.

    Attributes:
        first: One picture of each pair.
        second: The other.
        kinds: What they are: ``same``, ``others``, or the property in which look-alikes differ.
    """

    first: list[int]
    second: list[int]
    kinds: list[str]

    def add(self, first: int, second: int, kind: str) -> None:
        """Adds a pair."""
        self.first.append(first)
        self.second.append(second)
        self.kinds.append(kind)


class People(EpochData):
    """Drawn people in several pictures each: other expressions, tilt, clothes and background.

    Persons come in pairs of look-alikes, which differ in one property, and stay together in a batch; see
    :mod:`ohlora.toy.people`. Everything is a function of (seed, person, picture). Pictures are drawn when first used,
    and kept: 12 kB each at 64×64.

    Args:
        resolution: Height and width in pixels.
        people: Number of people to learn from, even.
        pictures: Pictures of each, at least 2.
        val_people: Number of people held out, those that follow; a multiple of 4, at least 8. The first half of them
            calibrates and chooses the epoch, the second is measured.
        val_pictures: Pictures of each of these, at least 2.
        rates: Share of people with each 0/1 attribute set (gender, age, glass), 0…1.
        **settings: See :class:`ohlora.datamodules.base.ImageDataModule`; ``seed`` is also that of the people.
            ``batch_size`` is a multiple of 2·``pictures``. There is no ``flip``: in a mirror a person is another one.
    """

    train_set: PeopleDataset
    val_set: PeopleDataset

    def __init__(
        self,
        resolution: int = 64,
        people: int = 4000,
        pictures: int = 3,
        val_people: int = 800,
        val_pictures: int = 4,
        rates: dict[str, float] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checks.at_least(drawing.MIN_RESOLUTION, resolution=resolution)
        checks.at_least(2, people=people, pictures=pictures, val_pictures=val_pictures)
        checks.at_least(8, val_people=val_people)
        checks.between(0, 1, **(rates or {}))
        for name, count, of in (("people", people, 2), ("val_people", val_people, 4)):
            if count % of:
                raise ConfigError(f"{name} is {count}; expected a multiple of {of}, for every person has a look-alike")
        if self.flip:
            raise ConfigError("flip is true; a mirrored person is another one (the parting changes side): leave it out")
        self.resolution, self.people, self.pictures = resolution, people, pictures
        self.val_people, self.val_pictures, self.rates = val_people, val_pictures, rates
        self.together = 2 * pictures
        drawing.sample_truth(self.seed, 0, rates)  # refuses unknown rates before anything starts

    def setup(self, stage: str) -> None:
        """Declares the people; they are drawn when first used."""
        how = self.resolution, self.seed, self.rates
        self.train_set = PeopleDataset(0, self.people, self.pictures, *how)
        self.val_set = PeopleDataset(self.people, self.val_people, self.val_pictures, *how)
