"""The access log's line for a request that has ended with its worker. Runs in the loader."""

from __future__ import annotations

import logging
from typing import Any

from linepool.failures import DIED, KILLED
from linepool.loader.image import Image
from linepool.session import Session
from linepool.worker.access_lines import AccessLines, Done

log = logging.getLogger("linepool")


def write(image: Image, facts: dict[str, Any]) -> None:
    """Write the line that the master orders; see ``master.unfinished``."""
    if image.access is None:
        return
    app, colon, command = facts["command"].partition(":")  # the app's name if there are several
    if not colon or app not in image.services or len(image.services) == 1:
        app, command = image.apps.first.name, facts["command"]
    lines = AccessLines(image.services[app], image.settings.access_log_format, facts["pid"])
    line = lines.line(
        Done(
            session=Session(peer=facts["client"]),
            command=command,
            line=facts["line"].encode("latin-1"),
            request=None,
            began_ns=facts["began_ns"],
            ended_ns=facts["ended_ns"],
            waited_ns=None,
            bytes_in=None,
            bytes_out=None,
            result=KILLED if facts["killed"] else DIED,
        )
    )
    if image.access.write(f"{line}\n".encode("utf-8", "replace")):
        log.warning("access log lines dropped why=%r", image.access.trouble)
