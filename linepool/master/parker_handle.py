"""The master's end of the parker: it keeps one alive, and says which workers come and go.

Runs in the master, and in each new parker until that begins its work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linepool.facts import AppFacts
from linepool.ipc import channel as channels
from linepool.ipc.board import MasterView
from linepool.ipc.letters import packed
from linepool.ipc.messages import (
    Configured,
    ConnectionState,
    Message,
    PassedConnection,
    Stop,
    WorkerDied,
    WorkerStarted,
)
from linepool.kernel.listeners import Listener, listener_at
from linepool.kernel.pidfd import ChildProcess
from linepool.kernel.sealed_file import sealed_file
from linepool.kernel.sockets import (
    address_of_text,
    local_name,
    origin_of,
    peer_name,
    socket_cookie,
    unix_peer,
)
from linepool.kernel.title import set_title
from linepool.master.helper import Helper
from linepool.master.saved import Saved
from linepool.master.worker_handle import WorkerHandle
from linepool.parker.parker import Parker
from linepool.session import Session
from linepool.settings import Settings, as_texts

log = logging.getLogger("linepool")

_RETRY = 0.01  # seconds between two tries to send what the channel has no room for
_TELL_EVERY = 0.25  # seconds in which the parker has usually heard of a new worker


class ParkerHandle:
    """The parker, and the master's channel to it.

    Args:
        board: Where the parker publishes what it holds.
        app: What is known of the app.
        settings: All of them.
        listeners: The parker accepts from them.
        workers: Those that are alive, by slot.
        selector: The master's.
        close_inherited: Called in each new parker: closes its copies of what is the master's, except for the
            workers' channels.

    Attributes:
        dropped: How many connections ended with a parker that died.
        on_death: Called with how a parker has died.
    """

    def __init__(
        self,
        board: MasterView,
        app: AppFacts,
        settings: Settings,
        listeners: list[Listener],
        workers: Mapping[int, WorkerHandle],
        selector: selectors.BaseSelector,
        close_inherited: Callable[[], None],
    ) -> None:
        self.dropped = 0
        self.on_death: Callable[[str], object] = str
        self._board = board
        self._settings = settings
        self._listeners = listeners
        self._workers = workers
        self._close_inherited = close_inherited
        self._messages: deque[Message] = deque()  # that the parker has not taken yet
        # When to tell it of workers again, by slot; it has not heard of these.
        self._unheard: dict[int, float] = {}
        self._stopping = False
        self._adopted = 0  # connections
        self._pid = os.getpid()
        self._app = app
        self._helper = Helper(
            "parker",
            selector,
            self._leave_master,
            self._park,
            self._board.parker_starts,
            self._on_end,
        )

    def handed_over(self) -> tuple[dict[str, Any], list[int]]:
        """Return what another program needs to take it over, for JSON, and descriptors; it keeps them.

        Pre-condition: ``is_quiet``.
        """
        facts, descriptors = self._helper.handed_over()
        return {**facts, "dropped": self.dropped, "adopted": self._adopted}, descriptors

    def take_over(self, facts: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Go on with the parker that another program has handed over, if it had one.

        Pre-condition: the workers are known.

        Raises:
            ValueError, OSError: As ``Helper.take_over``.
        """
        self._helper.take_over(facts, descriptors)
        self.dropped, self._adopted = facts["dropped"], facts["adopted"]
        self._unheard = dict.fromkeys(self._workers, 0.0)

    @property
    def is_quiet(self) -> bool:
        """Whether the parker has taken all that it was sent."""
        return not self._messages

    @property
    def due_at(self) -> float:
        """When there is something to do, on the monotonic clock."""
        if self._helper.channel is None:
            return self._helper.start_at
        if self._messages:
            return time.monotonic() + _RETRY
        return min(self._unheard.values(), default=math.inf)

    @property
    def processes(self) -> list[ChildProcess]:
        """The parker's process, if there is one."""
        return [self._helper.process] if self._helper.process is not None else []

    def kill_any(self, stopped: list[ChildProcess]) -> None:
        """Kill the parker if it is among the processes that have been stopped for too long."""
        for process in self.processes:
            if process in stopped:
                log.error("parker killed pid=%d why=stopped", process.pid)
                process.send(signal.SIGKILL)

    def turn(self) -> None:
        """Fork a parker if it is time to, and send what it has not taken yet."""
        self._helper.turn()
        if self._unheard:
            self._tell_of_workers(time.monotonic())
        channel = self._helper.channel
        while self._messages and channel and channels.send(channel, self._messages[0]):
            channels.close_descriptor(self._messages.popleft())

    def configure(
        self, facts: AppFacts, settings: Settings, opened: Sequence[Listener] = ()
    ) -> None:
        """Tell the parker of another generation.

        Args:
            facts: What is known of its app.
            settings: All of them.
            opened: The listeners that are new.
        """
        self._app, self._settings = facts, settings
        if self._helper.channel is None:
            return  # the next parker begins with these
        parts, descriptors = packed({one.name: one.handed_over() for one in opened})
        data = {"app": facts.as_json(), "settings": as_texts(settings), "listeners": parts}
        try:
            file = sealed_file(json.dumps(data).encode())
            copies = [os.dup(number) for number in descriptors]
        except OSError as error:
            log.error("the parker keeps old settings: %s", error.strerror)  # noqa: TRY400
        else:
            self._send(Configured([file, *copies]))

    def worker_started(self, slot: int) -> None:
        """Tell the parker of a new worker."""
        self._unheard[slot] = 0.0
        self.turn()

    def _tell_of_workers(self, now: float) -> None:
        """Tell the parker of the workers that it has not heard of.

        Again and again, because a channel is lost if either process has no descriptor left for it. A new
        worker's is sent after all other messages, however many wait: if it ends before the parker has read
        them, what it has handed off is in its channel only. One that is dead is among them until the parker
        is told so, which its connections are given to before.
        """
        self._unheard = {
            slot: tell_at
            for slot, tell_at in self._unheard.items()
            if slot in self._workers and not self._has_heard(slot)
        }
        if self._helper.channel is None:
            return  # the next parker is given all channels
        for slot, tell_at in self._unheard.items():
            if now >= tell_at and not (tell_at and self._messages):
                self._unheard[slot] = now + _TELL_EVERY
                with contextlib.suppress(OSError):  # there is none left here
                    channel = os.dup(self._workers[slot].channel.fileno())
                    self._messages.append(WorkerStarted(slot, channel))

    def _has_heard(self, slot: int) -> bool:
        return self._board.slot(slot).is_heard(socket_cookie(self._workers[slot].channel))

    def worker_died(self, slot: int, begun_with: int, *, was_busy: bool) -> None:
        """Tell the parker that a worker is dead.

        Args:
            slot: The worker's.
            begun_with: The number of the last connection that it had begun to serve.
            was_busy: It was at work when it died.
        """
        self._unheard.pop(slot, None)
        if self._helper.channel is not None:
            self._send(WorkerDied(slot, begun_with, was_busy))

    def adopt(self, saved: Saved) -> None:
        """Give the parker a connection whose worker has died while it did not serve it.

        Pre-condition: it was told that the worker is dead. So it knows what that had passed to it.
        """
        sock, known, since = saved.sock, saved.known, time.monotonic()
        self._adopted += 1
        local = local_name(sock)
        listener = listener_at(local, self._listeners)
        if saved.is_new:
            if listener is None:  # a handler has it for something else
                sock.close()
            else:
                state = ConnectionState(channels.NEW, since, since, b"")
                self._send(PassedConnection(state, sock.detach()))
            return
        name = listener.name if listener else local
        id, origin = f"{self._pid}-{self._adopted}", 0
        if known is not None:
            session = known
            session.id, session.listener = id, name
            origin = origin_of(address_of_text(known.peer))
        else:
            credentials = None
            if sock.family == socket.AF_UNIX:
                credentials = unix_peer(sock.fileno()).credentials
            session = Session(id, peer_name(sock), name, credentials)
            with contextlib.suppress(OSError):  # the client is gone
                origin = origin_of(sock.getpeername())
        idle_timeout = self._settings.of_listener(listener.key if listener else "").idle_timeout
        state = channels.first_state(session, channels.SERVED, since, idle_timeout, origin)
        self._send(PassedConnection(state, sock.detach()))

    def stop(self, *, graceful: bool) -> None:
        """Have the parker end: when no client has anything more to say, or at once."""
        self._stopping = True
        self._helper.keep_no_more()
        if self._helper.channel is None:
            self._board.parker_ended()
        elif graceful:
            self._send(Stop())
        else:
            self._helper.kill()

    def close(self) -> None:
        """End the parker and close everything, in the master."""
        self._stopping = True
        self._helper.close()
        self._drop_messages()

    def abandon(self) -> None:
        """Close this process's copies of everything, also in a new worker."""
        self._helper.abandon()
        self._drop_messages()

    def _send(self, message: Message) -> None:
        self._messages.append(message)
        self.turn()

    def _drop_messages(self) -> None:
        """Close this process's copies of what the parker has not taken yet."""
        while self._messages:
            channels.close_descriptor(self._messages.popleft())

    def _on_end(self, how: str) -> bool:
        """Keep what the next parker must take over; return whether there is to be one."""
        lost = self._board.parker_ended()
        for message in self._messages:
            if not isinstance(message, PassedConnection):
                channels.close_descriptor(message)
        self._messages = deque(
            message for message in self._messages if isinstance(message, PassedConnection)
        )
        if self._stopping:
            for worker in self._workers.values():
                worker.wake()
            return False
        self.dropped += lost
        log.error("parker died %s connections=%d; starting another one", how, lost)
        self.on_death(how)
        return True

    def _leave_master(self) -> None:
        self._close_inherited()
        self._drop_messages()

    def _park(self, hub: socket.socket) -> None:
        set_title("parker", self._app.name)
        workers = {slot: worker.channel for slot, worker in self._workers.items()}
        Parker(self._board.page, hub, workers, self._listeners, self._settings, self._app).run()
