"""The Redis example's commands about the server, beside a real Redis."""

from __future__ import annotations

import contextlib
import importlib
import socket
from typing import Any

import pytest
import redis

from tests.clients.harness import redis_client, redis_server
from tests.servers import EXAMPLES, TIMEOUT, run_server
from tests.unit.tiny_redis import recorded

REDIS = EXAMPLES / "redis" / "redis_server.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("redis")
    path = directory / "redis.sock"
    arguments = ("--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--workers", "2:4")
    with run_server(REDIS, directory, *arguments, "--park-after", "0.2") as running:
        yield running


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as port, redis.Redis(port=port) as client:
        yield client


@pytest.fixture
def ours(server):
    with redis_client(server) as client:
        client.flushall()
        yield client


@contextlib.contextmanager
def others(server, count):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def asked(client, *words):
    """Return the reply as it is sent, with text in place of bytes; of an error, its text."""
    with client.client() as one:
        one.connection.send_command(*words)
        try:
            return plain(one.connection.read_response())
        except redis.ResponseError as error:
            return str(error)


def plain(value):
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    return value.decode() if isinstance(value, bytes) else value


def test_command_says_of_each_command_what_redis_says(ours, real):
    names = {name for name in ours.command_list() if "|" not in name}
    assert len(names) > 150
    known = {name.decode() for name in real.command_list()}
    for name in sorted(
        names & known - {"sort", "sort_ro", "wait", "debug"}
    ):  # they have categories of no rule
        (mine,), (theirs,) = (asked(client, "COMMAND", "INFO", name) for client in (ours, real))
        assert mine[2:6] == theirs[2:6], name  # flags and positions of the keys
        assert sorted(mine[6]) == sorted(theirs[6]), name  # categories of ACL
        assert (mine[1] < 0) == (theirs[1] < 0), name


@pytest.mark.parametrize(
    "words",
    [
        "LMPOP 2 a b LEFT", "ZUNION 2 a b WEIGHTS 1 2", "ZUNIONSTORE t 2 a b", "MSET a 1 b 2",
        "GET a", "DEL a b",

        "LMOVE a b LEFT LEFT", "SINTERCARD 2 a b", "OBJECT ENCODING a", "XREAD COUNT 1 STREAMS a b 0 0",
        "PING",
        "COPY a b", "SET a b EX 1", "SORT a STORE b", "RENAME a b",
        "CLIENT ID",
        "GET", "NOSUCH a",
        "ZINTERCARD 3 a", "BITOP AND a b c",
    ],
)  # fmt: skip
def test_getkeys_finds_the_keys_that_redis_finds(ours, real, words):
    is_served = asked(ours, "COMMAND", "INFO", words.split()[0]) != [None]
    if not is_served:
        real = ours  # both say that they do not know it
    for how in ("GETKEYS", "GETKEYSANDFLAGS"):
        mine, theirs = (asked(one, "COMMAND", how, *words.split()) for one in (ours, real))
        assert mine == theirs


@pytest.mark.parametrize(
    "name", ["CLIENT", "COMMAND", "CONFIG", "OBJECT", "PUBSUB", "XINFO", "XGROUP", "FUNCTION"]
)
def test_help_has_the_form_of_redis(ours, real, name):
    mine, theirs = (asked(one, name, "HELP") for one in (ours, real))
    assert mine[0] == theirs[0]
    assert mine[-2] == theirs[-2] == "HELP"
    for words in ([name], [name, "Foo"], [name, "HELP", "x"])[name == "COMMAND" :]:
        assert asked(ours, *words) == asked(real, *words)


@pytest.mark.parametrize(("sent", "received"), recorded(password=False, config=True))
def test_config_replies_like_redis(server, sent, received):
    assert server.converse(sent) == received


CONFIG = [
    "GET", "SET", "SET hz", "SET foo 1", "SET hz 5 foo 1", "SET hz 1 hz 2", "SET hz x",
    "SET hz 0x10", "SET hz 1 hz",
    "SET hz 99999999999999999999", "SET hz -1", "SET databases 3", "SET dir /",
    "SET appendonly maybe", "REWRITE",
    "SET lazyfree-lazy-user-del maybe", "SET loglevel loud", "SET slowlog-log-slower-than -2", "RESETSTAT x",
    "SET hash-max-listpack-value 1gx", "SET notify-keyspace-events z", "GET nosuch", "GET hz HZ", "SET HZ 10",
    "GET lazyfree-lazy-user-del loglevel",
    "SET hll-sparse-max-bytes 3kb", "GET hll-sparse-max-bytes",
    "SET notify-keyspace-events KEA", "GET notify-keyspace-events", "SET notify-keyspace-events gxKEtd",
    "GET notify-keyspace-events", "SET notify-keyspace-events KEnA", "GET notify-keyspace-events",
    "SET notify-keyspace-events ", "SET hash-max-ziplist-entries 12", "GET hash-max-*-entries",
    "SET hash-max-listpack-entries 512 hll-sparse-max-bytes 3000", "GET set-max* save appendonly",
]  # fmt: skip


def test_config_get_and_set_reply_like_redis(ours, real):
    for words in CONFIG:
        parts = words.split(" ")
        mine, theirs = (asked(one, "CONFIG", *parts) for one in (ours, real))
        if words == "SET dir /":
            theirs = theirs.replace("protected", "immutable")
        if words == "SET appendonly maybe":
            theirs = theirs.partition(" - ")[0] + " - argument(s) must be one of the following: no"
        if parts[0] == "GET" and isinstance(theirs, list):
            mine, theirs = (dict(zip(one[::2], one[1::2], strict=True)) for one in (mine, theirs))
        assert mine == theirs, words


def test_a_setting_holds_for_all_workers(server, ours):
    assert ours.config_set("slowlog-max-len", 77)
    with others(server, 6) as peers:
        for peer in peers:
            peer.send(b"CONFIG GET slowlog-max-len\r\n")
        for peer in peers:
            assert [peer.line() for _ in range(5)][-1] == "77"
    ours.config_set("slowlog-max-len", 128)
    assert ours.config_get("proto-max-bulk-len") == {"proto-max-bulk-len": str(512 * 2**20)}


def test_what_would_not_be_true_is_refused(ours):
    for name, value in [
        ("maxmemory-policy", "allkeys-lru"),
        ("appendonly", "yes"),
        ("maxmemory", "1"),
    ]:
        with pytest.raises(redis.ResponseError, match="CONFIG SET failed"):
            ours.config_set(name, value)


def test_info_has_the_fields_of_redis_in_the_form_of_redis(ours, real):
    assert set(ours.info()) >= {
        *("redis_version", "connected_clients", "used_memory", "rdb_last_save_time"),
        *("total_commands_processed", "role", "used_cpu_user", "cluster_enabled"),
    }
    missing = set(real.info("everything")) - set(ours.info("everything"))
    for section in ("clients", "replication", "cpu", "keyspace", "cluster"):
        assert not {name for name in missing if name in real.info(section)} - {
            *("used_cpu_sys_main_thread", "used_cpu_user_main_thread"),
        }
    for section in (
        "server",
        "clients",
        "memory",
        "stats",
        "errorstats",
        "modules",
        "commandstats",
    ):
        assert raw_info(ours, section)[0] == raw_info(real, section)[0]
    assert raw_info(ours, "nosuch") == []
    sections = [line for line in raw_info(ours) if line.startswith("#")]
    assert sections == [line for line in raw_info(real) if line.startswith("#")]


def raw_info(client, *sections):
    return asked(client, "INFO", *sections).splitlines()


def test_info_counts_the_requests_of_all_workers(server, ours):
    ours.config_resetstat()
    with others(server, 8) as peers:
        for number, peer in enumerate(peers):
            peer.send(b"SET key%d 1 EX 100\r\nGETSET x\r\n" % number)
            assert peer.line() == "+OK"
            assert peer.line().startswith("-ERR wrong number")
        stats = ours.info("commandstats")
        assert stats["cmdstat_set"]["calls"] == 8
        assert stats["cmdstat_getset"]["failed_calls"] == 8
        assert ours.info("clients")["connected_clients"] >= 9
    assert ours.info("keyspace") == {"db0": {"keys": 8, "expires": 8, "avg_ttl": 0}}
    assert ours.info("errorstats")["errorstat_ERR"]["count"] == 8
    ours.config_resetstat()
    assert "cmdstat_set" not in ours.info("commandstats")


def test_client_list_has_the_clients_of_all_workers(server, ours):
    ours.client_setname("observer")
    with others(server, 6) as peers:
        for number, peer in enumerate(peers):
            peer.send(b"CLIENT SETNAME peer%d\r\nSELECT 3\r\nCLIENT ID\r\n" % number)
        ids = [[peer.line() for _ in range(3)][-1][1:] for peer in peers]
        rows = {row["id"]: row for row in ours.client_list()}
        assert [rows[one]["name"] for one in ids] == [f"peer{number}" for number in range(6)]
        assert {rows[one]["db"] for one in ids} == {"3"}
        assert len({rows[one]["addr"] for one in ids}) == 6
        assert [row["id"] for row in ours.client_list(client_id=ids)] == sorted(ids, key=int)
        assert rows[str(ours.client_id())]["cmd"] == "client|list"
    assert ours.client_info()["name"] == "observer"


def test_client_kill_reaches_connections_of_all_workers_and_parked_ones(server, ours):
    with others(server, 6) as peers:
        for peer in peers:
            peer.send(b"CLIENT ID\r\n")
        ids = [peer.line()[1:] for peer in peers]
        rows = {row["id"]: row for row in ours.client_list()}
        assert ours.client_kill_filter(_id=ids[0]) == 1
        assert peers[0].rest() == b""
        assert ours.client_kill(rows[ids[1]]["addr"])
        assert peers[1].rest() == b""
        server.until(lambda state: state["connections"]["parked"] >= 4)
        assert ours.client_kill_filter(_type="normal") >= 4
        assert [peer.rest() for peer in peers[2:]] == [b""] * 4
        assert set(ids).isdisjoint(row["id"] for row in ours.client_list())
        assert ours.ping()


def test_a_client_may_end_itself(server):
    assert server.converse(b"CLIENT KILL SKIPME no ID 999999999\r\nPING\r\n") == b":0\r\n+PONG\r\n"
    with server.connect() as peer:
        peer.send(b"CLIENT INFO\r\n")
        peer.line()
        own = dict(word.split("=", 1) for word in peer.line().split())["addr"]
        peer.send(f"CLIENT KILL {own}\r\nPING\r\n".encode())
        assert [peer.line() for _ in range(2)][-1] == "+OK"
        assert peer.rest() == b""


def test_clients_of_a_unix_socket_are_listed_and_ended(server, ours):
    path = server.directory / "redis.sock"
    with socket.socket(socket.AF_UNIX) as local:
        local.settimeout(TIMEOUT)
        local.connect(str(path))
        local.sendall(b"CLIENT ID\r\n")
        own = local.makefile("rb").readline()[1:-2].decode()
        rows = {row["id"]: row for row in ours.client_list()}
        assert rows[own]["addr"] == f"{path}:0"
        assert ours.client_kill_filter(_id=own) == 1
        assert local.recv(1) == b""


@pytest.mark.parametrize(
    "words",
    [
        "KILL", "KILL 1.2.3.4:5", "KILL ID x", "KILL ID 0", "KILL FOO 1",
        "KILL TYPE x", "KILL USER nosuch",
        "KILL ID 1 ID", "KILL SKIPME maybe", "LIST FOO",
        "LIST TYPE x", "LIST ID", "LIST ID x", "CACHING yes", "CACHING x",
        "GETREDIR", "TRACKING off", "TRACKING x", "TRACKINGINFO", "REPLY x", "NO-EVICT x", "GETNAME",
        "SETNAME",
        "PAUSE x", "PAUSE -1", "PAUSE 1 x", "PAUSE", "UNPAUSE", "UNBLOCK 5", "UNBLOCK x",
        "UNBLOCK 5 x", "UNBLOCK",
        "KILL ADDR 1.2.3.4:5", "LIST ID 999999999",
    ],
)  # fmt: skip
def test_client_replies_like_redis(ours, real, words):
    mine, theirs = (asked(one, "CLIENT", *words.split()) for one in (ours, real))
    assert mine == theirs


SAME = """
ROLE|WAIT 0 0|WAIT 1 10|WAIT x 1|WAIT 0 -1|LASTSAVE x|SAVE|SAVE x|BGSAVE x|MEMORY USAGE nokey
MEMORY USAGE nokey SAMPLES x|MEMORY USAGE nokey x|MEMORY PURGE|MEMORY|MEMORY X|LATENCY LATEST
LATENCY HISTORY x|LATENCY RESET|LATENCY GRAPH x|LATENCY HISTOGRAM nosuch|SLOWLOG GET x|SLOWLOG GET -2
SLOWLOG RESET|SLOWLOG LEN|SLOWLOG GET|SLOWLOG FOO|ACL WHOAMI|ACL LIST|ACL USERS|ACL GETUSER default
ACL GETUSER x|ACL CAT|ACL CAT foo|ACL LOG|ACL LOG RESET|ACL GENPASS 5000|ACL GENPASS x
ACL DRYRUN default get a|ACL DRYRUN default nosuch a|ACL DRYRUN x get a|CLUSTER INFO|CLUSTER KEYSLOT a
CLUSTER FOO|READONLY|READWRITE|MODULE LIST|REPLICAOF NO ONE|REPLICAOF NO|FUNCTION STATS|FUNCTION DELETE x
FUNCTION KILL|FUNCTION LIST|FUNCTION FLUSH x|FCALL x 0|FAILOVER|SHUTDOWN foo|SHUTDOWN ABORT
SHUTDOWN SAVE NOSAVE|TIME x|DEBUG|COMMAND LIST FILTERBY MODULE x|COMMAND LIST x|COMMAND DOCS nosuch
COMMAND INFO nosuch
"""


@pytest.mark.parametrize(
    "words", [one for line in SAME.split("\n") for one in line.split("|") if one]
)
def test_replies_are_those_of_redis(ours, real, words):
    real.config_set("slowlog-log-slower-than", 10**6)
    ours.config_set("slowlog-log-slower-than", 10**6)
    mine, theirs = (asked(one, *words.split()) for one in (ours, real))
    assert mine == theirs


def test_slowlog_has_slow_requests_until_it_is_reset(ours):
    ours.config_set("slowlog-log-slower-than", 50_000)
    ours.slowlog_reset()
    ours.execute_command("DEBUG", "SLEEP", "0.5")  # slower than all that other tests ask
    found: list[dict[str, Any]] = []
    while not found:  # it is counted after its reply was sent
        # On a busy machine, SLOWLOG itself may be slow.
        found = [one for one in ours.slowlog_get() if one["command"] == b"debug sleep"]
    (entry,) = found
    assert entry["duration"] >= 50_000
    assert ours.slowlog_len() >= 1
    ours.config_set("slowlog-log-slower-than", -1)
    assert ours.slowlog_len() == 0


def test_save_is_noted(ours):
    before = ours.lastsave()
    assert ours.save()
    assert ours.lastsave() >= before
    assert ours.info("persistence")["rdb_last_save_time"] == int(ours.lastsave().timestamp())


def test_shutdown_stops_the_server_gracefully(tmp_path):
    with run_server(REDIS, tmp_path, "--workers", "1") as running:
        assert running.converse(b"SET a 1\r\nSHUTDOWN NOSAVE\r\n") == b"+OK\r\n"
        assert running.process.wait(TIMEOUT) == 0


def test_a_password_is_needed_if_there_is_one(tmp_path):
    with (
        run_server(REDIS, tmp_path, "--workers", "1", REDIS_PASSWORD="pw") as running,
        redis_client(running, password="pw") as client,
    ):
        assert running.converse(b"GET a\r\n") == b"-NOAUTH Authentication required.\r\n"
        assert client.config_get("requirepass") == {"requirepass": "pw"}
        assert client.acl_whoami() == "default"
        assert (
            "#30c952fab122c3f9759f02a6d95c3758b246b4fee239957b2d4fee46e26170c4"
            in client.acl_list()[0]
        )


def test_debug_is_for_local_clients(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "redis"))
    monkeypatch.setenv("REDIS_SIZE_MB", "16")
    importlib.import_module("redis_server")
    app = importlib.import_module("application").app
    assert app.ask(b"DEBUG SLEEP 0\r\n").startswith(b"-ERR DEBUG command not allowed.")


def test_what_graphical_clients_and_exporters_ask_first(ours):
    for words in (
        *(
            "INFO",
            "INFO all",
            "INFO everything",
            "CONFIG GET *",
            "CONFIG GET databases",
            "CLIENT LIST",
        ),
        *(
            "MODULE LIST",
            "COMMAND",
            "COMMAND DOCS",
            "SCAN 0 COUNT 100",
            "DBSIZE",
            "SLOWLOG GET 128",
        ),
        *(
            "LATENCY LATEST",
            "LATENCY HISTOGRAM",
            "MEMORY STATS",
            "MEMORY DOCTOR",
            "ACL LIST",
            "ROLE",
        ),
        *("CLIENT SETNAME redisinsight", "CLIENT NO-EVICT on", "PUBSUB CHANNELS", "FUNCTION LIST"),
        *(
            "OBJECT HELP",
            "LOLWUT",
            "TIME",
            "LASTSAVE",
            "CLIENT INFO",
            "COMMAND COUNT",
            "INFO keyspace cpu",
        ),
    ):
        said = asked(ours, *words.split())
        assert not (isinstance(said, str) and said.startswith(("unknown", "wrong"))), words


def test_a_pause_holds_the_writes_of_all_workers_until_it_ends(server, ours):
    ours.client_pause(60_000, all=False)
    try:
        with server.connect() as writer:
            writer.send(b"SET paused 1\r\n")
            assert [ours.get("paused") for _ in range(5)] == [None] * 5
            assert ours.client_unpause()
            assert writer.line() == "+OK"
        assert ours.get("paused") == "1"
    finally:
        ours.client_unpause()


@pytest.mark.parametrize(
    ("words", "nothing"),
    [
        (b"BLPOP nokey 0", "*-1"),
        (b"XREAD BLOCK 0 STREAMS nokey $", "*-1"),
        (b"BLMOVE a b LEFT LEFT 0", "*-1"),
    ],
)
def test_unblock_ends_the_wait_of_another_client(server, ours, words, nothing):
    with server.connect() as peer:
        peer.send(b"CLIENT ID\r\n")
        own = int(peer.line()[1:])
        assert ours.client_unblock(own) is False
        for error, reply in (
            (False, nothing),
            (True, "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
        ):
            peer.send(words + b"\r\n")
            server.until(lambda state: state["waiters"]["requests"])
            assert ours.info("clients")["blocked_clients"] == 1
            assert ours.client_unblock(own, error=error) is True
            assert peer.line() == reply
            server.until(lambda state: not state["waiters"]["requests"])
        assert ours.client_unblock(own) is False


def test_client_list_knows_subscribers(server, ours):
    with server.connect() as peer:
        peer.send(b"SUBSCRIBE a b\r\nPSUBSCRIBE c*\r\n")
        for _ in range(3 * 6):
            peer.line()
        (row,) = ours.client_list(_type="pubsub")
        assert (row["flags"], row["sub"], row["psub"]) == ("P", "2", "1")
        assert row["cmd"] == "psubscribe"
        peer.send(b"UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nRESET\r\n")
        while peer.line() != "+RESET":
            pass
        assert ours.client_list(_type="pubsub") == []
        peer.send(b"SUBSCRIBE a\r\n")
        for _ in range(6):
            peer.line()
        assert ours.client_kill_filter(_type="pubsub") == 1
        assert peer.rest() == b""
