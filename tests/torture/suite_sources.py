"""Where the tests of Redis and of redis-py come from: nothing of them is in this repository.

A directory named by ``REDIS_SOURCE`` or ``REDIS_PY_SOURCE`` is used as it is. Otherwise Redis' sources are
those of the distribution's package, and redis-py's those of its own source distribution; both are kept
in ``build/suites``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

from tests.servers import ROOT

KEPT = ROOT / "build" / "suites"
_LIMIT_S = 300
_REDIS_PY = "8.1.0"
_NEEDED = ("pytest<9.1", "pytest-asyncio", "pytest-timeout", "packaging", "numpy", "PyJWT")


def redis_source() -> Path:
    """Return the directory of Redis' sources, which has its tests in Tcl."""
    return _source("REDIS_SOURCE", KEPT / "redis", "tests/test_helper.tcl", _download_redis)


def redis_py_source() -> Path:
    """Return the directory of redis-py's sources, which has its tests."""
    return _source("REDIS_PY_SOURCE", KEPT / "redis-py", "tests/conftest.py", _download_redis_py)


def redis_py_python() -> str:
    """Return a Python with what redis-py's tests need; redis-py itself is that of its sources."""
    python = KEPT / "venv" / "bin" / "python"
    if not (KEPT / "venv" / "ready").exists():
        venv.create(KEPT / "venv", with_pip=True, clear=True)
        _run(str(python), "-m", "pip", "install", "--quiet", *_NEEDED)
        (KEPT / "venv" / "ready").touch()
    return str(python)


def _source(variable: str, kept: Path, witness: str, download) -> Path:
    if named := os.environ.get(variable):
        assert (Path(named) / witness).exists(), f"{variable}={named} has no {witness}"
        return Path(named).resolve()
    if not (kept / witness).exists():
        kept.mkdir(parents=True, exist_ok=True)
        try:
            download(kept)
        except (subprocess.SubprocessError, OSError) as error:
            output = getattr(error, "stderr", "") or ""
            pytest.skip(f"no sources: {error} {output[-300:]}; {variable} may name their directory")
    return kept


def _download_redis(kept: Path) -> None:
    """Download the source package; the lists of source packages are kept apart from the system's own."""
    for directory in ("lists/partial", "cache/archives/partial", "parts"):
        (kept / directory).mkdir(parents=True, exist_ok=True)
    for found in Path("/etc/apt/sources.list.d").glob("*.sources"):
        text = re.sub(r"^Types:.*", "Types: deb-src", found.read_text(), flags=re.M)
        (kept / "parts" / found.name).write_text(text)
    lines = Path("/etc/apt/sources.list")
    plain = lines.read_text() if lines.exists() else ""
    (kept / "parts" / "plain.list").write_text(re.sub(r"^deb ", "deb-src ", plain, flags=re.M))
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": kept / "parts",
        "Dir::State::Lists": kept / "lists",
        "Dir::Cache": kept / "cache",
        "APT::Sandbox::User": "root",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run("apt-get", "-qq", *words, "update", cwd=kept)
    _run("apt-get", "-qq", *words, "source", "--download-only", "redis", cwd=kept)
    _unpack(next(kept.glob("redis_*.orig.tar.*")), kept)


def _download_redis_py(kept: Path) -> None:
    options = ("--quiet", "--no-deps", "--no-binary", "redis")
    _run(sys.executable, "-m", "pip", "download", *options, f"redis=={_REDIS_PY}", cwd=kept)
    _unpack(next(kept.glob("redis-*.tar.gz")), kept)


def _unpack(archive: Path, directory: Path) -> None:
    """Unpack an archive without the directory at its top."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            _, _, member.name = member.name.partition("/")
            if member.name:
                tar.extract(member, directory, filter="data")


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
