"""The line protocol in the compiled core does what it does in pure Python."""

import pytest

from linepool import App, Session, core

if not core.compiled:
    pytest.skip(f"there is no compiled core: {core.why_pure}", allow_module_level=True)

from tests.unit.core_twins import twins_of

DIALOGUES = [
    [b"ADD 1 2\n"],
    [b"ADD 1 2\nECHO x\r\nBOOM\nCOUNT\n"],
    [b'ECHO "a b"\nADD', b" 4 5\n", b"COUNT\nCOUNT"],
    [b"ADD 1 2\nADD 1 2\nECHO 'q'\n"],
    [b"ADD 1 2\nQUIT\nADD 1 2\n", b"ADD 1 2\n"],
    [b"GET / HTTP/1.1\r\n"],
    [b"ADD 1 2\n" * 5000],
    [b"ECHO " + b"x" * 8000 + b"\n"] * 20,
]


def sums() -> App:
    app = App()

    @app.handler
    def add(a: int, b: int) -> int:
        return a + b

    @app.handler
    def echo(text: str) -> str:
        return text

    @app.handler
    def count(session: Session) -> int:
        session["n"] = session.get("n", 0) + 1
        return int(session["n"])

    @app.handler
    def boom() -> None:
        raise ValueError("boom")

    return app


@pytest.fixture(scope="module")
def twins():
    with twins_of(sums) as twins:
        yield twins


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("accepts", [False, True])
@pytest.mark.parametrize("pieces", DIALOGUES)
def test_a_dialogue_is_the_same_in_both(twins, pieces, accepts, early):
    twins.run(pieces, accepts=accepts, early=early)
