"""The workspace of the dashboards, without an account."""

from __future__ import annotations

import pytest

from ohlora.attributes import recipe
from scripts import wandb_workspace


def test_a_dry_run_lists_what_would_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert wandb_workspace.main(["--dry-run"]) == 0
    sections = wandb_workspace.sections_of(recipe())
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if not line.startswith(" ")] == list(sections)
    made = wandb_workspace.workspace("somebody", "faces", sections)
    assert (made.entity, made.project) == ("somebody", "faces")
    assert [len(section.panels) for section in made.sections] == [len(panels) for panels in sections.values()]
    lines = made.sections[0].panels[0]
    assert lines.y == ["watch/concept_rate", "watch/concept_rate_recipe"] and lines.x == "kimg"


def test_a_missing_entity_or_key_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_workspace, "workspace", lambda *_: pytest.fail("W&B would have been asked"))
    assert wandb_workspace.main([]) == 2
    assert "--entity is missing" in capsys.readouterr().err
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")
    assert wandb_workspace.main(["--entity", "somebody"]) == 2
    assert "no W&B key was found" in capsys.readouterr().err
