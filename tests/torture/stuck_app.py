"""The app of torture_stuck.py: handlers that return, and one for each known way to hang.

A hanging function is not named like its command: a log that names the function has read the stack.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import re
import signal
import socket
import threading
import time

import linepool


@linepool.handler
def pid() -> int:
    """Return the worker's pid."""
    return os.getpid()


@linepool.handler
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@linepool.handler("SLEEP")
def wait_for_the_clock() -> None:
    """time.sleep(1000)"""
    time.sleep(1000)


@linepool.handler("SOCKET")
def wait_for_an_answer() -> None:
    """a socket that never answers"""
    ours, _theirs = socket.socketpair()
    ours.recv(1)


@linepool.handler("LOOP")
def run_in_circles() -> None:
    """while True: pass"""
    while True:
        pass


@linepool.handler("LOCK")
def wait_for_a_lock() -> None:
    """a lock that is never released"""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@linepool.handler("REGEX")
def backtrack_without_end() -> None:
    """a catastrophic regex"""
    re.match(r"(a+)+$", "a" * 60 + "b")


@linepool.handler("DEQUE")
def consume_without_end() -> None:
    """deque(repeat(0), maxlen=0)"""
    collections.deque(itertools.repeat(0), maxlen=0)


@linepool.handler("PBKDF2")
def hash_without_end() -> None:
    """pbkdf2_hmac, 2**31 - 1 rounds"""
    hashlib.pbkdf2_hmac("sha256", b"secret", b"salt", 2**31 - 1)


@linepool.handler("NOTERM")
def sleep_and_ignore_term() -> None:
    """SIGTERM ignored, then sleep"""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


@linepool.handler("STOPPED")
def stop_itself() -> None:
    """SIGSTOP to itself"""
    os.kill(os.getpid(), signal.SIGSTOP)


@linepool.handler("STUBBORN")
def swallow_every_exception() -> None:
    """except BaseException, sleep again"""
    while True:
        try:
            time.sleep(1000)
        except BaseException:  # noqa: BLE001 - the fault to test
            continue
