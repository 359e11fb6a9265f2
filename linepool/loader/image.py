"""What workers are forked from, and what the master is told of it. Made in the loader."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from linepool.app import App
from linepool.errors import TOO_MANY, TOO_MANY_FROM_ONE, TOO_MANY_UNFINISHED
from linepool.facts import AppFacts, CommandFacts
from linepool.kernel.rlimit import open_files
from linepool.service import Entry, Service
from linepool.settings import Settings, as_texts
from linepool.worker.observer import Output


@frozen
class Image:
    """An app that has been loaded, with its settings.

    Attributes:
        service: The app, made ready to serve.
        access: Where the access log goes; None: it is off.
    """

    app: App
    service: Service
    settings: Settings
    access: Output | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what the master is told."""
        service = self.service
        reasons = (TOO_MANY, TOO_MANY_FROM_ONE, TOO_MANY_UNFINISHED)
        facts = AppFacts(
            name=service.name,
            commands=tuple(map(_command, service.entries)),
            log_lines=service.log_lines,
            publishes=service.protocol.publishes,
            refusals={why: service.refusal(why) for why in reasons},
            greets=service.greets,
            has_disconnect_hook=bool(service.on_disconnect),
            files=tuple(own_files()),
            opened=open_files(),
            observed=self.app.observed,
        )
        return {"facts": facts.as_json(), "settings": as_texts(self.settings)}


Load = Callable[[], Image]
"""Loads an app; raises SetupError, whose text is for the user."""


def _command(entry: Entry) -> CommandFacts:
    place = f"{entry.function.__name__} at {entry.place}"
    return CommandFacts(entry.name, entry.timeout, place, entry.is_secret)


def own_files(error: BaseException | None = None) -> list[str]:
    """Return the files of all modules that are neither installed nor Python's or linepool's own.

    Args:
        error: Why some could not be loaded: those that it came from are returned too.
    """
    library, linepool = os.path.dirname(os.__file__), os.path.dirname(os.path.dirname(__file__))
    prefixes = (os.path.join(library, ""), os.path.join(linepool, ""))
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    files.update(_files_of(error))
    return sorted(
        file
        for file in files
        if isinstance(file, str) and not file.startswith(prefixes) and "-packages" not in file
    )


def _files_of(error: BaseException | None) -> Iterator[str]:
    """Yield the files that an error came from, and those of what was raised before it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, SyntaxError) and error.filename:
            yield error.filename
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if os.path.isabs(frame.f_code.co_filename):
                yield frame.f_code.co_filename
        error = error.__cause__ or error.__context__
