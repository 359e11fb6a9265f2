"""memcached's own tests, and those of pymemcache, with the memcached example.

They are not part of linepool, and nothing is fetched: without their sources these tests are skipped.

    MEMCACHED_SOURCE=~/memcached-1.6.45 PYMEMCACHE_SOURCE=~/pymemcache-4.0.0 ./dev torture -k memcached

If memcached has been built there (``make memcached-debug timedrun``), its tests run with it, too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import EXAMPLES, ROOT, run_server
from tests.torture.table import show_table

_LIMIT_S = 180  # of one file of tests
_SLABS = "slabs, and their sizes"
_OPTIONS = "options of the daemon"
_OTHER = re.compile(r"proxy|extstore|ssl_|sasl|watcher|binary|udp|dash-M")  # not served
_REASONS = {  # of files of which some tests fail: what they test that the example does not have
    "00-startup.t": _OPTIONS,
    "64bit.t": _SLABS,
    "ascii-auth.t": "-Y: the example has no log-in",
    "ascii-auth2.t": "-Y: the example has no log-in",
    "conn-limits.t": "limits of memcached's buffers",
    "daemonize.t": _OPTIONS,
    "dyn-maxbytes.t": _SLABS,
    "expirations.t": "debugtime: a command of the debug build",
    "flush-all.t": "-F, and debugtime",
    "idle-timeout.t": "the counter idle_kicks",
    "issue_14.t": _SLABS,
    "issue_163.t": _SLABS,
    "issue_183.t": "the counter reclaimed, at once",
    "issue_22.t": _SLABS,
    "issue_29.t": _SLABS,
    "issue_42.t": _SLABS,
    "issue_50.t": "memory of a larger limit",
    "issue_61.t": "the counter conn_yields",
    "issue_67.t": _OPTIONS,
    "item_size_max.t": _OPTIONS,
    "lru-crawler.t": "slabs; nothing may come before metadump",
    "lru-maintainer.t": "the lists of the LRU",
    "lru.t": _SLABS,
    "malicious-commands.t": "DELETE HTTP/1.1 is two words, and so a command",
    "maxconns.t": "the counter rejected_connections with -c",
    "restart.t": "warm restarts with -e",
    "shutdown.t": "-A: shutdown is refused",
    "slabs-cas.t": _SLABS,
    "slabs-mover.t": _SLABS,
    "slabs-reassign-chunked.t": _SLABS,
    "slabs-reassign2.t": _SLABS,
    "slabs_reassign.t": _SLABS,
    "stats-conns.t": "stats conns",
    "stats.t": "counters that have no meaning here",
}


def source(name: str) -> Path:
    """Return the directory that an environment variable names, or skip the test."""
    if not os.environ.get(name):
        pytest.skip(f"{name} is not set: the directory of a source that is not part of linepool")
    return Path(os.environ[name])


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def passed(directory: Path, name: str) -> tuple[bool, str]:
    """Run a file of tests; return whether it has passed, and how many of its tests have."""
    try:
        done = subprocess.run(
            ["perl", f"t/{name}"],
            cwd=directory,
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "too long"
    good = len(re.findall(rb"^ok", done.stdout, re.MULTILINE))
    plan = re.search(rb"^1\.\.([0-9]+)", done.stdout, re.MULTILINE)
    return not done.returncode, f"{good} of {int(plan[1]) if plan else '?'}"


def test_the_tests_of_memcached(tmp_path):
    memcached = source("MEMCACHED_SOURCE")
    (tmp_path / "t").symlink_to(memcached / "t")
    adapter = Path(__file__).with_name("as_memcached.py")
    script(tmp_path / "memcached-debug", f'PYTHONPATH={ROOT} exec {sys.executable} {adapter} "$@"')
    script(tmp_path / "timedrun", 'shift; exec "$@"')
    is_built = (memcached / "memcached-debug").exists() and (memcached / "timedrun").exists()
    rows, surprises = [], []
    for path in sorted((memcached / "t").glob("*.t")):
        if _OTHER.search(path.name):
            continue
        ours, count = passed(tmp_path, path.name)
        theirs, their_count = passed(memcached, path.name) if is_built else (True, "not built")
        reason = "" if ours else _REASONS.get(path.name, "?")
        rows.append((path.name, count, their_count, reason))
        if not ours and theirs and path.name not in _REASONS:
            surprises.append(path.name)
    show_table(("file", "linepool", "memcached", "reason"), rows)
    assert not surprises


def test_the_tests_of_pymemcache(tmp_path):
    pymemcache = source("PYMEMCACHE_SOURCE")
    example = EXAMPLES / "memcached" / "memcached.py"
    with run_server(example, tmp_path, "--workers", "4") as server:
        where = ["--server", "127.0.0.1", "--port", str(server.port)]
        options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", *where]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "pymemcache/test/test_integration.py", *options],
            cwd=pymemcache,
            capture_output=True,
            text=True,
            check=False,
        )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
