"""Scripts of the Redis example: replies beside a real Redis, their limits, and clients that use them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import limits
import pytest
import redis
from limits.storage import RedisStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clients import scripts_twin
from tests.clients.harness import TIMEOUT, all_together, redis_client, redis_server
from tests.clients.redis_twin import Reader, packed
from tests.servers import EXAMPLES, run_server

REDIS = EXAMPLES / "redis" / "redis_server.py"
ENDLESS = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function f() while true do end end while true do xpcall(f, f) end",
    "xpcall(error, function() while true do end end)",
    "local function f() while true do redis.call('ping') end end while true do pcall(f) end",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("redis")
    with run_server(REDIS, directory, "--workers", "4", REDIS_SCRIPT_MB="8") as running:
        yield running


@pytest.fixture
def fresh(server):
    assert server.converse(b"FLUSHALL\r\nSCRIPT FLUSH\r\n") == b"+OK\r\n+OK\r\n"
    return server


@pytest.fixture
def r(fresh):
    with redis_client(fresh) as client:
        yield client


@pytest.fixture(scope="module")
def real_redis(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("real")) as number:
        yield number


@pytest.mark.parametrize("version", [2, 3])
def test_replies_to_scripts_equal_those_of_redis(fresh, real_redis, version):
    keys = [b"2", b"k1", b"k2", b"a1", b"a2"]
    requests = [[b"EVAL", text.encode(), *keys] for text in scripts_twin.ALL]
    requests += [[b"EVAL_RO", text.encode(), b"1", b"k"] for text in scripts_twin.READ_ONLY]
    replies = []
    for number in (real_redis, fresh.port):
        with socket.create_connection(("127.0.0.1", number), TIMEOUT) as sock:
            sock.sendall(packed([b"HELLO", b"%d" % version]) + packed([b"FLUSHALL"]))
            reader = Reader(sock.makefile("rb"))
            reader.reply()
            reader.reply()
            sock.sendall(b"".join(map(packed, requests)))
            replies.append([reader.reply() for _ in requests])
    for request, theirs, ours in zip(requests, *replies, strict=True):
        assert repr(ours) == repr(theirs), request[1]


def test_a_script_that_one_worker_was_given_runs_in_all_until_it_is_flushed(fresh):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(redis_client(fresh)) for _ in range(12)]
        sha = clients[0].script_load("return redis.call('incr', KEYS[1])")
        assert [one.evalsha(sha.upper(), 1, "n") for one in clients] == list(range(1, 13))
        assert clients[1].script_exists(sha, "0" * 40) == [True, False]
        assert clients[2].info("memory")["number_of_cached_scripts"] == 1
        assert clients[2].script_flush()
        for one in clients:
            with pytest.raises(redis.exceptions.NoScriptError, match="No matching script"):
                one.evalsha(sha, 1, "n")


@pytest.mark.parametrize("version", [2, 3])
def test_scripts_locks_and_pipelines_of_redis_py(fresh, version):
    with redis_client(fresh, protocol=version) as r:
        add = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        assert [add(keys=["n"], args=[5]), add(keys=["n"], args=[2])] == [5, 7]
        with r.pipeline() as pipe:
            add(keys=["n"], args=[1], client=pipe)
            pipe.get("n")
            pipe.eval("return {KEYS[1], ARGV[1]}", 1, "k", "a")
            assert pipe.execute() == [8, "8", ["k", "a"]]
        lock = r.lock("lock", timeout=100)
        assert lock.acquire(blocking=False)
        assert not r.lock("lock").acquire(blocking=False)
        assert lock.extend(100)
        assert lock.reacquire()
        lock.release()
        with pytest.raises(redis.exceptions.LockError):
            lock.release()


def test_rate_limits_of_the_package_limits(fresh):
    storage = RedisStorage(f"redis://{fresh.address}")
    twice = limits.parse("2/hour")
    for kind in (
        limits.strategies.FixedWindowRateLimiter,
        limits.strategies.MovingWindowRateLimiter,
        limits.strategies.SlidingWindowCounterRateLimiter,
    ):
        limiter = kind(storage)
        assert [limiter.hit(twice, kind.__name__) for _ in range(3)] == [True, True, False]
        assert limiter.get_window_stats(twice, kind.__name__).remaining == 0
        limiter.clear(twice, kind.__name__)
        assert limiter.test(twice, kind.__name__)


def test_scripts_in_different_workers_do_not_interleave(fresh):
    move = """
        local n = redis.call('incr', KEYS[1])
        for i = 1, 20 do redis.call('rpush', KEYS[2], n) end
        return redis.call('llen', KEYS[2])
    """

    def work(_number: int) -> None:
        with redis_client(fresh) as r:
            for _ in range(25):
                assert r.eval(move, 2, "n", "l") % 20 == 0

    all_together(4, work)

    with redis_client(fresh) as r:
        values = r.lrange("l", 0, -1)
    assert values == [str(number) for number in range(1, 101) for _ in range(20)]


def test_what_a_script_did_before_its_error_stays(r):
    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        r.eval("redis.call('set','a','1'); redis.call('lpush','a','x'); return 1", 0)
    assert r.get("a") == "1"


def test_a_script_in_a_transaction_is_a_part_of_it(r):
    with r.pipeline() as pipe:
        pipe.set("a", "1")
        pipe.eval("redis.call('incr','a'); redis.call('select', 5); error('no')", 0)
        pipe.eval("return redis.call('incr','a')", 0)
        pipe.eval_ro("return redis.call('get','a')", 0)
        pipe.get("a")
        done = pipe.execute(raise_on_error=False)
    assert [done[0], *done[2:]] == [True, 3, "3", "3"]
    assert "user_script:1: no" in str(done[1])


def test_what_a_script_publishes_is_sent_once_its_changes_are_committed(r, fresh):
    with redis_client(fresh) as other, other.pubsub() as subscriber:
        subscriber.subscribe("c")
        subscriber.psubscribe("c*")
        for _ in range(2):
            subscriber.get_message(timeout=TIMEOUT)
        script = """
            local count = redis.call('publish', 'c', 'm')
            for i = 1, 2000 do redis.call('incr', 'n') end
            redis.call('publish', 'c', redis.call('get', 'n'))
            return count
        """
        assert r.eval(script, 0) == 2
        said = [subscriber.get_message(timeout=TIMEOUT)["data"] for _ in range(4)]
        assert said == ["m", "m", "2000", "2000"]
        with r.pipeline() as pipe:
            pipe.publish("c", "from a transaction")
            pipe.eval("return redis.call('publish', 'c', 'from its script')", 0)
            assert pipe.execute() == [2, 2]
        said = [subscriber.get_message(timeout=TIMEOUT)["data"] for _ in range(4)]
        assert said == ["from a transaction"] * 2 + ["from its script"] * 2


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hasty")
    with run_server(REDIS, directory, "--workers", "1", "--request-timeout", "0.2") as running:
        yield running


@pytest.mark.parametrize("script", ENDLESS)
def test_an_endless_script_ends_at_its_deadline_and_has_changed_nothing(hasty_server, script):
    with redis_client(hasty_server) as r:
        r.set("a", "before")
        pids = hasty_server.pids()

        with pytest.raises(redis.ResponseError, match=r"took longer than 0\.2 s"):
            r.eval(f"redis.call('set', 'a', 'after'); redis.call('publish', 'c', 'm') {script}", 0)

        assert r.get("a") == "before"
        assert r.eval("return 1", 0) == 1
        assert hasty_server.pids() == pids


def test_a_script_in_c_code_that_does_not_return_costs_its_worker_alone(hasty_server):
    with (
        redis_client(hasty_server, retry=Retry(NoBackoff(), 0)) as r,
        pytest.raises(redis.ResponseError, match="took longer than"),
    ):
        r.eval("return string.find(('a'):rep(3000), ('.-'):rep(30) .. 'b')", 0)
    with redis_client(hasty_server) as r:
        assert r.eval("return redis.call('incr', 'n')", 0) == 1


@pytest.mark.parametrize("script", ENDLESS)
def test_script_kill_ends_scripts_of_other_workers(r, fresh, script):
    said: list[str] = []

    def run() -> None:
        with (
            redis_client(fresh) as other,
            contextlib.suppress(redis.ConnectionError),
        ):
            try:
                other.eval(f"redis.call('set', 'a', 'after'); {script}", 0)
            except redis.ResponseError as error:
                said.append(str(error))

    with pytest.raises(redis.ResponseError, match="No scripts in execution right now"):
        r.script_kill()
    thread = threading.Thread(target=run)
    thread.start()
    limit = time.monotonic() + TIMEOUT
    while time.monotonic() < limit:  # until it has run for a while
        with contextlib.suppress(redis.ResponseError):
            r.script_kill()
            break
    thread.join(TIMEOUT)
    assert said == ["Script killed by user with SCRIPT KILL..."]
    assert r.get("a") is None


@pytest.mark.parametrize(
    "script",
    [
        "return string.rep('x', 1e9)",
        "return #string.rep('x', 1e9)",
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(2000) .. i end",
        "local t = {} for i = 1, 1e9 do t[i] = redis.call('echo', ('x'):rep(2000) .. i) end",
        "local t = {} for i = 1, 1e9 do t[i] = {redis.pcall('x'), ('x'):rep(2000) .. i} end",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end",
        "return #redis.call('get', KEYS[1])",
        "return #redis.call('lrange', KEYS[2], 0, -1)",
        "return #redis.call('mget', KEYS[1], KEYS[1])",
        "return #struct.pack('s', string.rep('x', 4e6))",
        "local s = string.rep('x', 3e6); return #cjson.encode({s, s, s})",
        "local s = cmsgpack.pack(('x'):rep(3e6)); while true do s = s .. cmsgpack.unpack(s) end",
    ],
)
def test_a_script_without_memory_gets_an_error_and_the_next_one_runs(r, fresh, script):
    r.set("big", b"x" * 20_000_000)
    r.rpush("list", *[b"%d" % n + b"x" * 50_000 for n in range(200)])
    pids = fresh.pids()
    with pytest.raises(redis.ResponseError, match="the script has used all of its memory"):
        r.eval(script, 2, "big", "list")
    assert r.eval("return redis.call('strlen', KEYS[1])", 1, "big") == 20_000_000
    with pytest.raises(redis.ResponseError, match="the script has used all of its memory"):
        r.eval("return 1", 0, b"x" * 20_000_000)
    assert r.eval("return #ARGV[1]", 0, b"x" * 3_000_000) == 3_000_000
    assert fresh.pids() == pids


def test_what_scripts_no_longer_use_does_not_count_as_their_memory(r):
    for _ in range(20):
        assert r.eval("return #ARGV[1]", 0, b"x" * 3_000_000) == 3_000_000
        assert r.eval("return #string.rep('y', 1e6)", 0) == 1_000_000
    r.set("big", b"x" * 2_000_000)
    script = "local n = 0 for i = 1, 50 do n = n + #redis.call('get', KEYS[1]) end return n"
    assert r.eval(script, 1, "big") == 100_000_000
    script = "local n = 0 for i = 1, 50 do n = n + #(i .. string.rep('x', 5e5)) end return n"
    assert r.eval(script, 0) == 25_000_000 + 91


@pytest.mark.parametrize(
    "escape",
    [
        "return cjson.null.__class__",
        "return cjson.null()",
        "return redis.call.__globals__",
        "local ok, e = pcall(redis.call, 'nosuch'); return e.__class__.x",
        "local _, e = xpcall(function() redis.call('nosuch') end, function(e) return e end)"
        " return e.__traceback__.x",
        "local _, e = coroutine.resume(coroutine.create(function() redis.call('nosuch') end))"
        " return e.args.x",
        "return getmetatable(redis.call).__gc",
        "return getmetatable(cjson.null).__index",
        "return getfenv(0).python",
        "setfenv(1, {})",
        "return newproxy(true)",
        "return string.dump(redis.call)",
        "return load(string.dump(function() end))()",
        "return loadstring('return python')()",
        "return require('os')",
        "return debug.getregistry()",
        "return _G.os.execute('id')",
        "return io.open('/etc/passwd')",
        "getmetatable('').__index.rep = nil",
        "getmetatable('').__index = nil",
        "return package.loaded.os",
    ],
)
def test_a_script_cannot_leave_its_sandbox(r, escape):
    with pytest.raises(redis.ResponseError, match=r"user_script:1: |string .return python.]:1: "):
        r.eval(escape, 0)


@pytest.mark.parametrize(
    "call",
    [
        *("struct.pack('!0i4', 1)", "struct.pack('f', 1e300)", "struct.pack('i4', 0/0)"),
        *("struct.unpack('I4', 'abcd', 1/0)", "struct.pack()", "bit.band()", "bit.lshift(1)"),
        *("bit.tohex(1, {})", "redis.set_repl(0/0)", "redis.log(0/0, 'x')", "redis.sha1hex({})"),
        *("cmsgpack.unpack(('\\145'):rep(100000))", "cjson.decode(('['):rep(100000))"),
        *("coroutine.yield(1)", "unpack({}, 1, 1e7)", "math.random(0)", "error(redis)"),
    ],
)
def test_a_wrong_call_is_an_error_that_the_script_can_catch(r, call):
    caught = f"local ok, e = pcall(function() return {call} end); return {{tostring(ok), type(e)}}"
    assert r.eval(caught, 0) in (["false", "string"], ["false", "table"])
    with pytest.raises(redis.ResponseError, match=r"script: "):
        r.eval(f"local x = {call}; return 1", 0)


def test_nothing_of_a_script_is_left_for_the_next_one(r):
    r.eval("table.insert(_G, 'x'); table.insert(redis, 'x'); KEYS.x = 1", 0)
    r.eval("cjson.encode_number_precision(2); cjson.decode_max_depth(1); redis.setresp(3)", 0)
    left = r.eval("return {rawget(_G, 1) or 'no', redis[1] or 'no', KEYS.x or 'no'}", 0)
    assert left == ["no", "no", "no"]
    assert r.eval("return cjson.encode(cjson.decode('[[1.25]]'))", 0) == "[[1.25]]"
    r.hset("h", "f", "v")
    assert r.eval("return redis.call('hgetall', 'h')", 0) == ["f", "v"]


def test_without_lupa_scripts_get_an_error_that_says_what_to_install(tmp_path):
    (tmp_path / "lupa.py").write_text("raise ImportError('not here')\n")
    with (
        run_server(REDIS, tmp_path, "--workers", "1", PYTHONPATH=str(tmp_path)) as server,
        redis_client(server) as r,
    ):
        for call in (lambda: r.eval("return 1", 0), lambda: r.script_load("return 1")):
            with pytest.raises(redis.ResponseError, match="pip install lupa"):
                call()
        assert r.script_exists("0" * 40) == [False]
        assert r.set("a", "1")
