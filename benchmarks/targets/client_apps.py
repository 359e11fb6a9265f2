"""The same command in two protocols, for the benchmark of clients."""

from __future__ import annotations

import linepool


def add(a: int, b: int) -> int:
    return a + b


line = linepool.App()
line.handler(add)
resp = linepool.App(protocol=linepool.Resp())
resp.handler(add)
