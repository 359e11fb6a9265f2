"""The board: a shared page on which workers and parker publish what they are doing.

Each worker has a slot, written as aligned 64-bit words without a system call, and read by the other
processes on their own clocks; the head is the parker's and the master's. Each role has a view with
verbs; the numbers of the words are known in this folder only.
"""

from linepool.ipc.board.bans import Bans
from linepool.ipc.board.layout import layout_hash
from linepool.ipc.board.master import MasterSlot, MasterView, Movable, SlotSnapshot
from linepool.ipc.board.page import Board
from linepool.ipc.board.parker import ParkerSlot, ParkerView
from linepool.ipc.board.words import BOUND, MAX_BANS, SEALED, Order
from linepool.ipc.board.worker import Sibling, WorkerView

__all__ = [
    "BOUND",
    "MAX_BANS",
    "SEALED",
    "Bans",
    "Board",
    "MasterSlot",
    "MasterView",
    "Movable",
    "Order",
    "ParkerSlot",
    "ParkerView",
    "Sibling",
    "SlotSnapshot",
    "WorkerView",
    "layout_hash",
]
