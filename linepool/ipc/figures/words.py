"""Where the words of a row are. Imported by what writes and reads rows only."""

from __future__ import annotations

import mmap
import struct

from linepool.ipc.figures.buckets import BUCKETS
from linepool.settings import MAX_WORKERS

WORD = 8  # bytes

# A block is of one command. The count of its requests is the sum of its buckets, so the two cannot differ.
SUM_NS = 0
CLIENT_ERRORS = 1
SERVER_ERRORS = 2
TIMEOUTS = 3
KILLED = 4  # written by the master
DIED = 5  # likewise
DISCONNECTED = 6
FIRST_BUCKET = 8
BLOCK_WORDS = FIRST_BUCKET + BUCKETS
BLOCKS = 512

# The blocks that are not of one command.
OTHER = 0  # of all commands for which there is no block left
UNKNOWN = 1  # of requests whose command there is not
MALFORMED = 2  # of bytes that are no request
QUEUE = 3  # how long requests have waited for a worker
FIRST_COMMAND = 4
QUEUE_OFFSET = QUEUE * BLOCK_WORDS

# Behind the blocks of a row: its slowest requests.
# Of each: how long it took, when it began on the monotonic clock, its block, how it has ended, its client.
SLOW = struct.Struct("@QQII72s")
MOST_SLOW = 16

ROW_BYTES = BLOCKS * BLOCK_WORDS * WORD + -(-MOST_SLOW * SLOW.size // mmap.PAGESIZE) * mmap.PAGESIZE

# In the rest of the last page: a note to the master on the last request that had no time left.
# The number of such notes, the length of this one, and its checksum; then its bytes.
NOTE = struct.Struct("@QII")
NOTE_AT = BLOCKS * BLOCK_WORDS * WORD + MOST_SLOW * SLOW.size
MOST_NOTED = ROW_BYTES - NOTE_AT - NOTE.size
ROWS = MAX_WORKERS + 1  # the first is the master's

# Before the rows: the names of the commands, by their blocks; written by the master.
NAME_BYTES = 64
NAMES_BYTES = BLOCKS * NAME_BYTES
TOTAL_BYTES = NAMES_BYTES + ROWS * ROW_BYTES

RESULTS = ("ok", "client_error", "server_error", "timeout", "killed", "died", "disconnected")
"""How a request has ended, by the number of the word that counts it; the first is not counted."""
