"""The setting reload: changed files are served soon, on the connections that there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool.testing import Peer
from tests.servers import Gate, ServerProcess

APP = """\
import os
import linepool
from values import VALUE

@linepool.handler
def get() -> str:
    return f"{VALUE} {WORD}"

@linepool.handler
def wait() -> None:
    with open(os.environ["GATE"] + ".bell", "w") as bell:
        bell.write(f"{os.getpid()} ")
    open(os.environ["GATE"]).read(1)

WORD = "one"
"""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


def until(server: ServerProcess, peer: Peer, reply: str) -> str:
    """Wait for a reload, and ask until the new code answers; return the line of the log."""
    line = server.wait_for("reloaded changed=")
    while (got := peer.ask("GET")) != reply:
        assert got.startswith("value"), got  # no connection ends, no request fails
    return line


def edit(directory: Path, word: str) -> None:
    """Write an app that answers with a word."""
    (directory / "app.py").write_text(APP.replace('"one"', f'"{word}"'))


def test_changes_are_served_on_the_same_connection(tmp_path: Path, gate: Gate) -> None:
    edit(tmp_path, "one")
    values = tmp_path / "values.py"
    values.write_text('VALUE = "value1"\n')
    with (
        ServerProcess(tmp_path, "app.py", "--reload", "--workers", "2", gate=gate) as server,
        server.connect() as peer,
        server.connect() as stuck,
        server.connect() as later,
    ):
        assert peer.ask("GET") == "value1 one"
        # The compiled file that the server has written is taken for that of the new source.
        assert list(tmp_path.glob("__pycache__/values*.pyc"))
        before = values.stat()
        values.write_text('VALUE = "value2"\n')
        os.utime(values, ns=(before.st_atime_ns, before.st_mtime_ns))
        # Writing and setting the time may be seen as two changes.
        assert "changed=values.py generation " in until(server, peer, "value2 one")
        for number in range(3):  # the workers of stuck requests delay none of them
            if number < 2:
                [stuck, later][number].send(b"WAIT\n")
                gate.wait()
            edit(tmp_path, f"edit {number}")
            until(server, peer, f"value2 edit {number}")
        assert stuck.line().startswith("SERVER_ERROR")
        gate.open()
        assert later.line() == "OK"
        (tmp_path / "app.py").write_text(APP.replace("WORD =", "wait()\nWORD ="))
        gate.wait()  # in the load, which begins anew
        edit(tmp_path, "last")
        assert "changed=app.py generation " in until(server, peer, "value2 last")
        assert server.stop() == 0, server.text
        assert "reload failed" not in server.text  # no other one was under way


def test_broken_code_can_be_mended_and_new_files_are_watched(tmp_path: Path) -> None:
    app, parts, data = tmp_path / "app.py", tmp_path / "parts", tmp_path / "data" / "deep"
    edit(tmp_path, "one")
    (tmp_path / "values.py").write_text('VALUE = "value"\n')
    with (
        ServerProcess(
            tmp_path, "app.py", "--reload", "--reload-include", "data/**/*.txt"
        ) as server,
        server.connect() as peer,
    ):
        app.write_text("import linepool\n\ndef broken(:\n")
        line = server.wait_for("reload failed")
        assert "generation 1 stays: changed=app.py cannot load" in line
        assert f"SyntaxError: invalid syntax ({app}, line 3)" in line
        assert peer.ask("GET") == "value one"
        new = tmp_path / "new file"
        new.write_text(APP.replace('"one"', '"renamed"'))
        new.rename(app)  # as editors do
        until(server, peer, "value renamed")

        app.write_text(APP.replace('WORD = "one"', "from parts.word import WORD"))
        assert "No module named 'parts'" in server.wait_for("reload failed")
        parts.mkdir()
        (parts / "word.py").write_text('WORD = "part"\n')
        (parts / "__init__.py").touch()
        until(server, peer, "value part")
        (parts / "word.py").write_text('WORD = "another part"\n')
        until(server, peer, "value another part")

        (tmp_path / "linepool.toml").write_text("idle_timeout = 77\n")
        server.wait_for("reloaded changed=linepool.toml")
        data.mkdir(parents=True)
        (data / "text.txt").touch()
        server.wait_for("reloaded changed=data/deep/text.txt")
        (data / "other").touch()
        (tmp_path / "values.sqlite").touch()
        server.log.clear()
        for number in range(20):
            edit(tmp_path, f"edit {number}")
        until(server, peer, "value edit 19")
        assert server.stop() == 0, server.text
        loads = [line for line in server.log if "reloaded changed=app.py" in line]
        assert 1 <= len(loads) <= 4
        quiet = ("scaling pool", "stopping", "listeners closed")
        others = set(server.log) - set(loads)
        assert all(any(text in line for text in quiet) for line in others), server.text


def test_a_script_reloads_what_it_has_imported(tmp_path: Path) -> None:
    values = tmp_path / "values.py"
    values.write_text('VALUE = "value1"\n')
    script = tmp_path / "script.py"
    script.write_text(
        "import linepool\nfrom values import VALUE\n"
        "@linepool.handler\ndef get() -> str:\n    return VALUE\n"
        "if __name__ == '__main__':\n    linepool.run(reload=True)\n"
    )
    with (
        ServerProcess(tmp_path, script, command=()) as server,
        server.connect() as peer,
    ):
        before = values.stat()
        assert list(tmp_path.glob("__pycache__/values*.pyc"))
        values.write_text('VALUE = "value2"\n')
        os.utime(values, ns=(before.st_atime_ns, before.st_mtime_ns))
        until(server, peer, "value2")
        # The master has ended: so does the watcher, which has its log.
        server.watch()
        server.process.kill()
        for _ in server.lines():
            pass
