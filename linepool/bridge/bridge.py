"""The bridge's life: it passes messages between the bus of this machine and an engine, Valkey or Redis.

Runs in a process of its own, forked by the master, beside the workers; nobody waits for it. Delivery is at
most once: what is published while there is no engine stays on this machine.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import select
import socket
import time

from linepool.bridge.engine import Engine, Gone
from linepool.bridge.envelope import ID_BYTES, Numbers, engine_pattern, unwrapped, wrapped
from linepool.pubsub.bus import Bus

log = logging.getLogger("linepool")

_BATCH = 256  # messages
_LONGEST_SLEEP = 1.0  # seconds
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before the next attempt to connect
_LOG_EVERY = 10.0


class Losses:
    """Messages that did not arrive; a line of the log at most every ten seconds tells how many.

    Args:
        text: What is logged.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0
        self._log_at = 0.0

    def add(self, count: int) -> None:
        """Count messages."""
        self._count += count

    def turn(self) -> None:
        """Log what there is to log."""
        now = time.monotonic()
        if self._count and now >= self._log_at:
            log.warning("bridge: %s messages=%d", self._text, self._count)
            self._count, self._log_at = 0, now + _LOG_EVERY


class Bridge:
    """The bridge.

    Args:
        bus: Between the workers.
        url: Of the engine.
        shown: The URL for the log, without a password.
        app: The app's name: its machines share their messages.
    """

    def __init__(self, bus: Bus, url: str, shown: str, app: str) -> None:
        self._bus = bus
        self._end = bus.bridge_endpoint()
        self._url = url
        self._shown = shown
        self._prefix = f"linepool:{app}:".encode()
        self._machine = os.urandom(ID_BYTES)
        self._number = 0
        self._overflowed = bus.lost_abroad()
        self._numbers = Numbers()
        self._engine: Engine | None = None
        self._has_more = False  # messages perhaps that redis-py has read already
        self._is_told = False  # that there is no engine
        self._attempts = 0
        self._connect_at = 0.0
        self._lost = Losses("messages of this machine did not reach others")
        self._missed = Losses("messages of other machines were missed")

    def run(self, channel: socket.socket) -> None:
        """Pass messages until the master closes the channel."""
        while not self._is_over(channel):
            try:
                self._connect()
                self._send()
                self._has_more = False
                if self._engine:
                    count = 0
                    for name, data in self._engine.messages(_BATCH):
                        count += 1
                        self._receive(name, data)
                    self._has_more = count == _BATCH
                    self._engine.turn()
            except Gone as error:
                self._disconnect(error)
            self._count_overflow()
            self._lost.turn()
            self._missed.turn()

    def _is_over(self, channel: socket.socket) -> bool:
        """Sleep until something happens or is due; return whether the master has closed the channel."""
        poller = select.poll()  # descriptors have high numbers
        for one in (channel, self._end):
            poller.register(one, select.POLLIN)
        if self._engine:
            poller.register(self._engine.socket, select.POLLIN)
        return any(number == channel.fileno() for number, _ in poller.poll(self._sleep() * 1000))

    def _sleep(self) -> float:
        if self._has_more:
            return 0.0
        pause = _LONGEST_SLEEP if self._engine else self._connect_at - time.monotonic()
        return min(max(0.0, pause), _LONGEST_SLEEP)

    def _connect(self) -> None:
        if self._engine or time.monotonic() < self._connect_at:
            return
        self._engine = Engine(self._url, engine_pattern(self._prefix))
        self._attempts = 0
        self._is_told = False
        log.info("bridge: connected to %s", self._shown)

    def _disconnect(self, error: BaseException) -> None:
        if self._engine:
            self._engine.close()
            self._engine = None
        longest = min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(self._attempts, 10))
        self._attempts += 1
        self._connect_at = time.monotonic() + random.uniform(_SHORTEST_PAUSE, longest)  # noqa: S311
        if not self._is_told:
            self._is_told = True
            log.warning(
                "bridge: no connection to %s, messages stay on this machine: %s", self._shown, error
            )

    def _send(self) -> None:
        """Send what workers have published; without an engine it is lost for other machines."""
        batch = []
        for channel, data in itertools.islice(self._end.messages(), _BATCH):
            self._number += 1
            batch.append((self._prefix + channel, wrapped(self._machine, self._number, data)))
        if not batch:
            return
        try:
            if self._engine:
                self._engine.publish(batch)
        except Gone:
            self._lost.add(len(batch))
            raise
        if not self._engine:
            self._lost.add(len(batch))

    def _receive(self, name: bytes, data: bytes) -> None:
        found = unwrapped(data)
        if found is None or found[0] == self._machine:
            return
        machine, number, message = found
        self._missed.add(self._numbers.missed(machine, number))
        self._bus.deliver(name[len(self._prefix) :], message)

    def _count_overflow(self) -> None:
        """Count what did not fit into the queue; the numbers that others see have a hole there."""
        overflowed = self._bus.lost_abroad()
        self._number += overflowed - self._overflowed
        self._lost.add(overflowed - self._overflowed)
        self._overflowed = overflowed
