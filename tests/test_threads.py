"""Threads: how many are measured where nobody says it, and a resumed run takes as many as before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from ohlora.utils import threads

Run = Callable[..., int]


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As torch starts on two cores, where nothing is said."""
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    threads.choose.cache_clear()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
    threads.choose.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "number"), [({1: 1.0, 2: 0.6}, 2), ({1: 1.0, 2: 0.95}, 1), ({1: 1.0, 4: 3.0}, 1), ({1: 1.0}, 1)]
)
def test_more_threads_are_used_where_they_are_faster(seconds: dict[int, float], number: int) -> None:
    assert threads.best(seconds) == number


def test_both_numbers_are_measured(two_threads: None) -> None:
    found = threads.measured(rounds=1)
    assert set(found) == {1, 2} and min(found.values()) > 0
    assert torch.get_num_threads() == 2


def test_a_run_says_how_many_it_takes_and_goes_on_with_as_many(
    tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch, ohlora: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threads, "measured", lambda: {1: 1.0, 2: 3.0})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)  # nothing is said to a pipe
    assert ohlora("fit", "identity", "--trainer.max_epochs", "1") == 0
    assert "1 of 2 threads: 2 are 0.3 times as fast as one here and now" in capsys.readouterr().out
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    threads.choose.cache_clear()
    assert ohlora("fit", "identity", "--trainer.max_epochs", "2", "--ckpt_path", "last") == 0
    assert "threads:" not in capsys.readouterr().out and torch.get_num_threads() == 1
    torch.set_num_threads(2)
    monkeypatch.setenv(threads.VARIABLE, "2")
    assert ohlora("fit", "identity", "--trainer.max_epochs", "3", "--ckpt_path", "last") == 0
    assert torch.get_num_threads() == 2, "what the user says counts"
