"""The master's end of a helper process."""

from __future__ import annotations

import selectors

from linepool.ipc import channel as channels
from linepool.ipc.messages import WakeUp
from linepool.master.helper import Helper


def _nothing(*_: object) -> None:
    """Do nothing."""


def test_wake_ups_that_have_come_together_end_one_sleep_of_the_master_and_not_one_each():
    with selectors.DefaultSelector() as selector:
        helper = Helper("parker", selector, _nothing, _nothing, _nothing, bool)
        ours, theirs = channels.pair()
        with ours, theirs:
            helper.channel = ours
            selector.register(ours, selectors.EVENT_READ)
            for _ in range(100):
                assert channels.send(theirs, WakeUp())

            helper._hear()

            assert not selector.select(0)
