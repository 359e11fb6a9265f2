"""The services of docs/examples.md: the dialogues that the page shows, and what each must keep to."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pexpect
import pytest
import redis

from linepool.testing import Peer
from tests.process.test_bridge import Engine
from tests.servers import EXAMPLES, ROOT, TIMEOUT, ServerProcess, run_server

SERVICES = EXAMPLES / "services"
PAGE = (ROOT / "docs/examples.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown(title: str) -> str:
    """Return the first block below a title of the page."""
    found = FENCE.search(PAGE, PAGE.index(f"\n## {title}\n"))
    assert found is not None
    return found[2]


def play(server: ServerProcess, dialogue: str) -> None:
    """Have the dialogue with a server: what is shown below each request is what comes."""
    with server.connect() as peer:
        for line in dialogue.splitlines():
            if line.startswith("> "):
                peer.send(line[2:].encode() + b"\n")
            else:
                assert peer.line() == line


def test_each_service_is_on_the_page_and_short():
    for file in SERVICES.glob("*.py"):
        assert f"services/{file.name})" in PAGE
        assert len(file.read_text(encoding="utf-8").splitlines()) < 100, file


# -- seats


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    engine.start()
    yield engine
    engine.kill()


def test_servers_with_one_store_sell_each_seat_once(engine: Engine, tmp_path: Path):
    file, options = SERVICES / "seats.py", ("--workers", "2")
    places = [tmp_path / name for name in "ab"]
    for place in places:
        place.mkdir()
    with (
        run_server(file, places[0], *options, STORE=engine.url) as first,
        run_server(file, places[1], *options, STORE=engine.url) as second,
    ):
        until_ready(first)
        play(first, shown("Seats, sold by several servers"))
        assert second.ask("TAKE Hamlet 12 cid") == "CLIENT_ERROR seat 12 is taken"
        with ThreadPoolExecutor(8) as pool:
            asked = [server.ask for server in (first, second) for _ in range(8)]
            replies = list(pool.map(lambda ask: ask("TAKE Hamlet 13 dan"), asked))
        assert replies.count("seat 13 is yours, dan") == 1

        engine.kill()
        away = "SERVER_ERROR the store does not answer; try again later"
        assert first.ask("TAKE Hamlet 14 ann") == away
        engine.start()
        until_ready(first)
        assert second.ask("TAKE Hamlet 14 ann") == "seat 14 is yours, ann"


def until_ready(server: ServerProcess) -> None:
    """Ask until the store answers."""
    give_up_at = time.monotonic() + TIMEOUT
    while server.ask("FREE Hamlet 1 nobody").startswith("SERVER_ERROR "):
        assert time.monotonic() < give_up_at


# -- fraud scoring


PAYMENT = {
    "at": "2026-11-29T12:00:00Z",
    "ships_to": "de",
    "card": {"country": "de", "issued": "2025-01-31"},
    "items": [{"name": "lamp", "price": "12.50", "count": 2}],
}


@pytest.fixture(scope="module")
def fraud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("fraud")
    with run_server(SERVICES / "fraud.py", place, "--workers", "2") as server:
        yield server


def test_the_fraud_service_answers_as_its_page_shows(fraud: ServerProcess):
    play(fraud, shown("Fraud scoring"))


def test_a_stream_has_a_score_for_each_payment_in_their_order(fraud: ServerProcess):
    payments = [{**PAYMENT, "items": [{"name": "x", "price": str(n)}]} for n in range(950, 1050)]
    with fraud.connect() as peer:
        scores = [json.loads(line) for line in peer.ask_lines(f"SCORE_ALL {json.dumps(payments)}")]
    assert [score["amount"] for score in scores] == [str(n) for n in range(950, 1050)]
    assert [score["points"] for score in scores] == [0] * 50 + [30] * 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"at": None}, "payment.at must be datetime"),
        ({"at": "yesterday"}, "payment.at must be datetime"),
        ({"items": [{"name": "x"}]}, "payment.items[0].price is missing"),
        ({"items": [{"name": "x", "price": "much"}]}, "payment.items[0].price must be Decimal"),
        ({"card": {"country": "de", "issued": "2025-02-30"}}, "payment.card.issued must be date"),
        ({"card": None}, "payment.card must be"),
    ],
)
def test_what_is_wrong_in_a_payment_is_named(fraud: ServerProcess, wrong, message):
    reply = fraud.ask(f"SCORE {json.dumps({**PAYMENT, **wrong})}")
    assert reply.startswith(f"CLIENT_ERROR {message}")


# -- the rate limiter


@pytest.fixture(scope="module")
def limiter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("limiter")
    file = SERVICES / "rate_limiter.py"
    with run_server(file, place, "--workers", "3", LIMITS=str(place / "limits")) as server:
        yield server


@pytest.fixture
def client(limiter: ServerProcess) -> Iterator[redis.Redis]:
    with redis.Redis(port=limiter.port) as client:
        yield client


def test_the_rate_limiter_is_used_as_its_page_shows(limiter: ServerProcess):
    code = shown("Rate limiter").replace("port=7000", f"port={limiter.port}")
    names: dict[str, redis.Redis] = {}
    exec(code, names)
    names["client"].close()


def test_many_clients_together_get_exactly_what_a_limit_allows(limiter: ServerProcess):
    def take(_number: int) -> int:
        with redis.Redis(port=limiter.port) as client:
            return sum(client.execute_command("TAKE", "all", 100, 3600)[0] for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 100


def test_a_pipeline_is_answered_in_order(client: redis.Redis):
    pipeline = client.pipeline(transaction=False)
    for _ in range(4):
        pipeline.execute_command("TAKE", "pipe", 3, 3600)
    assert [allowed for allowed, _, _ in pipeline.execute()] == [1, 1, 1, 0]


def test_several_calls_are_taken_at_once_or_not_at_all(client: redis.Redis):
    assert client.execute_command("TAKE", "many", 10, 3600, 8)[:2] == [1, 2]
    assert client.execute_command("TAKE", "many", 10, 3600, 3)[:2] == [0, 2]
    assert client.execute_command("TAKE", "many", 10, 3600, 2)[:2] == [1, 0]
    assert client.execute_command("RESET", "many") == 1
    assert client.execute_command("TAKE", "many", 10, 3600, 10)[:2] == [1, 0]
    with pytest.raises(redis.ResponseError, match="11 calls are never within 10 per 3600 s"):
        client.execute_command("TAKE", "many", 10, 3600, 11)


# -- the cache


class Origin(http.server.ThreadingHTTPServer):
    """A slow service: its pages wait at a gate.

    Attributes:
        asked: The pages that were asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.asked: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Do nothing: a worker that was killed does not read its page."""


class _Page(http.server.BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        name = self.path.strip("/")
        self.server.asked.append(name)
        if name.startswith("slow"):
            self.server.arrived.release()
            self.server.gate.wait(TIMEOUT)
        if name == "nothing":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"first line\nsecond line\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        thread = threading.Thread(target=origin.serve_forever, args=[0.01])
        thread.start()
        yield origin
        origin.gate.set()
        origin.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, origin: Origin) -> Iterator[ServerProcess]:
    where = f"http://127.0.0.1:{origin.server_port}/"
    place = tmp_path_factory.mktemp("cache")
    file = SERVICES / "cache_front.py"
    with run_server(file, place, "--workers", "6", ORIGIN=where, no_proxy="*") as server:
        yield server


def test_the_cache_answers_as_its_page_shows(cache: ServerProcess, origin: Origin):
    play(cache, shown("Cache in front of a slow service"))
    play(cache, shown("Cache in front of a slow service").split("> FETCH nothing")[0])
    assert origin.asked.count("news") == 1


def test_of_many_clients_that_wait_one_fetches_even_if_it_dies(
    cache: ServerProcess, origin: Origin
):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(cache.connect()) for _ in range(6)]
        for peer in peers:
            peer.send(b"FETCH slow\n")
        assert origin.arrived.acquire(timeout=TIMEOUT)
        state = cache.until(lambda state: state["tally"]["busy"] == 6)
        lock = os.stat(cache.directory / "cache.db.lock").st_ino
        (owner,) = _owners_of(lock, [worker["pid"] for worker in state["workers"]])

        os.kill(owner, signal.SIGKILL)
        assert origin.arrived.acquire(timeout=TIMEOUT)  # another one fetches
        origin.gate.set()
        replies = [peer.rest() for peer in peers]
    page = b"first line\nsecond line\nEND\n"
    assert replies.count(page) == 5
    assert sum(reply.startswith(b"SERVER_ERROR") or not reply for reply in replies) == 1
    assert origin.asked.count("slow") == 2
    assert cache.converse(b"FETCH slow\n") == page
    assert origin.asked.count("slow") == 2


def _owners_of(inode: int, pids: list[int]) -> set[int]:
    """Return which processes have a lock on a file; see proc_locks(5)."""
    lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    held = [line.split() for line in lines if " -> " not in line and f":{inode} " in line]
    return {int(words[4]) for words in held} & set(pids)


# -- notes


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with run_server(
        SERVICES / "notes.py",
        tmp_path_factory.mktemp("notes"),
        "--workers",
        "2",
        "--log-requests",
        "line",
    ) as server:
        yield server


def test_notes_answer_as_their_page_shows(notes: ServerProcess):
    play(notes, shown("Notes, with a login"))


def test_notes_are_one_s_own_and_stay(notes: ServerProcess):
    notes.converse(b"REGISTER bob secret\nNOTE of bob\n")
    with notes.connect() as bob, notes.connect() as eve:
        assert bob.line() == eve.line()
        assert bob.ask("REGISTER bob x") == "CLIENT_ERROR the name bob is taken"
        assert bob.ask("login bob secret") == "Welcome back bob."
        assert bob.ask_lines("notes") == ["of bob"]
        assert eve.ask("REGISTER eve secret") == "Welcome eve."
        assert eve.ask_lines("notes") == []


def test_three_wrong_passwords_end_the_connection(notes: ServerProcess):
    said = notes.converse(b"LOGIN zoe a\nLOGIN zoe b\nLOGIN zoe c\nLOGIN zoe d\n").decode()
    assert said.splitlines()[1:] == ["CLIENT_ERROR wrong name or password"] * 2 + ["Goodbye."]


def test_a_login_at_a_terminal(notes: ServerProcess):
    with pexpect.spawn("telnet", ["127.0.0.1", str(notes.port)], timeout=TIMEOUT) as telnet:
        telnet.expect_exact("or REGISTER name password.\r\n")
        telnet.sendline("register tim 'open sesame'")
        telnet.expect_exact("Welcome tim.\r\n")
        telnet.sendline("notes")
        telnet.expect_exact("END\r\n")
        telnet.sendline("quit")
        telnet.expect(pexpect.EOF)


# -- progress


@pytest.fixture(scope="module")
def checksums(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("root")
    (root / "photos").mkdir()
    (root / "photos" / "one.raw").write_bytes(bytes(1_400_000))
    (root / "photos" / "two.txt").write_bytes(b"x" * 100_000)
    (root / "empty").mkdir()
    with run_server(SERVICES / "checksums.py", root, "--workers", "1") as server:
        yield server


def test_checksums_answer_as_their_page_shows(checksums: ServerProcess):
    play(checksums, shown("Progress of a long command"))


def test_an_empty_directory_has_a_checksum_and_other_places_have_none(checksums: ServerProcess):
    with checksums.connect() as peer:
        assert peer.ask_lines("SUMS empty")[0] == "0 % of 0 bytes in 0 files"
        for place in ("..", "/etc", "missing", "photos/two.txt"):
            assert peer.ask(f"SUMS {place}") == f"CLIENT_ERROR {place} is not a directory here"


def test_a_client_that_leaves_ends_the_work(checksums: ServerProcess):
    with checksums.connect() as peer:
        peer.send(b"SUMS photos\n")
        assert peer.line().startswith("0 %")
    assert checksums.converse(b"SUMS empty\n").endswith(b"END\n")  # there is one worker


# -- chat


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("chat")
    with run_server(SERVICES / "chat.py", place, "--workers", "3") as server:
        yield server


def test_the_chat_answers_as_its_page_shows(chat: ServerProcess):
    play(chat, shown("Chat"))


def joined(chat: ServerProcess, room: str, name: str) -> Peer:
    """Return a connection that has joined a room."""
    peer = chat.connect()
    assert peer.line().startswith("A chat.")
    assert peer.ask(f"JOIN {room} {name}").startswith(f"Hello {name}.")
    assert peer.line() == f"{room}: {name} has come"
    return peer


def test_all_in_a_room_read_what_one_says(chat: ServerProcess):
    with joined(chat, "hall", "ann") as ann, joined(chat, "hall", "bob") as bob:
        assert ann.line() == "hall: bob has come"
        with joined(chat, "cellar", "eve") as eve:
            bob.send(b"SAY hello\n")
            assert bob.line() == "OK"
            assert ann.line() == bob.line() == "hall: bob: hello"
            assert eve.ask_lines("ROOMS") == ["cellar 1", "hall 2"]
            assert eve.ask("JOIN hall eve") == "Hello eve. Others in hall: 2"
            assert eve.line() == "hall: eve has come"
            assert ann.line() == bob.line() == "hall: eve has come"
        assert ann.line() == bob.line() == "hall: eve has left"
        assert bob.ask("LEAVE") == "OK"
        assert ann.line() == "hall: bob has left"
        assert bob.ask("SAY x") == "CLIENT_ERROR join a room first: JOIN room name"


def test_a_chat_at_two_terminals(chat: ServerProcess):
    address = ["127.0.0.1", str(chat.port)]
    with (
        pexpect.spawn("telnet", address, timeout=TIMEOUT, echo=False) as ann,
        pexpect.spawn("nc", address, timeout=TIMEOUT, echo=False) as bob,
    ):
        for person, name in ((ann, "ann"), (bob, "bob")):
            person.expect_exact("under a name.")
            person.sendline(f"join garden {name}")
            person.expect_exact(f"Hello {name}.")
        ann.expect_exact("garden: bob has come\r\n")
        ann.sendline("say how are you?")
        bob.expect_exact("garden: ann: how are you?")
        bob.sendline("say fine")
        ann.expect_exact("garden: bob: fine\r\n")


def test_the_admin_port_sets_the_prices_that_the_shop_shows(tmp_path):
    program = SERVICES / "prices.py"
    targets = (f"{program}:shop@127.0.0.1:0", f"{program}:admin@127.0.0.1:0")
    with ServerProcess(tmp_path, *targets, "--workers", "2", bind=()) as server:
        with server.connect(1) as admin:
            assert admin.ask("SET lamp 49.90") == "OK"
            assert admin.ask("SET lamp -1").startswith("CLIENT_ERROR")
            assert admin.ask("PRICE lamp") == "49.90"
        assert server.ask("PRICE lamp") == "49.90"
        assert server.ask("SET lamp 1").startswith("ERROR unknown command")
        assert server.ask("PRICE chair") == "CLIENT_ERROR unknown item chair"
