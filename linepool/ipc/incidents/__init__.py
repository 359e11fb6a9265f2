"""The last incidents of a server: workers that were killed or died, requests without time left, and the like.

They are in a ring in memory that processes share, or in a file that is mapped like such memory. The master
alone writes it; a number before and after each record keeps a reader from showing half of one.
"""

from linepool.ipc.incidents.memory import IncidentMemory
from linepool.ipc.incidents.reader import Reader
from linepool.ipc.incidents.words import HEAD, HEAD_BYTES, RECORDS, TOTAL_BYTES, head_of
from linepool.ipc.incidents.writer import Writer

__all__ = [
    "HEAD",
    "HEAD_BYTES",
    "RECORDS",
    "TOTAL_BYTES",
    "IncidentMemory",
    "Reader",
    "Writer",
    "head_of",
]
