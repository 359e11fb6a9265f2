"""Which requests a wake-up is for; and all interleavings of a small world, none of which loses one."""

from __future__ import annotations

import contextlib
import math
import random
import struct
from collections.abc import Callable
from functools import partial

import pytest

import linepool
from linepool.ipc.waiting import Waiting, Wakes, Why, parts_of, unpacked, unpacked_wakes
from linepool.parker.waiters import Waiters
from linepool.waiting import ALL


def waiting(*topics: str, version: int = 0, **more) -> Waiting:
    return Waiting([topic.encode() for topic in topics], version, **more)


def keys(woken):
    return [key for key, _ in woken]


def test_the_requests_that_wait_longest_are_woken_first():
    waiters = Waiters()
    for key in range(5):
        assert waiters.add(key, waiting("a" if key != 2 else "b"), 0)

    assert keys(waiters.wake(b"a", 2)) == [0, 1]
    assert keys(waiters.wake(b"a", ALL)) == [3, 4]
    assert keys(waiters.wake(b"a", 1)) == []
    assert len(waiters) == 1


def test_a_request_that_waits_again_keeps_its_place():
    waiters = Waiters()
    for key in range(3):
        waiters.add(key, waiting("a"), 0)
    ((_, woken),) = waiters.wake(b"a", 1)
    woken.version = waiters.version
    waiters.add(0, woken, 0)

    assert keys(waiters.wake(b"a", 1)) == [0]


def test_a_request_waits_for_several_topics_and_is_woken_once():
    waiters = Waiters()
    waiters.add("both", waiting("a", "b"), 0)
    waiters.add("a", waiting("a"), 0)
    ((key, woken),) = waiters.wake(b"b", ALL)
    assert (key, woken.topic, woken.why) == ("both", b"b", Why.WOKEN)

    assert keys(waiters.wake(b"a", ALL)) == ["a"]
    assert not waiters


def test_a_request_that_comes_after_a_wake_up_that_it_could_not_see_is_run_at_once():
    waiters = Waiters()
    before = waiters.version
    waiters.wake(b"a", 1)
    late = waiting("b", "a", version=before)

    assert not waiters.add("late", late, 0)
    assert (late.why, late.topic) == (Why.WOKEN, b"a")
    assert waiters.add("other", waiting("b", version=before), 0)
    assert waiters.add("seen", waiting("a", version=waiters.version), 0)


def test_what_another_parker_knew_counts_as_woken():
    waiters = Waiters(8)

    assert not waiters.add("old", waiting("a", version=7), 0)
    assert waiters.add("new", waiting("a", version=8), 0)


def test_one_that_leaves_is_not_woken_and_leaves_nothing_behind():
    waiters = Waiters()
    for key in range(1000):
        waiters.add(key, waiting("a", f"own {key}"), 0)
    for key in range(999):
        assert waiters.pop(key) is not None
        assert waiters.pop(key) is None

    assert len(waiters._lines[b"a"].entries) < 40
    assert keys(waiters.wake(b"a", 1)) == [999]
    assert not waiters._lines


def test_all_end_in_the_order_of_their_arrival():
    waiters = Waiters()
    for key in (5, 3, 9):
        waiters.add(key, waiting("a"), 0)

    assert keys(waiters.end(Why.STOPPING)) == [5, 3, 9]
    assert not waiters


def test_the_topics_with_most_requests_are_known():
    waiters = Waiters()
    for key in range(6):
        waiters.add(key, waiting("many" if key else "few", since=float(key)), 0)
    waiters.pop(1)

    shown = [(topic, count, first.since) for topic, count, first in waiters.longest(5)]
    assert shown == [(b"many", 4, 2.0), (b"few", 1, 0.0)]


def test_what_is_said_of_a_request_survives_the_channel():
    one = waiting("a", "", version=2**40, since=1.5, deadline=math.inf, times=3, ticket=2**50)
    one.settles, one.why, one.topic = 7, Why.EXPIRED, b"a"
    one.command, one.kept, one.reply = b"TAKE", b"\0kept", b"none\r\n"
    assert unpacked(one.packed()) == one

    wakes = Wakes({b"a": 1, b"": ALL}, [1, 2], [2**63 + 1])
    assert unpacked_wakes(wakes.packed()) == wakes


def test_long_messages_come_in_parts():
    topics = {b"%0160d" % number: number for number in range(1000)}
    parts = list(parts_of(Wakes(topics, [1], [2])))

    assert len(parts) > 5
    assert max(len(part.packed()) for part in parts) < 32768
    assert {t: n for part in parts for t, n in part.topics.items()} == topics
    assert [(part.settled, part.left) for part in parts] == [([1], [2])] + [([], [])] * (
        len(parts) - 1
    )


def test_nonsense_is_refused():
    source, good = (
        random.Random(1),
        [waiting("abc", "d").packed(), Wakes({b"abc": 1}, [1]).packed()],
    )
    for parse, data in zip((unpacked, unpacked_wakes), good, strict=True):
        for _ in range(2000):
            cut = bytearray(data[: source.randrange(len(data) + 1)])
            for _ in range(source.randrange(3)):
                if cut:
                    cut[source.randrange(len(cut))] = source.randrange(256)
            with contextlib.suppress(ValueError, struct.error):
                parse(bytes(cut))


# -- what a handler returns


@pytest.mark.parametrize(
    ("topics", "more", "says"),
    [
        ((), {}, "waits for 1 to 64 topics, not 0"),
        (range(65), {}, "waits for 1 to 64 topics, not 65"),
        (["a"], {"timeout": -1}, "a number of seconds from 0, or None, not -1"),
        (["a"], {"timeout": math.nan}, "not nan"),
        (["a"], {"timeout": math.inf}, "not inf"),
        (["a"], {"keep": b"x" * 5000}, "keeps 4096 bytes at most, not 5000"),
    ],
)
def test_a_wrong_wait_says_what_would_be_right(topics, more, says):
    with pytest.raises(ValueError, match=says):
        linepool.Wait(*map(str, topics), **more)


def test_topics_of_another_type_are_refused():
    with pytest.raises(TypeError):
        linepool.Wait(3)  # type: ignore[arg-type]


def test_long_topics_stay_apart():
    one, other = (linepool.Wait("x" * 500 + end).topics[0] for end in "ab")

    assert len(one) < 161
    assert one != other


# -- a small world: waiters look and wait, publishers commit and wake; every order of their steps


class World:
    """Items of one or two topics, workers that run requests, publishers, and the parker.

    Each step is atomic; between two steps of a process any other may take its own.

    Args:
        waits: For each request, the topics in which it looks for an item, in this order.
        puts: For each publisher, the topic that it adds an item to.
        dies: The request that is woken first dies with its worker before it has looked.
        passes_on: What a woken request has not used is passed on; false: to show that this is needed.
        reads_first: The number of the last wake-up is read before the look; likewise.
    """

    def __init__(self, waits, puts, *, dies=False, passes_on=True, reads_first=True):
        self.waits, self.puts, self.dies = waits, puts, dies
        self.passes_on, self.reads_first = passes_on, reads_first

    def run(self, choose: Callable[[int], int]) -> bool:
        """Run one schedule to its end; return whether an item lies there for which a request waits."""
        self.table, self.may_die = Waiters(), self.dies
        self.items: list[str] = []
        self.left = set(range(len(self.waits)))
        self.todo: list[Callable[[], None]] = [
            *(partial(self.look, number, None) for number in self.left),
            *(partial(self.commit, topic) for topic in self.puts),
        ]
        while self.todo:
            self.todo.pop(choose(len(self.todo)))()
        return any(topic in self.items for number in self.left for topic in self.waits[number])

    def commit(self, topic: str) -> None:
        self.items.append(topic)
        self.todo.append(partial(self.wake, topic))

    def wake(self, topic: str) -> None:
        for number, woken in self.table.wake(topic.encode(), 1):
            assert isinstance(number, int)
            self.todo.append(partial(self.look, number, woken))

    def look(self, number: int, woken: Waiting | None) -> None:
        """Begin to run a request: the number of the last wake-up is read."""
        if woken is not None and self.may_die:
            self.may_die = False
            self.left.discard(number)
            if self.passes_on:
                self.todo.append(partial(self.wake, woken.topic.decode()))
            return
        self.todo.append(partial(self.find, number, woken, self.table.version))

    def find(self, number: int, woken: Waiting | None, version: int) -> None:
        """Take an item and reply, or wait."""
        topics = self.waits[number]
        found = next((topic for topic in topics if topic in self.items), None)
        if found is None:
            self.todo.append(partial(self.wait, number, woken, version))
            return
        self.items.remove(found)
        self.left.discard(number)
        if woken is not None and self.passes_on and len(topics) > 1:
            self.todo.append(partial(self.wake, woken.topic.decode()))

    def wait(self, number: int, woken: Waiting | None, version: int) -> None:
        """The parker hears that a request waits."""
        if not self.reads_first:
            version = self.table.version
        again = waiting(*self.waits[number], version=version)
        again.ticket = woken.ticket if woken is not None else 0
        if not self.table.add(number, again, 0):
            self.todo.append(partial(self.look, number, again))


def schedules(world: World) -> tuple[int, int]:
    """Run all schedules of a world; return how many there are, and in how many a request is stuck."""
    count = stuck = 0
    path: list[list[int]] = []  # at each step, the choice and how many there were
    while True:
        at = 0

        def choose(options: int) -> int:
            nonlocal at  # of this turn of the loop
            if at == len(path):
                path.append([0, options])
            at += 1
            return path[at - 1][0]

        stuck += world.run(choose)
        count += 1
        del path[at:]
        while path and path[-1][0] == path[-1][1] - 1:
            path.pop()
        if not path:
            return count, stuck
        path[-1][0] += 1


WORLDS = {
    "two requests and two items": ([["a"], ["a"]], ["a", "a"], False),
    "one request, one item": ([["a"]], ["a"], False),
    "one of two requests dies when it is woken": ([["a"], ["a"]], ["a"], True),
    "two topics": ([["a", "b"], ["b"]], ["a", "b"], False),
}


@pytest.mark.parametrize("name", WORLDS)
def test_in_no_schedule_of_a_small_world_is_a_wake_up_lost(name):
    waits, puts, dies = WORLDS[name]
    count, stuck = schedules(World(waits, puts, dies=dies))

    assert count >= 6
    assert stuck == 0


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("one request, one item", {"reads_first": False}),
        ("one of two requests dies when it is woken", {"passes_on": False}),
        ("two topics", {"passes_on": False}),
    ],
)
def test_the_exploration_of_the_world_finds_each_fault(name, fault):
    waits, puts, dies = WORLDS[name]

    assert schedules(World(waits, puts, dies=dies, **fault))[1] > 0


def test_in_no_random_schedule_of_a_larger_world_is_one_lost():
    source = random.Random(3)
    for _ in range(3000):
        waits = [source.choice([["a"], ["b"], ["a", "b"], ["b", "a"]]) for _ in range(4)]
        puts = [source.choice("ab") for _ in range(4)]
        world = World(waits, puts, dies=source.random() < 0.3)
        assert not world.run(source.randrange)
