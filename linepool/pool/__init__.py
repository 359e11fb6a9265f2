"""The pool: what the master knows and decides. Pure: no I/O, no clock; ``now`` is an argument."""
