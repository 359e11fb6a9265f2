import pytest

from tests.servers import EXAMPLES, run_server

GUESTBOOK = EXAMPLES / "guestbook.py"


@pytest.fixture
def guestbook(tmp_path):
    with run_server(GUESTBOOK, tmp_path, "--workers", "3") as server:
        yield server


def test_the_book_greets_and_says_goodbye(guestbook):
    replies = guestbook.converse(b"HELLO Ada\nSIGN a\nSIGN b\nQUIT\nSIGN never\n").decode()
    assert replies.splitlines() == [
        "Welcome. The book has 0 entries. Say HELLO and your name.",
        "Hello Ada. SIGN the book, or READ it.",
        "Thank you Ada, this is entry 1.",
        "Thank you Ada, this is entry 2.",
        "Goodbye Ada. You signed 2 times.",
    ]


def test_two_connections_have_separate_sessions_and_one_book(guestbook):
    with guestbook.connect() as ada, guestbook.connect() as bob:
        assert ada.line() == bob.line()
        ada.ask("HELLO Ada")
        assert bob.ask("SIGN as whom?") == "CLIENT_ERROR say HELLO and your name first."
        bob.ask("HELLO Bob")
        assert ada.ask("SIGN lovely  place") == "Thank you Ada, this is entry 1."
        assert bob.ask("SIGN END") == "Thank you Bob, this is entry 2."
        assert ada.ask_lines("READ") == ["1 Ada: lovely  place", "2 Bob: END"]
        assert ada.ask_lines("READ") == []
        assert bob.ask_lines("READ") == ["1 Ada: lovely  place", "2 Bob: END"]
        assert len({worker["pid"] for worker in guestbook.status()["workers"]}) == 3


def test_reading_continues_where_it_stopped(guestbook):
    with guestbook.connect() as peer:
        peer.line()
        peer.ask("HELLO Ada")
        for number in range(1, 8):
            peer.ask(f"SIGN entry {number}")
        assert [line[0] for line in peer.ask_lines("READ")] == list("12345")
        assert [line[0] for line in peer.ask_lines("READ")] == list("67")
        assert peer.ask("REWIND") == "OK"
        assert peer.ask_lines("READ")[0] == "1 Ada: entry 1"


def test_text_that_could_control_another_terminal_is_refused(guestbook):
    with guestbook.connect() as peer:
        peer.line()
        peer.ask("HELLO Ada")
        refusal = "CLIENT_ERROR only printable characters are allowed."
        for text in ("\x1b[2Jgotcha", "back\bspace", "sep\u2028arator"):
            assert peer.ask(f"SIGN {text}") == refusal, text
            assert peer.ask(f'HELLO "{text}"') == refusal, text
        assert peer.ask_lines("READ") == []


def test_an_entry_that_is_too_long_is_refused(guestbook):
    with guestbook.connect() as peer:
        peer.line()
        peer.ask("HELLO Ada")
        assert peer.ask("SIGN " + "x" * 200) == "Thank you Ada, this is entry 1."
        assert peer.ask("SIGN " + "x" * 201).startswith("CLIENT_ERROR an entry has at most 200 ")


def test_the_book_survives_a_restart(tmp_path):
    book = str(tmp_path / "book")
    for visit in (0, 1):
        with run_server(GUESTBOOK, tmp_path, GUESTBOOK=book) as server:
            replies = server.converse(b"HELLO Ada\nSIGN again\n").decode().splitlines()
            assert replies[0].startswith(f"Welcome. The book has {visit} entries.")
            assert replies[2] == f"Thank you Ada, this is entry {visit + 1}."
