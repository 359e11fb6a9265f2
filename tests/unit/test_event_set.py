"""Events: one of a file that was closed is not taken for one of the file that has its number now."""

from __future__ import annotations

import os
import select

from linepool.kernel.event_set import EventSet


def test_an_event_of_a_closed_file_does_not_reach_the_one_that_has_its_number():
    events = EventSet()
    first, second = (os.eventfd(1) for _ in range(2))
    for descriptor in (first, second):
        events.register(descriptor, select.EPOLLIN)

    seen = []
    for descriptor, _ in events.wait(0):
        seen.append(descriptor)
        other = second if descriptor == first else first
        os.dup2(quiet := os.eventfd(0), other)  # closes it, and puts another file there
        os.close(quiet)
        events.register(other, select.EPOLLIN)

    assert len(seen) == 1
    assert list(events.wait(0)) == [(seen[0], select.EPOLLIN)]


def test_an_event_of_a_file_that_was_registered_meanwhile_is_reported_later():
    events = EventSet()
    first, late = (os.eventfd(1) for _ in range(2))
    events.register(first, select.EPOLLIN)

    for _ in events.wait(0):
        events.register(late, select.EPOLLIN)

    assert {descriptor for descriptor, _ in events.wait(0)} == {first, late}
