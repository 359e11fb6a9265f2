"""memcached's text protocol: requests, replies, and the server over a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import (
    App,
    Bad,
    ClientError,
    Limits,
    Memcache,
    Protocol,
    Request,
    Verb,
    body,
    cache,
)
from linepool.cache import Item, Store
from linepool.protocols.memcache import Value
from linepool.testing import assert_split_invariant
from tests.unit.memory_store import MemoryStore, memory_store

DIALOGUES = Path(__file__).with_name("memcached_dialogues.txt").read_text("latin-1")


def dialogues():
    for number, block in enumerate(DIALOGUES.split("\n\n")):
        lines = [line for line in block.split("\n") if line[:2] in ("> ", "< ", "<.")]
        sent = "".join(line[2:] + "\r\n" for line in lines if line.startswith("> "))
        read = "".join(line[2:] + "\r\n" for line in lines if line.startswith("< "))
        if sent:
            yield pytest.param(
                sent.encode("latin-1"), read.encode("latin-1"), id=f"{number}: {lines[0][2:30]}"
            )


def served(store: Store | None = None, **settings) -> App:
    def one_store() -> Iterator[Store]:
        assert store is not None
        yield store

    return cache.server(one_store if store else memory_store, **settings)


def closes(protocol: Protocol) -> bool:
    bad = protocol.next_request()
    return isinstance(bad, Bad) and bad.close


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1_900_000_000.0
        monkeypatch.setattr("time.time", lambda: self.now)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("sent", "read"), list(dialogues()))
def test_replies_equal_those_of_memcached(sent, read):
    assert served().ask(sent) == read


def test_what_memcached_1_6_45_does_otherwise_is_done_as_before():
    """It takes blanks before a command for an unknown command, and any words behind the key of a delete."""
    app = served()
    assert app.ask(b" get a\r\n  mn\r\n") == b"END\r\nMN\r\n"
    usage = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
    assert (
        app.ask(b"delete a 1\r\ndelete a 1 noreply\r\ndelete a b c d\r\n") == usage + b"ERROR\r\n"
    )


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("sent", "read"), list(dialogues())[:40:5])
def test_cuts_change_nothing(sent, read):
    assert_split_invariant(served(), sent)


def test_a_too_large_value_is_discarded_to_the_byte_and_the_old_one_deleted():
    script = b"set a 0 0 1\r\nx\r\nset a 0 0 %d\r\n%b\r\nget a\r\nmn\r\n"
    for size in (1000, 2000, 100_000):
        sent = script % (size, b"get a\r\n" * (size // 7) + b"z" * (size % 7))
        said = served(max_body_bytes=1000).ask(sent)
        assert said == b"STORED\r\nSERVER_ERROR object too large for cache\r\nEND\r\nMN\r\n"


def test_a_too_large_value_deletes_the_old_one_only_for_set_and_noreply_silences_its_error():
    sent = b"set a 0 0 1\r\nx\r\nadd a 0 0 5000\r\n%b\r\nget a\r\n" % (b"z" * 5000)
    sent += b"set a 0 0 5000 noreply\r\n%b\r\nget a\r\n" % (b"z" * 5000)
    said = served(max_body_bytes=1000).ask(sent)
    assert said == (
        b"STORED\r\nSERVER_ERROR object too large for cache\r\nVALUE a 0 1\r\nx\r\nEND\r\nEND\r\n"
    )


def test_a_too_large_value_of_ms_is_an_error_even_with_q():
    sent = b"ms a 5000 q\r\n%b\r\nmn\r\n" % (b"z" * 5000)
    said = served(max_body_bytes=1000).ask(sent)
    assert said == b"SERVER_ERROR object too large for cache\r\nMN\r\n"


def test_cuts_change_nothing_for_too_large_values():
    script = b"set a 0 0 90\r\n%b\r\nset a 0 0 5\r\nabcde\r\nget a\r\n" % (b"z" * 90)
    assert_split_invariant(served(), script, Limits(max_body_bytes=100))


def test_a_value_in_300_000_pieces_takes_linear_time():
    protocol = served().freeze().open_protocol()
    protocol.feed(b"set a 0 0 300000\r\n")
    for _ in range(300_000):
        protocol.feed(b"x")
        if protocol.next_request() is not None:
            raise AssertionError("too early")
    protocol.feed(b"\r\n")
    request = protocol.next_request()
    assert isinstance(request, Request)
    assert len(request.body or b"") == 300_000


def test_a_line_without_end_closes_the_connection_except_for_a_get():
    assert served().ask(b"x" * 2049) == b""
    protocol = served().freeze().open_protocol()
    protocol.feed(b"set " + b"x" * 2045)
    assert closes(protocol)
    protocol = served().freeze().open_protocol()
    protocol.feed(b"  gets " + b"k " * 200_000)
    assert protocol.next_request() is None
    protocol.feed(b"\r\n")
    request = protocol.next_request()
    assert isinstance(request, Request)
    assert len(request.words) == 200_000


def test_a_get_beyond_its_own_limit_closes_the_connection():
    app = cache.server(memory_store, protocol=Memcache(max_multiget_bytes=5000))
    protocol = app.freeze().open_protocol()
    protocol.feed(b"get " + b"k " * 2500)
    assert closes(protocol)


@pytest.mark.parametrize("line", [b"get " + b"k " * 2500, b"x" * 2049])
def test_a_line_beyond_its_limit_closes_although_its_end_has_arrived(line):
    app = cache.server(memory_store, protocol=Memcache(max_multiget_bytes=5000))
    protocol = app.freeze().open_protocol()
    protocol.feed(line + b"\r\n")
    assert closes(protocol)


def test_a_long_get_in_small_pieces_takes_linear_time():
    app = cache.server(memory_store, protocol=Memcache(max_multiget_bytes=2**23))
    protocol = app.freeze().open_protocol()
    protocol.feed(b"get")
    for _ in range(2**16):
        protocol.feed(b" k" * 32)
        assert protocol.next_request() is None
    protocol.feed(b"\n")
    assert isinstance(protocol.next_request(), Request)


def test_the_binary_protocol_closes_the_connection():
    assert served().ask(b"\x80\x00\x00\r\nversion\r\n") == b""


def test_a_byte_0x80_after_the_first_request_is_an_unknown_command():
    assert served().ask(b"mn\r\n\x80\x81\r\nmn\r\n") == b"MN\r\nERROR\r\nMN\r\n"


def test_nothing_after_quit_is_executed():
    store = MemoryStore()
    assert served(store).ask(b"set a 0 0 1\r\nx\r\nquit\r\nflush_all\r\n") == b"STORED\r\n"
    assert store.read([b"a"]) != [None]


def test_expiry_times_are_relative_absolute_or_in_the_past(clock):
    store = MemoryStore(clock)
    app = served(store)
    app.ask(b"set short 0 10 1\r\nx\r\nset month 0 2592000 1\r\nx\r\nset past 0 -1 1\r\nx\r\n")
    app.ask(b"set moment 0 %d 1\r\nx\r\n" % (clock.now + 20))
    assert app.ask(b"get short month past moment\r\n").count(b"VALUE") == 3
    assert app.ask(b"mg short t\r\n") == b"HD t10\r\n"
    clock.now += 10
    assert app.ask(b"get short moment\r\n") == b"VALUE moment 0 1\r\nx\r\nEND\r\n"
    app.ask(b"touch moment 100\r\n")
    clock.now += 50
    assert app.ask(b"get moment\r\n") == b"VALUE moment 0 1\r\nx\r\nEND\r\n"
    assert app.ask(b"gat 5 moment\r\n").startswith(b"VALUE moment")
    clock.now += 5
    assert app.ask(b"get moment\r\n") == b"END\r\n"
    clock.now += 2592000
    assert app.ask(b"get month\r\n") == b"END\r\n"


def test_a_flush_can_be_delayed(clock):
    app = served(MemoryStore(clock))
    app.ask(b"set a 0 0 1\r\nx\r\nflush_all 10\r\n")
    assert app.ask(b"get a\r\n") != b"END\r\n"
    clock.now += 10
    assert app.ask(b"get a\r\n") == b"END\r\n"


def test_cas_numbers_are_unique_and_change_with_every_store():
    app = served(MemoryStore())
    app.ask(b"set a 0 0 1\r\n1\r\nset b 0 0 1\r\n1\r\n")
    numbers = [int(app.ask(b"mg %b c\r\n" % key)[4:]) for key in (b"a", b"b")]
    app.ask(b"incr a 1\r\n")
    numbers.append(int(app.ask(b"mg a c\r\n")[4:]))
    app.ask(b"touch a 0\r\n")
    assert int(app.ask(b"mg a c\r\n")[4:]) == numbers[-1]
    assert len(set(numbers)) == 3
    first, _, last = numbers
    assert app.ask(b"cas a 0 0 1 %d\r\nx\r\n" % first) == b"EXISTS\r\n"
    assert app.ask(b"cas a 0 0 1 %d\r\nx\r\n" % last) == b"STORED\r\n"


def test_meta_gets_return_when_and_whether_an_item_was_read(clock):
    app = served(MemoryStore(clock))
    app.ask(b"set a 0 0 1\r\nx\r\n")
    clock.now += 5
    assert app.ask(b"mg a h l u\r\n") == b"HD h0 l5\r\n"
    assert app.ask(b"mg a h l\r\n") == b"HD h0 l5\r\n"
    assert app.ask(b"mg a h l\r\n") == b"HD h1 l0\r\n"


def test_one_client_wins_the_right_to_recache(clock):
    app = served(MemoryStore(clock))
    app.ask(b"set a 0 100 1\r\nx\r\n")
    assert app.ask(b"mg a R30\r\n") == b"HD\r\n"
    clock.now += 80
    assert app.ask(b"mg a R30 t\r\nmg a R30 t\r\n") == b"HD t20 W\r\nHD t20 Z\r\n"
    app.ask(b"set a 0 100 1\r\ny\r\n")
    assert app.ask(b"mg a R30 v\r\n") == b"VA 1\r\ny\r\n"


def test_an_older_write_stores_a_stale_item_with_the_old_time_to_live(clock):
    app = served(MemoryStore(clock))
    app.ask(b"set a 0 0 1\r\nx\r\nset a 0 0 1\r\nx\r\nmd a I T30\r\nmg a\r\n")
    assert app.ask(b"ms a 1 T90 C0 c\r\ny\r\n") == b"EX c0\r\n"
    assert app.ask(b"ms a 1 I T90 C1\r\nz\r\n") == b"HD\r\n"
    assert app.ask(b"mg a v t\r\n") == b"VA 1 t30 Z X\r\nz\r\n"


def test_the_flag_e_sets_the_items_unique_number():
    app = served(MemoryStore())
    assert app.ask(b"ms a 1 E77 c\r\nx\r\nmg a c\r\n") == b"HD c77\r\nHD c77\r\n"
    assert app.ask(b"ma n N0 J1 E88\r\nma n c E99\r\n") == b"HD\r\nHD c99\r\n"


def test_md_can_leave_an_empty_stale_item():
    app = served(MemoryStore())
    app.ask(b"set a 5 0 1\r\nx\r\n")
    assert app.ask(b"md a I x T30\r\nmg a v t f\r\n") == b"HD\r\nVA 0 t30 f0 X W\r\n\r\n"


def test_a_full_store_is_a_server_error():
    app = served(MemoryStore(max_bytes=3))
    said = b"SERVER_ERROR out of memory storing object\r\n"
    assert app.ask(b"set a 0 0 4\r\nabcd\r\n") == said
    assert app.ask(b"ms a 4\r\nabcd\r\n") == said
    assert app.ask(b"set a 0 0 3\r\n999\r\nincr a 1\r\n") == b"STORED\r\n" + said


def test_statistics_count_and_reset():
    app = served(MemoryStore())
    app.ask(b"set a 0 0 1\r\n1\r\nget a b\r\nincr a 1\r\nincr b 1\r\ndelete a\r\n")
    said = app.ask(b"stats\r\n")
    for line in (b"cmd_set 1", b"get_hits 1", b"get_misses 1", b"incr_hits 1", b"delete_hits 1"):
        assert b"STAT " + line + b"\r\n" in said
    assert app.ask(b"stats reset\r\nstats\r\n") == b"RESET\r\nSTAT version 1.6.45\r\nEND\r\n"


@given(st.binary(max_size=200))
def test_any_bytes_get_complete_lines_or_no_reply(data):
    said = served().ask(data + b"\r\nmn\r\n")
    assert said == b"" or said.endswith(b"\r\n")


@given(
    st.lists(
        st.sampled_from(
            [
                b"set",
                b"a",
                b"0",
                b"mg",
                b"v",
                b"1",
                b"-1",
                b"q",
                b"gat",
                b"ma",
                b"N0",
                b"\r\n",
                b"noreply",
                b"x\r\n",
                b"I",
                b"md",
                b"b",
            ]
        ),
        max_size=30,
    )
)
def test_no_mixture_of_words_causes_an_internal_error(words):
    said = served().ask(b" ".join(words) + b"\r\n")
    assert b"internal error" not in said


# -- handlers for single commands


def test_handlers_can_serve_single_commands():
    values: dict[str, bytes] = {}
    app = App(protocol=Memcache())

    @app.handler
    def get(key: str) -> bytes | None:
        return values.get(key)

    @app.handler("set")
    def store(key: str, flags: int, exptime: int, size: int, data: bytes = body("size")) -> bool:
        values[key] = data
        return True

    @app.handler
    def delete(key: str) -> bool:
        return values.pop(key, None) is not None

    @app.handler
    def double(number: int) -> int:
        return number * 2

    sent = (
        b"set a 1 2 3\r\nabc\r\nget a\r\nget b\r\nget a b\r\ndelete a\r\ndelete a\r\ndouble 21\r\n"
    )
    assert app.ask(sent) == (
        b"STORED\r\nVALUE a 0 3\r\nabc\r\nEND\r\nEND\r\nERROR\r\nDELETED\r\nNOT_FOUND\r\n42\r\n"
    )
    assert app.ask(b"double x\r\nfoo\r\nDOUBLE 2\r\n").splitlines() == [
        b"CLIENT_ERROR number must be int, not 'x'. Usage: double number:int",
        b"ERROR",
        b"ERROR",
    ]
    assert app.ask(b"double 2 noreply\r\ndouble 3\r\n") == b"6\r\n"


def test_a_get_of_many_keys_may_return_a_dict_or_a_stream():
    app = App(protocol=Memcache())

    @app.handler("get", "gets")
    def get(verb: Verb, *keys: str) -> dict[str, str | None] | Iterator[Value]:
        if verb == "gets":
            return (Value(key.encode(), b"v", 1, 7) for key in keys)
        return {key: key.upper() if key != "no" else None for key in keys}

    assert app.ask(b"get a no b\r\n") == b"VALUE a 0 1\r\nA\r\nVALUE b 0 1\r\nB\r\nEND\r\n"
    assert app.ask(b"gets a\r\n") == b"VALUE a 1 1 7\r\nv\r\nEND\r\n"


def test_the_data_block_of_an_unknown_command_is_read():
    app = App(protocol=Memcache())
    app.handler("get")(lambda key: None)
    assert app.ask(b"set a 0 0 6\r\nmn\r\nmn\r\nmn\r\n") == b"ERROR\r\nMN\r\n"


def test_an_error_of_a_handler_is_one_line_and_noreply_silences_it():
    app = App(protocol=Memcache())

    @app.handler
    def touch(key: str, exptime: int) -> None:
        raise ClientError("no\r\nSTORED")

    assert app.ask(b"touch a 1\r\ntouch a 1 noreply\r\nmn\r\n") == (
        b"CLIENT_ERROR no\\x0d\\x0aSTORED\r\nMN\r\n"
    )


def test_a_reply_cannot_be_forged_by_a_line_break():
    app = App(protocol=Memcache())
    app.handler("stats")(lambda: {"a": "1\r\nEND"})
    assert app.ask(b"stats\r\n").startswith(b"SERVER_ERROR internal error")


def test_items_compare_by_value():
    assert Item(b"x") == Item(b"x", 0, 0, 0, 0)


@pytest.mark.parametrize("size", [b"3\rx", b"3\x0bx", b"+3\tx", b"3\x0c"])
def test_a_size_is_read_as_strtol_reads_it(size):
    """As memcached does: what follows a blank in the word does not count."""
    assert served().ask(b"set k 0 0 " + size + b"\r\nabc\r\nget k\r\n") == (
        b"STORED\r\nVALUE k 0 3\r\nabc\r\nEND\r\n"
    )
