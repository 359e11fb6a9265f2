"""Which app listens where: from the settings of apps, tables and options to a server's listeners. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from linepool.apps import Apps
from linepool.errors import SetupError
from linepool.settings import FIELDS, PER_LISTENER, parse_setting
from linepool.settings.listeners import ListenerTable


def source_of(apps: Apps, name: str) -> str:
    """Return the source of what an app says of itself, for messages."""
    return f"App({name!r})" if len(apps) > 1 else "App(...)"


def shared_settings(apps: Apps) -> dict[str, object]:
    """Return the settings that the apps give the server: those of the only app, or what all agree on.

    Raises:
        SetupError: Two apps give the server different settings.
    """
    if len(apps) == 1:
        return dict(apps.first.settings)
    found: dict[str, object] = {}
    by: dict[str, str] = {}
    for app in apps:
        for name, value in app.settings.items():
            if name == "bind" or name in PER_LISTENER:
                continue
            if name in found and found[name] != value:
                raise SetupError(
                    f"{name} holds for the whole server, and the apps differ: {by[name]} has"
                    f" {found[name]!r}, {app.name} has {value!r}; give it in one of them, or in the file"
                )
            found[name], by[name] = value, app.name
    return found


def planned(
    apps: Apps, tables: Sequence[ListenerTable], given: Mapping[str, Any], bind_source: str
) -> list[ListenerTable]:
    """Return the listeners of a server, each with its app.

    Args:
        apps: All that are served.
        tables: Of the file, with the names of their apps.
        given: The settings that are given outside of the apps, parsed.
        bind_source: Where ``bind`` is given among them; "": nowhere.

    Raises:
        SetupError: An app has no address, or ``bind`` does not say whose it is.
    """
    names = [app.name for app in apps]
    found = [*tables]
    found += [
        ListenerTable((address,), name)
        for name, addresses in apps.addresses.items()
        for address in addresses
    ]
    if bind_source:
        if len(names) > 1:
            raise SetupError(
                f"bind ({bind_source}) does not say which of the apps {', '.join(names)} it is for; give"
                " TARGET@ADDRESS, App(bind=...) or a table [[listener]]"
            )
        found.append(ListenerTable(given["bind"], names[0]))
    unplaced = []
    for app in apps:
        if not any(table.app == app.name for table in found):
            if "bind" in app.settings:
                own = parse_setting("bind", app.settings["bind"], source_of(apps, app.name))
                found.append(ListenerTable(own, app.name))
            else:
                unplaced.append(app.name)
    if len(unplaced) > 1:
        raise SetupError(
            f"the apps {' and '.join(unplaced)} have no address; give TARGET@ADDRESS, App(bind=...) or a"
            " table [[listener]] each"
        )
    found += [ListenerTable(FIELDS["bind"].default, name) for name in unplaced]
    order = {name: number for number, name in enumerate(names)}
    found.sort(key=lambda table: order[table.app])
    return [table.with_defaults(_own_options(apps, table.app, given)) for table in found]


def _own_options(apps: Apps, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that one app of several has for its listeners."""
    if len(apps) == 1:
        return {}
    app = next(one for one in apps if one.name == name)
    return {
        key: parse_setting(key, value, source_of(apps, name))
        for key, value in app.settings.items()
        if key in PER_LISTENER and key not in given
    }


def resolved(tables: Sequence[ListenerTable], resolve: Any) -> tuple[ListenerTable, ...]:
    """Return tables with the descriptors of each name, ``systemd:NAME``, in its place."""
    return tuple(evolve(table, bind=tuple(resolve(table.bind))) for table in tables)
