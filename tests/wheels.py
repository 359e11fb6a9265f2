"""Build what is published, and try it as users get it: the source distribution, wheels, and no compiler.

Everything is built from the source distribution, and installed into virtualenvs outside of the tree. Needs
the package index for attrs, setuptools and Cython. Run with ``./dev wheels [PYTHON ...]``. ``dist/`` then has
what is published (``tests/published.py``); wheels for the Pythons of this machine are only tried.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from linepool.core import VARIABLE
from tests import published

ROOT = published.ROOT
SOURCES = sorted((ROOT / "linepool/core").glob("*.pyx"))
PLACES = [*Path.home().glob(".pyenv/versions/*/bin/python"), *Path("/usr/bin").glob("python3.??")]
OLDEST = (3, 11)
ASK = """
import ensurepip, os, platform, sys, sysconfig
os.stat(sysconfig.get_path("include") + "/Python.h")
print(*sys.version_info[:2], platform.python_implementation())
"""
APP = """
import linepool

@linepool.handler
def add(a: int, b: int) -> int:
    return a + b

@linepool.handler
def visits(session: linepool.Session) -> int:
    session["n"] = session.get("n", 0) + 1
    return session["n"]
"""
REQUESTS = b"ADD 2 3\nVISITS\nADD 2 x\nVISITS\n" + b"ADD 40 2\n" * 1000
REPLIES = b"5\n1\nCLIENT_ERROR b must be int, not 'x'. Usage: ADD a:int b:int\n2\n" + b"42\n" * 1000
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("LINEPOOL_")
}


def main(pythons):
    """Build and try all; with the Pythons that are named, otherwise with all that are found."""
    pythons = pythons or found()
    source, pure = published.build()
    try_wheels(source, pure, pythons)
    names = sorted(path.name for path in published.DIST.iterdir())
    print(f"built and tried, in {published.DIST}:", *names, sep="\n  ")


def try_wheels(source, pure, pythons):
    """Build the compiled wheel of each Python; install it, the pure one and the source distribution."""
    for python in pythons:
        with tempfile.TemporaryDirectory(prefix="linepool-wheels-") as name:
            place = Path(name)
            run(python, "-m", "venv", place / "build")
            built = wheel(place / "build/bin/pip", source, place / "wheel")
            assert sorted(modules(built)) == [path.stem for path in SOURCES], built
            smoke(python, built, place / "compiled", "compiled")
            run_tests(place / "compiled")
            assert not modules(pure)
            smoke(python, pure, place / "pure", "pure")
            nowhere = place / "no-compiler"
            smoke(python, source, nowhere, "pure", PATH=str(nowhere / "bin"))


def found():
    """Return the Pythons in ``PLACES`` that linepool supports and that have pip and headers."""
    fit = {}
    for python in sorted(PLACES):
        words = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=False)
        version, _, kind = words.stdout.strip().rpartition(" ")
        if kind == "CPython" and tuple(map(int, version.split())) >= OLDEST:
            fit[python.resolve()] = python
    return list(fit.values())


def wheel(pip, source, place):
    """Build the compiled wheel in a directory, as cibuildwheel does; return its path."""
    build = [pip, "wheel", "--quiet", "--no-deps", "--no-cache-dir", "--wheel-dir", place]
    run(*build, source, **{VARIABLE: "0"})
    (made,) = place.iterdir()
    return made


def modules(built):
    """Return the names of the extension modules in a wheel; each has its types beside it."""
    with zipfile.ZipFile(built) as archive:
        names = [Path(name) for name in archive.namelist() if "linepool/core/" in name]
    assert {path.stem for path in SOURCES} <= {path.stem for path in names if path.suffix == ".pyi"}
    assert not [path for path in names if path.suffix in (".c", ".pyx")]
    return [path.name.split(".")[0] for path in names if path.suffix == ".so"]


def run_tests(directory):
    """Run the core's own tests on what is installed in a virtualenv."""
    tests = directory / "work"
    shutil.copytree(ROOT / "tests", tests / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "examples", tests / "examples")
    shutil.copy(ROOT / "pyproject.toml", tests)
    run(directory / "bin/pip", "install", "--quiet", "pytest >= 9", "hypothesis >= 6.100")
    chosen = sorted(tests.glob("tests/unit/test_core*.py"))
    print(run(directory / "bin/python", "-m", "pytest", "-q", *chosen, cwd=tests), flush=True)


def smoke(python, package, directory, kind, **environment):
    """Install a package into a fresh virtualenv, serve requests, and compare what says which core runs."""
    run(python, "-m", "venv", directory)
    run(directory / "bin/pip", "install", "--quiet", "--no-cache-dir", package, **environment)
    linepool = directory / "bin/linepool"
    about = run(linepool, "--version", cwd=directory).strip()
    assert {"compiled": "compiled core", "pure": "pure Python (the comp"}[kind] in about, about
    (directory / "sums.py").write_text(APP)
    with subprocess.Popen(
        [linepool, "run", "sums.py", "--bind", "unix:s", "--control", "c"],
        cwd=directory,
        env=CLEAN,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stderr is not None
            assert any(line.startswith("ready:") for line in server.stderr), about
            assert ask(directory / "s") == REPLIES
            status = run(linepool, "status", "--json", "--control", "c", cwd=directory)
            assert json.loads(status)["core"] == kind
        finally:
            server.terminate()
    assert server.returncode == 0
    print(f"{package.name}: {about}", flush=True)


def ask(path):
    """Send the requests to a unix socket; return all replies."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(os.path.relpath(path))
        client.sendall(REQUESTS)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def run(*words, cwd=None, **environment):
    """Run a program; return what it writes. It must succeed."""
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd or tempfile.gettempdir(),
        env=CLEAN | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
