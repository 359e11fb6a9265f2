"""Handlers that wait in C, with the interpreter free and with it held."""

import ctypes

import linepool

_free, _held = ctypes.CDLL(None, use_errno=True), ctypes.PyDLL(None)


def _said(result: int) -> str:
    return f"{result} {'interrupted' if result else 'not interrupted'}"


@linepool.handler
def wait(milliseconds: int) -> str:
    """Wait in poll(2), which a signal ends with an error; say what it returned."""
    return _said(_free.poll(None, 0, milliseconds))


@linepool.handler
def hold(milliseconds: int) -> str:
    """Do the same without letting other threads run."""
    return _said(_held.poll(None, 0, milliseconds))
