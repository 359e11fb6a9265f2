"""Figures of each command: how many requests, how they ended, and how long they took.

They are in memory that all processes share: a row for each slot, which its worker alone writes, and one
of the master's. A row is never cleared, for it belongs to the slot, not to the worker. So no count falls
when a worker dies, is recycled or replaced, and no process has to add anything up meanwhile.
"""

from linepool.ipc.figures.buckets import BOUNDS_NS, BUCKETS, DOUBLINGS, MIDDLES_NS, quantile_ns
from linepool.ipc.figures.memory import Figures
from linepool.ipc.figures.reader import CommandFigures, Reader, SlowRequest
from linepool.ipc.figures.row import KEPT_NS, Row, noted
from linepool.ipc.figures.words import MOST_NOTED, UNKNOWN

__all__ = [
    "BOUNDS_NS",
    "BUCKETS",
    "DOUBLINGS",
    "KEPT_NS",
    "MIDDLES_NS",
    "MOST_NOTED",
    "UNKNOWN",
    "CommandFigures",
    "Figures",
    "Reader",
    "Row",
    "SlowRequest",
    "noted",
    "quantile_ns",
]
