"""Two apps for one pool: the shop itself, and its administration, which speaks another protocol."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import linepool
from linepool import Session

main = linepool.App(bind="127.0.0.1:0", max_line_bytes=64)
admin = linepool.App(bind="127.0.0.1:0", protocol=linepool.Resp())


class Stock(dict[str, int]):
    """What there is."""


@main.resource
def stock() -> Iterator[Stock]:
    yield Stock()


@main.handler
def put(key: str, number: int, stock: Stock) -> int:
    stock[key] = number
    return len(stock)


@main.handler
def where(session: Session) -> str:
    return f"{os.getpid()} {session.listener}"


@main.handler
def whoami(session: Session) -> str:
    return f"{session.pid} {session.uid} {session.gid}"


class Journal(list[str]):
    """What the administration keeps."""


@admin.resource
def journal() -> Iterator[Journal]:
    yield Journal()


@admin.handler
def put_(line: str, journal: Journal) -> int:
    journal.append(line)
    return len(journal)


@admin.handler
def pid() -> int:
    return os.getpid()


@main.handler
@admin.handler
def crash() -> None:
    os._exit(1)


@main.handler("HANG", timeout=0.2)
@admin.handler("HANG", timeout=0.2)
def hang() -> None:
    while True:
        try:
            time.sleep(10)
        except linepool.RequestTimeout:
            continue
