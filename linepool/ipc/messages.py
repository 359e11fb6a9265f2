"""The messages of a channel between a worker, the parker and the master; see ``channel``."""

from __future__ import annotations

from attrs import Factory, define

from linepool.ipc.waiting import Waiting, Wakes


@define
class ConnectionState:
    """What travels with a connection.

    Attributes:
        flags: What is known of it: a sum of the constants of ``channel``.
        deadline: When it is closed if nothing comes from the client; monotonic, in seconds.
        accepted_at: Likewise.
        data: Its session and its protocol, see ``channel.join_state``; only workers look into it.
        cookie: The socket's (SO_COOKIE); 0: not known yet.
        origin: Where the client comes from, as ``origin_of`` returns it.
        waiting: The requests that wait at it.
    """

    flags: int
    deadline: float
    accepted_at: float
    data: bytes = b""
    cookie: int = 0
    origin: int = 0
    waiting: list[Waiting] = Factory(list)


@define
class PassedConnection:
    """A connection; its descriptor comes with the message.

    Attributes:
        descriptor: The receiver owns it. -1: it is lost, because the receiving process had no
            descriptor left (recvmsg(2), MSG_CTRUNC).
        number: Counts the connections that the parker has given to a worker; 0: to the parker.
    """

    state: ConnectionState
    descriptor: int
    number: int = 0


@define
class WantsWork:
    """From a worker to the parker: it would take connections that wait."""


@define
class Returned:
    """From a worker to the parker: it cannot begin to serve the connection of that number."""

    number: int


@define
class WorkerStarted:
    """From the master to the parker: there is a new worker in a slot.

    Attributes:
        slot: Its slot.
        channel: A descriptor of the worker's channel, which the receiver owns; -1: it is lost.
    """

    slot: int
    channel: int


@define
class WorkerDied:
    """From the master to the parker: a worker is dead.

    Attributes:
        slot: Its slot.
        begun_with: The number of the last connection that it had begun to serve.
        was_busy: It was at work: what it has changed last may not have been told to anybody.
    """

    slot: int
    begun_with: int
    was_busy: bool = False


@define
class Waits:
    """From a worker to the parker: a request waits whose connection stays in the worker.

    Back from the parker to the worker: the request is to be run again.

    Attributes:
        number: The worker's for it. From the parker 0: for all of them, because it is a new parker.
        waiting: As ``Waiting.packed`` returns it.
    """

    number: int
    waiting: bytes


@define
class Stop:
    """From the master to the parker: end when no client has anything more to say."""


@define
class Configured:
    """From the master to the parker: what is known of another generation of the app, and its settings.

    Attributes:
        descriptors: Of a sealed file with JSON, and of the listeners that are new. The receiver owns them;
            none: they are lost.
    """

    descriptors: list[int]


@define
class Rejected:
    """A connection has come with something that is not valid; otherwise as ``PassedConnection``."""

    why: str
    descriptor: int = -1
    number: int = 0


@define
class WakeUp:
    """To any process: look at the board. What is malformed counts as one."""


Message = (
    PassedConnection
    | Waits
    | Wakes
    | WantsWork
    | Returned
    | WorkerStarted
    | WorkerDied
    | Stop
    | Configured
    | Rejected
    | WakeUp
)
