"""Several targets: from the words of the command line, and the file's tables, to the apps of a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from attrs import evolve, frozen

from linepool.address import parse_address
from linepool.app import App
from linepool.apps import Apps
from linepool.errors import SetupError
from linepool.near import nearest
from linepool.operate import target
from linepool.settings.listeners import ListenerTable


@frozen
class Word:
    """A word of the command line.

    Attributes:
        target: As for ``target.load``.
        address: Where it is served; "": its own settings say that.
    """

    target: str
    address: str = ""


class _NoTargetError(SetupError):
    """Neither the command line nor the file names an app."""

    is_usage = True


def parse_word(text: str) -> Word:
    """Return a TARGET, or ``TARGET@ADDRESS``: ``shop:admin@unix:@shop-admin``.

    Raises:
        SetupError: What is behind the ``@`` is not an address.
    """
    if "@" not in text or os.path.exists(text):
        return Word(text)
    places = [at for at, character in enumerate(text) if character == "@" and at]
    problem = ""
    for at in places:
        try:
            parse_address(text[at + 1 :])
        except ValueError as error:
            problem = problem or str(error)
        else:
            return Word(text[:at], text[at + 1 :])
    raise SetupError(f"{text}: what is behind the @ must be an address {problem}")


def words_of(texts: Sequence[str]) -> list[Word]:
    """Return several words; see ``parse_word``."""
    return [parse_word(text) for text in texts]


def load(
    words: Sequence[Word], tables: Sequence[ListenerTable]
) -> tuple[Apps, Sequence[ListenerTable]]:
    """Load the apps of a server; return them, and the tables with the names of their apps.

    Args:
        words: Of the command line.
        tables: Of the file; an app there is one of these, by its name or TARGET, or a further TARGET.

    Raises:
        SetupError: A target cannot be loaded, or an app is unknown or given twice.
    """
    targets = list(dict.fromkeys(word.target for word in words))
    for one in targets:
        given = [word.address for word in words if word.target == one]
        if len(given) > 1 and "" in given:
            raise SetupError(
                f"the target {one} is given twice; with two addresses: {one}@ADDRESS each"
            )
    further = [table.app for table in tables if table.app not in targets and is_target(table.app)]
    loaded = {one: target.load_unnamed(one) for one in (*targets, *dict.fromkeys(further))}
    if not loaded:
        raise _NoTargetError("give a TARGET, or write target = 'TARGET' in linepool.toml")
    for one, (app, name) in loaded.items():
        app.name = app.name or (_own_name(one, name) if len(loaded) > 1 else name)
    addresses: dict[str, list[str]] = {}
    for word in words:
        if word.address:
            addresses.setdefault(loaded[word.target][0].name, []).append(word.address)
    apps = Apps([app for app, _ in loaded.values()], addresses)
    own = {_own_name(one, name): app.name for one, (app, name) in loaded.items()}
    return apps, named(apps, tables, own | {one: app.name for one, (app, _) in loaded.items()})


def named(
    apps: Apps, tables: Sequence[ListenerTable], targets: dict[str, str] | None = None
) -> list[ListenerTable]:
    """Return tables in which each app stands with its name.

    Args:
        apps: All that are served.
        tables: Of the file.
        targets: The names of those that were loaded, by their targets and variables.

    Raises:
        SetupError: An app is unknown, or missing although there are several.
    """
    names = [app.name for app in apps]
    found = []
    for number, table in enumerate(tables, 1):
        name = (targets or {}).get(table.app, table.app)
        if not name and len(names) > 1:
            raise SetupError(
                f"[[listener]] {number} ({table.bind[0]}) has no app; there are {', '.join(names)}"
            )
        if name and name not in names:
            near = nearest(name, names)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(names)}"
            raise SetupError(
                f"[[listener]] {number} ({table.bind[0]}): unknown app {name!r}; {hint}"
            )
        found.append(evolve(table, app=name or names[0]))
    return found


def name_by_variable(apps: Sequence[App]) -> None:
    """Name the apps of a script that have no name after the variables that hold them."""
    variables = vars(sys.modules["__main__"])
    for app in apps:
        if not app.name:
            app.name = next((key for key, value in variables.items() if value is app), "")
    for number, app in enumerate(apps, 1):
        app.name = app.name or f"app{number}"


def is_target(text: str) -> bool:
    """Whether a text is that of a target, not the name of an app or a command."""
    return ":" in text or text.endswith(".py") or "/" in text


def _own_name(text: str, name: str) -> str:
    """Return the name of one app of several: of its variable or function, or of its module."""
    _, behind = target.parts_of(text)
    return behind.partition("(")[0] or name
