"""Clients from npm with examples/redis and examples/memcached, from the scripts in ``node/``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import EXAMPLES, ROOT, TIMEOUT, run_server

_SCRIPTS = Path(__file__).parent / "node"
_KEPT = ROOT / "build" / "suites" / "npm"
_PACKAGES = ("ioredis@6.0.0", "bullmq@6.7.0", "redis@6.3.1", "memcached@2.2.2", "memjs@1.3.2")
_INSTALL_S = 300


@pytest.fixture(scope="module")
def packages():
    """Install the packages; a script finds them if it is beside them."""
    _KEPT.mkdir(parents=True, exist_ok=True)
    options = ("--prefix", str(_KEPT), "--no-audit", "--no-fund", "--loglevel=error")
    subprocess.run(["npm", "install", *options, *_PACKAGES], check=True, timeout=_INSTALL_S)
    for script in _SCRIPTS.glob("*.mjs"):
        shutil.copy(script, _KEPT)
    return _KEPT


@pytest.mark.parametrize("client", ["ioredis", "node_redis", "bullmq"])
def test_node_client(packages, tmp_path, client):
    with run_server(EXAMPLES / "redis" / "redis_server.py", tmp_path, "--workers", "4") as server:
        run(packages, client, REDIS_URL=f"redis://{server.address}")


@pytest.mark.parametrize("client", ["memcached", "memjs"])
def test_node_client_of_memcached(packages, tmp_path, client):
    example = EXAMPLES / "memcached" / "memcached.py"
    with run_server(example, tmp_path, "--workers", "4") as server:
        run(packages, client, MEMCACHED_SERVER=server.address)


def run(packages: Path, client: str, **environment: str) -> None:
    done = subprocess.run(
        ["node", f"{client}.mjs"],
        cwd=packages,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
