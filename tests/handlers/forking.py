"""Handlers, hooks and a resource that fork, and report on what they have forked."""

from __future__ import annotations

import _thread
import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

import linepool

PLACES = os.environ.get("FORK_IN", "").split(",")


def square(number: int) -> int:
    """Be what children of a pool run."""
    return number * number


def wait() -> None:
    """Live until a signal ends this process."""
    while True:
        time.sleep(60)


def leave(way: str) -> str:
    """Leave the code of the app's in one of the ways there are."""
    if way == "raise":
        raise RuntimeError("in the child")
    if way == "exit":
        sys.exit(3)
    if way == "refuse":
        raise linepool.ClientError("in the child")
    if way == "overdue":
        raise linepool.RequestTimeout("in the child")
    return "child"


def split(way: str) -> str:
    """Fork; the child leaves, the parent returns its exit status."""
    pid = os.fork()
    if pid == 0:
        return leave(way)
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def note(text: str) -> None:
    """Append a line to the journal."""
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(f"{text}\n")


class Tool:
    """The value of the resource."""


@linepool.resource
def tool() -> Iterator[Tool]:
    """Fork when it is opened and when it is closed."""
    if "resource" in PLACES:
        note(f"opened {split('return')}")
    yield Tool()
    if "resource" in PLACES:
        note(f"closed {split('raise')}")


@linepool.on_worker_start
def start() -> None:
    """Fork in each worker."""
    if "start" in PLACES:
        note(f"start {split('return')} {split('raise')}")
    if "helper" in PLACES:
        multiprocessing.get_context("fork").Process(target=wait, daemon=True).start()
    if "program" in PLACES:
        subprocess.Popen(["sleep", "1000"])


@linepool.on_worker_exit
def leave_worker() -> None:
    """Fork in each worker that leaves."""
    if "exit" in PLACES:
        note(f"exit {split('return')} {split('exit')}")


@linepool.on_connect
def greet() -> None:
    """Fork for each new client."""
    if "connect" in PLACES:
        note(f"connect {split('return')} {split('raise')}")


@linepool.on_disconnect
def part() -> None:
    """Fork for each client that leaves."""
    if "disconnect" in PLACES:
        note(f"disconnect {split('return')} {split('raise')}")


@linepool.handler("SPLIT")
def split_here(way: str) -> str:
    """Fork in a plain handler."""
    return split(way)


@linepool.handler
def split_stream(way: str) -> Iterator[str]:
    """Fork between two parts of a reply."""
    yield "first"
    yield split(way)


@linepool.handler
def split_at_end() -> Iterator[str]:
    """Fork when the generator is closed before it is exhausted."""
    try:
        yield "only"
        raise linepool.ClientError(split("return"))
    finally:
        note(f"end {split('raise')}")


@linepool.handler
def pool(children: int) -> int:
    """Use a pool as the manual of multiprocessing shows it."""
    with multiprocessing.get_context("fork").Pool(children) as pool:
        return sum(pool.map(square, range(5)))


@linepool.handler
def start_process(method: str) -> int:
    """Start a process that lives on; return its pid."""
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=wait, daemon=True)
    process.start()
    return int(process.pid)


@linepool.handler
def executor(method: str) -> int:
    """Use an executor of processes."""
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        return sum(executor.map(square, range(5)))


@linepool.handler
def kept_executor(method: str) -> int:
    """Use an executor of processes that nobody shuts down."""
    context = multiprocessing.get_context(method)
    executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    return executor.submit(square, 3).result()


@linepool.handler
def run_process(method: str) -> str:
    """Run a process to its end, and terminate another one; return their exit statuses."""
    context: Any = multiprocessing.get_context(method)
    one, other = context.Process(target=square, args=(1,)), context.Process(target=wait)
    one.start()
    other.start()
    other.terminate()
    one.join()
    other.join()
    return f"{one.exitcode} {other.exitcode}"


@linepool.handler
def fork_in_thread() -> int:
    """Have another thread fork a process that lives on; return its pid."""
    pids: list[int] = []

    def work() -> None:
        pid = os.fork()
        if pid == 0:
            wait()
        pids.append(pid)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return pids[0]


@linepool.handler
def fork_with_exec() -> int:
    """Start a program with a function that runs in the child before it; return its pid."""
    return subprocess.Popen(["sleep", "1000"], preexec_fn=os.getpid).pid  # noqa: PLW1509 - it is the test


@linepool.handler
def detach() -> int:
    """Start a program in a session of its own; return its pid."""
    return subprocess.Popen(
        ["sleep", "1000"], start_new_session=True, stderr=subprocess.DEVNULL
    ).pid


@linepool.handler
def program() -> int:
    """Start a program that lives on; return its pid."""
    return subprocess.Popen(["sleep", "1000"]).pid


@linepool.handler
def end(pid: int) -> int:
    """Terminate a child; return its exit status."""
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@linepool.handler
def use_connection(connection: linepool.Connection) -> str:
    """Have a child push to the client and extend the request; return what it got."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection.extend(1000.0)
        try:
            connection.push("from the child")
        except OSError as error:
            os.write(writer, type(error).__name__.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as stream:
        return stream.read()


@linepool.handler
def ask_in_child() -> str:
    """Have a child call handlers as a test does; return what it got."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = linepool.App()
        other.handler(common.add)
        os.write(writer, other.ask(b"ADD 1 2\n"))
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader) as stream:
        return stream.readline().rstrip()


@linepool.handler
def fork_until_overdue() -> str:
    """Fork again and again, until RequestTimeout is raised."""
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


@linepool.handler
def blocked() -> str:
    """Return the mask of blocked signals of this thread."""
    lines = Path(f"/proc/self/task/{_thread.get_native_id()}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("SigBlk"))


@linepool.handler
def raise_hooks_error() -> str:
    """Fork with a hook that fails."""

    def fail() -> None:
        raise ValueError("in a hook")

    os.register_at_fork(before=fail, after_in_parent=fail, after_in_child=fail)
    return split("return")


@linepool.handler
def fail_to_fork() -> str:
    """Fork with no processes left; return the error."""
    import resource

    with contextlib.ExitStack() as undo:
        before = resource.getrlimit(resource.RLIMIT_NPROC)
        undo.callback(resource.setrlimit, resource.RLIMIT_NPROC, before)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, before[1]))
        try:
            return split("return")
        except OSError as error:
            return type(error).__name__


@linepool.handler
def wait_for_child() -> str:
    """Wait for any child, as a program does that has started some."""
    try:
        return f"child {os.wait()}"
    except ChildProcessError:
        return "there is none"
