"""A hook of MkDocs: the API reference has a page for each module, listed by package, and an overview of all.

``mkdocs.yml`` names this file. Pages are made of the files that are there, so that no module can be forgotten.
"""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

SOURCE = Path("ohlora")
OVERVIEW = "reference/index.md"
OF_PACKAGE = "::: {name}\n    options: {{heading_level: 1, members: false}}\n\n{table}"
OF_MODULE = "::: {name}\n    options: {{heading_level: 1}}\n"


def packages() -> dict[str, list[Path]]:
    """Public modules by the package they lie in, the package's own file first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        if path.name == "__init__.py" or not path.name.startswith("_"):
            found.setdefault(".".join(path.parent.parts), []).append(path)
    return {name: sorted(paths, key=lambda path: (path.name != "__init__.py", path)) for name, paths in found.items()}


def page(path: Path) -> str:
    """The page of a module, below the folder of pages."""
    return f"reference/{module(path)}.md"


def module(path: Path) -> str:
    """The name by which a module is imported."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def about(path: Path) -> str:
    """The first sentence of a module's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(said.partition("\n\n")[0].split()).replace("``", "`").replace("|", r"\|")


def table(paths: list[Path]) -> str:
    """The modules of a package, each with a link to its page and what it holds."""
    rows = [f"| [`{module(path)}`]({module(path)}.md) | {about(path)} |\n" for path in paths]
    return "".join(["| module | contents |\n|---|---|\n", *rows])


def pages() -> dict[str, str]:
    """All pages with their text."""
    found = packages()
    overview = "".join(f"## {name}\n\n{table(paths)}\n" for name, paths in found.items())
    texts = {OVERVIEW: f"# Reference\n\nEvery module, by package.\n\n{overview}"}
    for package, paths in found.items():
        for path in paths:
            of_package = path.name == "__init__.py"
            form = OF_PACKAGE if of_package else OF_MODULE
            texts[page(path)] = form.format(name=module(path), table=table(paths[1:]) if of_package else package)
    return texts


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Called by MkDocs: lists the pages in the navigation."""
    found = [
        {name: [{module(path).rpartition(".")[2]: page(path)} for path in paths]} for name, paths in packages().items()
    ]
    assert config.nav is not None
    config.nav.append({"Reference": [{"All modules": OVERVIEW}, *found]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs: adds the pages, which are no files in the folder of pages."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
