"""Two apps with the handlers of experiment_app.py: one serves lines, the other RESP."""

from __future__ import annotations

import experiment_app  # noqa: F401 - its handlers are those of the default app

import linepool
from linepool.app import default

lines = linepool.App("lines")
lines.include(default)
resp = linepool.App("resp", protocol=linepool.Resp())
resp.include(default)
