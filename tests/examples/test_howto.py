"""The pages in docs/howto: their form, and services before and after a migration."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from linepool.testing import Peer
from tests.examples.test_docs import blocks, code_spans, rows
from tests.servers import ENVIRONMENT, ROOT, TIMEOUT, run_server

HOWTO = ROOT / "docs" / "howto"
PAGES = {page.stem: page.read_text(encoding="utf-8") for page in sorted(HOWTO.glob("*.md"))}
INDEX = PAGES.pop("index")
MIGRATIONS = [name for name in PAGES if name.startswith("from-")]
FOREIGN = {
    *("docker logs", "docker stop", "systemctl status sums", "start operation timed out"),
    *("Read-only file system", "Connection refused", "connection refused", "Permission denied"),
    *("server returned HTTP status", "Address already in use", "certificate has expired"),
    *("unknown ca", "peer did not return a certificate"),
    # Texts of linepool that it puts together.
    *("stderr is not being read", "SERVER_ERROR internal error"),
}
"""What the system, OpenSSL and other programs say of a mistake."""
IDLE = re.compile(r"((?:IDLE_S|idle_timeout) ?= ?)30")


def code_of(page: str, kind: str, text: str) -> str:
    """Return the one block of a page that has a text."""
    (found,) = [code for code in blocks(PAGES[page], kind) if text in code]
    return str(found)


@pytest.mark.parametrize("name", PAGES)
def test_each_page_has_the_same_form(name):
    text = re.sub(r"^```.*?^```$", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^(#+) (.+)$", text, re.MULTILINE)
    assert [head for level, head in heads if level == "#"] == [heads[0][1]]
    parts = [head for level, head in heads if level == "##"]
    form = ["You need", "Steps", "What you see", "What goes wrong"]
    assert [part for part in parts if part in form] == form
    mistakes = rows(PAGES[name], "| you see | because | do |")
    assert len(mistakes) >= 3
    assert all(len(row) == 3 for row in mistakes)


def test_what_linepool_says_of_a_mistake_is_in_its_source():
    source = "".join(path.read_text() for path in (ROOT / "linepool").rglob("*.py"))
    said = [
        part.strip()
        for text in PAGES.values()
        for row in rows(text, "| you see | because | do |")
        for span in code_spans(row[0])
        for part in re.split(r"\.\.\.|: |=|, |'|\d+|\bN\b", span)
    ]
    phrases = {part for part in said if " " in part and not re.search(r"[/.]", part)} - FOREIGN
    assert len(phrases) > 10
    assert [phrase for phrase in phrases if phrase not in source] == []


def test_the_index_has_every_page_once():
    assert sorted(re.findall(r"\]\(([\w-]+)\.md\)", INDEX)) == sorted(PAGES)


# -- migrations


Serve = Callable[[Path, str], contextlib.AbstractContextManager[Peer]]


@contextlib.contextmanager
def before(directory: Path, code: str) -> Iterator[Peer]:
    """Run a script on a local address that no other test uses; give a client."""
    pid = os.getpid()
    host = f"127.{1 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"
    script = directory / "kv.py"
    script.write_text(code.replace("127.0.0.1", host), encoding="utf-8")
    with subprocess.Popen([sys.executable, script], env=ENVIRONMENT) as process:
        try:
            with connected(f"{host}:7000", process) as peer:
                yield peer
        finally:
            process.kill()


def connected(address: str, process: subprocess.Popen[bytes]) -> Peer:
    give_up_at = time.monotonic() + TIMEOUT
    while True:
        try:
            return Peer(address)
        except ConnectionRefusedError:  # it is starting
            assert process.poll() is None
            assert time.monotonic() < give_up_at
            time.sleep(0.01)


@contextlib.contextmanager
def after(directory: Path, code: str) -> Iterator[Peer]:
    """Serve an app; give a client."""
    app = directory / "kv.py"
    app.write_text(code, encoding="utf-8")
    with run_server(app, directory, "--workers", "2") as server, server.connect() as peer:
        yield peer


def until_its_end(peer: Peer) -> bytes:
    """Return what a server sends until it closes the connection; the client keeps its side open."""
    return b"".join(iter(lambda: peer.socket.recv(4096), b""))


def services() -> list[Any]:
    """Return each service before its migration, and once the service that all of them become."""
    codes = {code_of(page, "python", "linepool.App("): page for page in MIGRATIONS}
    (code,) = codes
    found = [(before, code_of(page, "python", "7000"), page) for page in MIGRATIONS]
    return [pytest.param(*one[:2], id=one[2]) for one in [*found, (after, code, "linepool")]]


@pytest.mark.parametrize(("serve", "code"), services())
def test_a_service_says_the_same_before_and_after_its_migration(
    tmp_path: Path, serve: Serve, code: str
):
    dialogues = {code_of(page, "", "kv ready") for page in MIGRATIONS}
    (dialogue,) = dialogues
    lines = dialogue.splitlines()
    with serve(tmp_path, code) as peer:
        asked = [line.removeprefix("> ") for line in lines if line.startswith("> ")]
        peer.send("".join(f"{line}\r\n" for line in asked).encode())
        assert until_its_end(peer).decode().split("\r\n") == [
            *(line for line in lines if not line.startswith("> ")),
            "",
        ]


@pytest.mark.parametrize(("serve", "code"), services())
def test_a_quiet_connection_is_closed_before_and_after_a_migration(
    tmp_path: Path, serve: Serve, code: str
):
    code, count = IDLE.subn(r"\g<1>0.1", code)
    assert count == 1
    with serve(tmp_path, code) as peer:
        assert until_its_end(peer) == b"kv ready\r\n"


def test_the_test_of_a_migrated_service_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spaces: dict[str, Any] = {}
    exec(code_of("from-asyncio", "python", "linepool.App("), spaces)
    for page in MIGRATIONS:
        test = code_of(page, "python", "def test_the_dialogue").replace("from kv import", "#")
        exec(test, spaces)
        spaces["test_the_dialogue"]()
