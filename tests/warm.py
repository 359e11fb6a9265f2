"""Servers forked from a process that has imported linepool, which saves most of their start.

Run as a program, this is that process: the template. It has one thread and no signal handlers, and waits
for orders. A fork of it becomes what ``python -P -m linepool run ...`` is after its imports: a process with
arguments, environment, directory and standard streams of its own.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from linepool import core

_templates: dict[str, Template] = {}
"""By the value of the variable that says which implementation runs."""
_DESCRIPTORS = 3
_ROOM = "-" * 300  # a title takes the place of the arguments, and those of a server are long


def start_warm(
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    stdout: int | IO[Any] = subprocess.DEVNULL,
) -> WarmProcess:
    """Start a server.

    Args:
        arguments: Of the interpreter, which comes first: ``-P -m linepool run ...``.
        directory: Its working directory.
        environment: Its environment.
        stdout: As in ``subprocess.Popen``.
    """
    pure = environment.get(core.VARIABLE, "")
    if pure not in _templates:
        _templates[pure] = Template(environment)
    return _templates[pure].start(arguments, directory, environment, stdout)


class Template:
    """The template, as a test sees it.

    Args:
        environment: Of the template: what the import of linepool reads must be as in its servers.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._replies = self._socket.makefile("rb")
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno()), _ROOM],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=dict(environment),
            )
        atexit.register(self.close)

    def start(
        self,
        arguments: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        stdout: int | IO[Any],
    ) -> WarmProcess:
        """Start a server; for the arguments, see ``start_warm``."""
        with open(os.devnull, "r+b", buffering=0) as null:
            errors, theirs = os.pipe()
            output = None
            descriptors = [null.fileno(), null.fileno(), theirs]
            closed = [theirs]
            if stdout == subprocess.PIPE:
                output, descriptors[1] = os.pipe()
                closed.append(descriptors[1])
            elif stdout != subprocess.DEVNULL:
                descriptors[1] = stdout if isinstance(stdout, int) else stdout.fileno()
            order = [list(arguments), str(directory), dict(environment)]
            pid = self._ask(order, descriptors)
            for number in closed:
                os.close(number)
        return WarmProcess(self, pid, errors, output)

    def reap(self, pid: int) -> int:
        """Return the exit status of a server that has ended."""
        return self._ask([pid])

    def _ask(self, order: Sequence[Any], descriptors: Sequence[int] = ()) -> int:
        text = json.dumps(order).encode() + b"\n"
        with self._lock:
            socket.send_fds(self._socket, [text[:1]], descriptors)
            self._socket.sendall(text[1:])
            return int(self._replies.readline())

    def close(self) -> None:
        """End it; its servers go on."""
        self._replies.close()
        self._socket.close()
        self._process.kill()  # the socket may live on in a fork of this process
        self._process.wait()


class WarmProcess:
    """A process that a template has started, as ``subprocess.Popen`` shows those that it starts."""

    def __init__(self, template: Template, pid: int, errors: int, output: int | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stderr: IO[bytes] | None = os.fdopen(errors, "rb")
        self.stdout: IO[bytes] | None = None if output is None else os.fdopen(output, "rb")
        self._template = template
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return its exit status; None: it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, and return its exit status."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Send it KILL."""
        self.send_signal(signal.SIGKILL)

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._pidfd], [], [], timeout)[0]:
            self.returncode = self._template.reap(self.pid)
            os.close(self._pidfd)
        return self.returncode


def _serve(orders: socket.socket) -> tuple[list[str], dict[str, str]]:
    """Obey orders until there are no more; return, in a fork, with its arguments and environment."""
    data = b""
    descriptors = array.array("i")
    while True:
        chunk, more, _, _ = socket.recv_fds(orders, 65536, _DESCRIPTORS)
        if not chunk:
            sys.exit()
        data += chunk
        descriptors.extend(more)
        if not data.endswith(b"\n"):
            continue
        order, data = json.loads(data), b""
        if len(order) == 1:
            answer = os.waitstatus_to_exitcode(os.waitpid(order[0], 0)[1])
        elif answer := os.fork():
            for number in descriptors:
                os.close(number)
            del descriptors[:]
        else:
            for number, given in enumerate(descriptors):
                os.dup2(given, number)
            for given in descriptors:
                os.close(given)
            os.chdir(order[1])
            return order[0], order[2]
        orders.sendall(b"%d\n" % answer)


def _become(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    """Run the module linepool, as ``python -P -m linepool`` does."""
    from linepool.kernel import program

    os.environ.clear()
    os.environ.update(environment)
    program._environment = environment.copy  # what the kernel shows is the template's
    sys.orig_argv = arguments
    sys.argv = arguments[arguments.index("-m") :]
    del sys.argv[1]
    runpy.run_module("linepool", run_name="__main__", alter_sys=True)
    raise AssertionError("it always exits")


def _main() -> None:
    import linepool.operate.run_command  # noqa: F401 - with all that the command needs

    with socket.socket(fileno=int(sys.argv[1])) as orders:
        result = _serve(orders)
    _become(*result)


if __name__ == "__main__":
    _main()
