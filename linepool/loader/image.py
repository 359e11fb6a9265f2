"""What workers are forked from, and what the master is told of it. Made in the loader."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from linepool.apps import Apps
from linepool.errors import TOO_MANY, TOO_MANY_FROM_ONE, TOO_MANY_UNFINISHED
from linepool.facts import Answers, AppFacts, CommandFacts
from linepool.kernel.rlimit import open_files
from linepool.service import Entry, Service
from linepool.settings import Settings, as_texts
from linepool.worker.observer import Output

if TYPE_CHECKING:
    import ssl


@frozen
class Image:
    """The apps that have been loaded, with their settings.

    Attributes:
        services: Each app, made ready to serve, by its name; in the order of the apps.
        access: Where the access log goes; None: it is off.
        tls: With which TLS handshakes begin: those of the server, under "", and of listeners with tables, by
            their keys.
    """

    apps: Apps
    services: Mapping[str, Service]
    settings: Settings
    access: Output | None = None
    tls: Mapping[str, ssl.SSLContext] = field(factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what the master is told."""
        services = self.services.values()
        answers = {name: _answers(service) for name, service in self.services.items()}
        facts = AppFacts(
            name=self.apps.name,
            commands=tuple(_command(one) for service in services for one in service.entries),
            log_lines=self.first.log_lines,
            publishes=any(
                service.protocol.publishes or (not self.settings.has_parker and service.has_waits)
                for service in services
            ),
            answers=answers[self.apps.first.name],
            answers_of=answers,
            has_disconnect_hook=any(service.on_disconnect for service in services),
            files=tuple(own_files()),
            opened=open_files(),
            observed=self.apps.observed,
        )
        return {"facts": facts.as_json(), "settings": as_texts(self.settings)}

    @property
    def first(self) -> Service:
        """The first app."""
        return self.services[self.apps.first.name]


Load = Callable[[], Image]
"""Loads an app; raises SetupError, whose text is for the user."""


def _answers(service: Service) -> Answers:
    reasons = (TOO_MANY, TOO_MANY_FROM_ONE, TOO_MANY_UNFINISHED)
    return Answers({why: service.refusal(why) for why in reasons}, service.greets)


def _command(entry: Entry) -> CommandFacts:
    place = f"{entry.function.__name__} at {entry.place}"
    return CommandFacts(entry.shown, entry.timeout, place, entry.is_secret)


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
