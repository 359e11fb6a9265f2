"""What is known of a reload that is under way. Used by the master."""

from __future__ import annotations

from enum import Enum

from attrs import Factory, define

from linepool.kernel.listeners import Listener
from linepool.master.generation import Generation
from linepool.master.loader_handle import LoaderHandle
from linepool.master.outcome import Answer


class Phase(Enum):
    """How far it is."""

    IDLE, LOADING, TRYING, ROLLING = range(4)


@define
class Run:
    """A reload that is under way.

    Attributes:
        began_at: On the monotonic clock.
        new: The new generation, once it is loaded.
        old: The one before it.
        listeners: Those of the new generation.
        before: Those of the old one.
        changed: The files because of which it was begun; empty: it was ordered.
        size: How many workers there are to be.
        failure: Why the old generation comes back; "": it does not.
        told_at: When all workers were replaced, and the last old one was told to leave; 0.0: not yet.
    """

    began_at: float
    answers: list[Answer]
    loader: LoaderHandle
    old: Generation
    before: list[Listener]
    changed: set[str]
    new: Generation | None = None
    listeners: list[Listener] = Factory(list)
    size: int = 0
    failure: str = ""
    told_at: float = 0.0
