"""What each worker does now: ``linepool stacks`` and the command STACKS."""

from __future__ import annotations

import contextlib
import json
import signal
from pathlib import Path
from typing import Any

from linepool.operate import remote
from tests.conftest import Launch
from tests.process.test_control import linepool, talk
from tests.servers import ServerProcess, freeze

NO_ANSWER = "no answer: C code keeps the interpreter"


def stacks(server: ServerProcess, how: str = "quiet") -> dict[str | None, dict[str, Any]]:
    """Return what the workers do, by the command of the request in flight."""
    return {row["command"]: row for row in remote.stacks(server.control, how)}


def functions(row: dict[str, Any]) -> list[str]:
    """Return the names of the functions in a worker's stack, the most recent call first."""
    return [frame["function"] for frame in row["stack"]]


def test_the_stacks_of_all_workers_are_shown_without_interrupting_them(launch: Launch, fifo):
    server = launch("waits_in_c.py", "--workers", "3", "--request-timeout", "0")
    with contextlib.ExitStack() as stack:
        clients = []
        for request in (
            f"WAIT 100000 {fifo.path}",
            "HOLD 100000",
        ):  # one after the other: each in its own worker
            clients.append(stack.enter_context(server.connect()))
            clients[-1].send(f"{request}\n".encode())
            while request.split()[0] not in [row["command"] for row in server.status()["workers"]]:
                pass
        waits, holds = clients

        while (rows := stacks(server))["HOLD"]["stack"]:
            pass  # its handler is about to call C code
        assert list(rows["WAIT"]) == [
            *("slot", "pid", "state", "command", "for_s", "timeout_s", "stack", "no_stack")
        ]
        assert (rows["WAIT"]["state"], rows["WAIT"]["no_stack"]) == ("busy", None)
        assert functions(rows["WAIT"]) == ["wait"]
        assert rows["WAIT"]["stack"][0]["file"].endswith("waits_in_c.py")
        assert rows["WAIT"]["stack"][0]["line"] > 0
        assert 0 < rows["WAIT"]["for_s"] < 60
        assert (rows["HOLD"]["stack"], rows["HOLD"]["no_stack"]) == ([], NO_ANSWER)
        assert rows[None]["state"] == "idle"
        assert functions(rows[None])[-1] == "_serve"
        fifo.write()
        assert waits.line() == "1 not interrupted"

        rows = stacks(server, "signal")
        assert (functions(rows["HOLD"]), rows["HOLD"]["no_stack"]) == (["hold"], None)
        assert holds.line() == "-1 interrupted"


def test_people_see_a_line_per_worker_and_its_stack_below(launch: Launch, gate):
    server = launch("workshop.py", "--workers", "2", "--stopped-timeout", "0")
    with server.connect() as busy, talk(server) as peer:
        busy.send(b"HOLD it\n")
        gate.wait()
        held, idle = sorted(server.status()["workers"], key=lambda row: row["command"] is None)
        stopped = idle["pid"]
        freeze(stopped)

        lines = peer.ask_lines("STACKS")
        shown = linepool("stacks", "--control", server.control).stdout.splitlines()
        rows = json.loads(linepool("stacks", "--json", "--control", server.control).stdout)

        signal.pidfd_send_signal(server.watch()[stopped], signal.SIGCONT)
        gate.open()
        assert busy.line() == "it"
    assert _facts(lines) == _facts(shown)
    at = next(number for number, line in enumerate(lines) if "command=HOLD" in line)
    assert lines[at].startswith(f"worker slot={held['slot']} pid={held['pid']} state=busy ")
    assert 'common.py", line ' in lines[at + 1]
    assert f'{Path("workshop.py")}", line ' in lines[at + 2]
    assert lines[at + 2].endswith(", in hold")
    assert "    no answer: the process is stopped" in lines
    assert [row["slot"] for row in rows] == [0, 1]


def _facts(lines: list[str]) -> list[str]:
    """Return the lines of workers, without how long."""
    return [line.rpartition("=")[0] for line in lines if line.startswith("worker slot=")]
