"""The numbers by which a worker's rounds and turns go, in the compiled core and in pure Python. Pure."""

READ, WRITE, AGAIN, CLOSED, HANDSHAKE, WAIT = range(6)
"""What a connection needs next; see ``worker/connection.py``."""

BATCH_BYTES = 65536
"""Of replies that wait for those behind them."""
BATCH_NS = 2_000_000
"""A reply does not wait longer for those behind it, nor do other connections."""

MOMENT_NS = 1_000_000
"""A worker that finds work within it was not idle."""
SLEPT_NS = 20_000
"""A wait for events that took longer was not for events that were there already."""
EVENTS_WHILE_OTHERS_WAIT = 4
"""A round is short while connections wait for an idle worker."""
WORTH_NS = 2_000_000
"""A client that would wait longer than this is handed off if a worker is idle. To pass it takes about 100
microseconds of processor time, in three processes."""
STARVING_NS = 1_000_000
"""After this long even a worker with enough to do asks for waiting connections."""
COMPARE_EVERY_NS = 5_000_000
"""Between two looks at the load of the workers."""
