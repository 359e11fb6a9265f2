"""RequestTimeout at random moments is raised only in handlers; each request gets one reply."""

import gc
import random
import signal

import pytest

from linepool import App, RequestTimeout, Session, core

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from linepool.worker.interrupts import RAISE
from tests.unit.core_twins import Twin

STRIKES = 2000  # those that raise it
AT_ONCE = 500  # requests
TIMEOUT = b"SERVER_ERROR the request took longer than 30 s"


def make_app(caught: list[int]) -> App:
    app = App()

    @app.handler
    def work(number: int) -> int:
        for _ in range(number % 200):
            pass
        return number

    @app.handler
    def careful(number: int) -> int:
        try:
            for _ in range(number % 200):
                pass
        except RequestTimeout:
            caught.append(number)
        return number

    @app.handler
    def count(number: int, session: Session) -> int:
        session["n"] = number
        return number

    @app.handler
    def sorted_(number: int, *others: int) -> int:
        return sorted([number, *others])[-1]

    @app.handler
    def text(number: int) -> object:
        return bytearray(b"%d" % number)

    return app


class Striker:
    """Says at random moments that the present request is overdue."""

    def __init__(self, twin: Twin, choose: random.Random) -> None:
        self.raised = 0
        self._is_over = False
        self._choose = choose
        self._interrupts = twin.interrupts
        layout = twin.context.board.layout
        self._words, numbers = layout.words, layout.numbers
        self._serial, self._overdue = numbers["SERIAL"], numbers["OVERDUE"]

    def __enter__(self) -> "Striker":
        gc.disable()  # what is raised in a callback of the collector, such as hypothesis', is lost
        self._before = signal.signal(signal.SIGALRM, self._strike)
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        gc.enable()

    def _wait(self) -> None:
        if not self._is_over:
            signal.setitimer(signal.ITIMER_REAL, self._choose.uniform(1e-6, 1e-4))

    def _strike(self, _number, frame) -> None:
        try:
            self._words[self._overdue] = self._words[self._serial]
            self._interrupts._on_raise(RAISE, frame)
        except RequestTimeout:
            self.raised += 1
            raise
        finally:
            self._wait()


def test_a_request_that_is_overdue_at_any_moment_gets_one_reply():
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    caught: list[int] = []
    twin = Twin(make_app(caught), compiled=True)
    twin.connect()
    verbs = [b"WORK", b"CAREFUL", b"COUNT", b"SORTED", b"TEXT"]
    done = timeouts = 0
    with Striker(twin, choose) as striker:
        while striker.raised < STRIKES:
            numbers = choose.choices(range(1000), k=AT_ONCE)
            lines = [b"%b %d\n" % (choose.choice(verbs), number) for number in numbers]
            seen = twin.send(b"".join(lines))
            replies = seen.replies.splitlines()
            assert len(replies) == AT_ONCE, f"{seed=}"
            for number, reply in zip(numbers, replies, strict=True):
                assert reply in (b"%d" % number, TIMEOUT), f"{seed=}"
            done += AT_ONCE
            timeouts += replies.count(TIMEOUT)
            assert not seen.words["in flight"]
            assert seen.words["REQUESTS"] == done
            assert seen.words["TIMEOUTS"] == timeouts
    assert timeouts + len(caught) == striker.raised
    twin.close()
