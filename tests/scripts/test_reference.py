"""The API reference: a page for each module, and links in place of Sphinx roles."""

from __future__ import annotations

from pathlib import Path

import griffe
import pytest

from scripts import cross_references, reference_pages
from tests.conftest import ROOT


def test_every_public_module_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pages = reference_pages.pages()
    modules = {reference_pages.module(path.relative_to(ROOT)) for path in (ROOT / "ohlora").rglob("[!_]*.py")}
    assert {f"reference/{name}.md" for name in modules} < set(pages)
    assert "reference/ohlora.__main__.md" not in pages
    assert pages["reference/ohlora.directions.finder.md"].startswith("::: ohlora.directions.finder\n")
    assert "[`ohlora.directions.svm`](ohlora.directions.svm.md)" in pages["reference/ohlora.directions.md"]
    overview = pages["reference/index.md"]
    assert all(f"]({Path(page).name})" in overview for page in pages if page != "reference/index.md")
    assert not cross_references.ROLE.search(overview)


def test_roles_become_links_to_what_they_mean(tmp_path: Path) -> None:
    package = tmp_path / "world"
    package.mkdir()
    (package / "__init__.py").write_text('"""A world."""\n')
    (package / "base.py").write_text(
        'class Base:\n    """A base."""\n\n    def look(self) -> None:\n        """Looks."""\n\n'
        "    def bare(self) -> None:\n        pass\n\n"
        '    def _hidden(self) -> None:\n        """Hidden."""\n'
    )
    (package / "own.py").write_text(
        '"""Imports :class:`Base`; :mod:`world.base`, :func:`torch.load`."""\n\nimport torch\n\n'
        "from world.base import Base\n\n\nclass Own(Base):\n"
        '    """:meth:`look`, :meth:`Base.look`; :meth:`bare`."""\n\n'
        '    def go(self) -> None:\n        """:class:`Own` :meth:`look` :meth:`_hidden` :data:`nowhere`"""\n'
    )
    extensions = griffe.load_extensions(cross_references.SphinxRoles)
    read = griffe.load("world", search_paths=[tmp_path], extensions=extensions)
    said = {name: read[name].docstring.value for name in ("own", "own.Own", "own.Own.go")}
    look = "[`{}`][world.base.Base.look]"
    assert said["own"] == "Imports [`Base`][world.base.Base]; `world.base`, `torch.load`."  # a module without a text
    assert said["own.Own"] == f"{look.format('look')}, {look.format('Base.look')}; `bare`."
    assert said["own.Own.go"] == f"[`Own`][world.own.Own] {look.format('look')} `_hidden` `nowhere`"
