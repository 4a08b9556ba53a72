"""An extension of Griffe: Sphinx roles in docstrings, such as ``:class:`Codes```, become links of the API reference.

mkdocstrings reads docstrings as Markdown and shows roles as they stand. ``mkdocs.yml`` names this file. A role links to
what its name means in the scope of the docstring, inherited members included; what the reference does not show, such as
private functions and other libraries, becomes code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`([^`<>]+)`")


class SphinxRoles(griffe.Extension):
    """Replaces the roles of a package once all of it has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by Griffe.

        Args:
            pkg: The package.
        """
        for member in _objects(pkg):
            if member.docstring is not None:
                parts = ROLE.split(member.docstring.value)  # names at every second place
                parts[1::2] = [_link(name, member) for name in parts[1::2]]
                member.docstring.value = "".join(parts)


def _objects(of: griffe.Object) -> list[griffe.Object]:
    """An object and all that is declared in it."""
    inside = [member for member in of.members.values() if isinstance(member, griffe.Object)]
    return [of, *(found for member in inside for found in _objects(member))]


def _link(name: str, at: griffe.Object) -> str:
    """A link in Markdown from the docstring of an object, or code where there is nothing to link to."""
    meant = _meant(name, at)
    return f"`{name}`" if meant is None or not _shown(meant) else f"[`{name}`][{meant.path}]"


def _meant(name: str, at: griffe.Object) -> griffe.Object | None:
    """What a name means in the scope of an object; None for what is not of the package."""
    first, _, rest = name.partition(".")
    package = at.package
    if first == package.name:
        return _inside(package, rest)
    scope: griffe.Object | None = at
    while scope is not None:
        if (found := _inside(scope, name)) is not None:
            return found
        scope = scope.parent if isinstance(scope.parent, griffe.Object) else None
    return None


def _inside(of: griffe.Object, name: str) -> griffe.Object | None:
    """A member by its path below an object, also an inherited or imported one."""
    found: griffe.Object | griffe.Alias = of
    try:
        for part in filter(None, name.split(".")):
            found = found.all_members[part]
        return found.final_target if isinstance(found, griffe.Alias) else found
    except (KeyError, griffe.AliasResolutionError):  # there is none; or it is of another library
        return None


def _shown(of: griffe.Object) -> bool:
    """Whether the reference shows it: it and what it lies in are public, and it is documented."""
    names = of.path.split(".")
    return of.docstring is not None and not any(name.startswith("_") for name in names)
