"""``linepool stub``: what it prints is checked by mypy, and called at a real server. Pyright: torture."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from linepool import App, ClientError, JsonRpc, cli
from linepool.client import Command
from linepool.idempotent import is_marked
from linepool.stubs.module import module
from linepool.testing import client, serve
from tests.examples.test_client_page import PAGE
from tests.examples.test_docs import blocks
from tests.handlers import wide
from tests.servers import ROOT

CALLER = ROOT / "tests/handlers/wide_caller.py"
MISTAKES = """\
from wide_client import Node, WideShopClient

shop = WideShopClient("7000")
shop.grow("x")
shop.grow(Node("x"), tims=2)
shop.date("2026-01-31")
text: str = shop.mean(1, 2)
shop.defaults(mode="of")
shop.put("a", data="text")
Node(nme="x")
for node in shop.nodes(2):
    node.nme
shop.fro()
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory with the stub of the wide app, and a program that calls it."""
    found = tmp_path_factory.mktemp("stub")
    assert stub(ROOT / "tests/handlers/wide.py:app", "-o", found / "wide_client.py") == 0
    assert stub(ROOT / "examples/services/fraud.py:app", "-o", found / "fraud_client.py") == 0
    shutil.copy(CALLER, found)
    (found / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    return found


def stub(*words: object) -> int:
    return cli.main(["stub", *map(str, words)])


def run(*words: object, cwd: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run a program of this Python; return its exit status and what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_command_is_called_by_its_method(directory):
    with serve(wide.app, workers=1) as server:
        found = run(CALLER, server.address, PYTHONPATH=f"{directory}:{ROOT}")
        assert found == (0, "all called\n")
        assert stub(server.address, "-o", directory / "served.py") == 0
    assert (directory / "served.py").read_text() == (directory / "wide_client.py").read_text()


def test_mypy_accepts_the_stub_and_finds_mistakes_of_its_callers(directory):
    files = [directory / name for name in ("wide_client.py", "fraud_client.py", "wide_caller.py")]
    checked = "mypy", "--strict", "--config-file", ROOT / "pyproject.toml"
    assert run("-m", *checked, *files, MYPYPATH=str(directory)) == (
        0,
        "Success: no issues found in 3 source files\n",
    )
    status, out = run("-m", *checked, directory / "mistakes.py", MYPYPATH=str(directory))
    assert status == 1
    wrong = {int(line.split(":")[1]) for line in out.splitlines() if ": error:" in line}
    assert wrong == lines_with_mistakes(), out


def test_a_stub_speaks_json_rpc_and_is_called_without_a_server(tmp_path, monkeypatch):
    app = App("sums", protocol=JsonRpc())

    @app.handler("sum.of")
    def sum_of(numbers: list[Decimal], *, twice: bool = False) -> list[Decimal]:
        total = sum(numbers, Decimal(0))
        return [total, total * (2 if twice else 1)]

    document = {**app.freeze().document, "protocol": "JsonRpc"}
    (tmp_path / "sums_client.py").write_text(module(document), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sums_client = importlib.import_module("sums_client")

    with client(app, sums_client.Sums) as local:
        assert local.sum_of([Decimal(1), Decimal("2.5")], twice=True) == [Decimal("3.5"), 7]
    with serve(app, workers=1) as server, sums_client.Sums(server.address) as sums:
        assert sums.sum_of([Decimal(1)]) == [1, 1]
        with pytest.raises(ClientError, match="numbers must be a list"):
            sums.sum_of("x")


def test_the_page_shows_what_is_printed(directory):
    source = (directory / "fraud_client.py").read_text(encoding="utf-8")
    (shown,) = [one for one in blocks(PAGE, "") if one.startswith('"""Clients of fraud')]
    for part in shown.split("...\n"):
        assert part in source
    size = f"is {len(source.splitlines())} lines, {round(len(source) / 1000)} KB"
    assert size in PAGE


def test_what_is_idempotent_may_be_called_twice(directory):
    source = (directory / "wide_client.py").read_text(encoding="utf-8")
    (line,) = [line for line in source.splitlines() if line.startswith("_NOTHING =")]
    assert line.endswith('("NOTHING", None, idempotent=True)')
    assert is_marked(Command("NOTHING", None, idempotent=True))
    assert not is_marked(Command("NOTHING", None))


def lines_with_mistakes() -> set[int]:
    """Return the numbers of the lines of ``MISTAKES`` that a type checker must find."""
    lines = MISTAKES.splitlines()
    right = {"", lines[0], lines[2], "for node in shop.nodes(2):"}
    return {number for number, line in enumerate(lines, 1) if line not in right}


@pytest.mark.parametrize("width", [88, 100, 120])
def test_a_formatter_leaves_the_stub_as_it_is(directory, width):
    checked = "ruff", "format", "--isolated", "--diff", "--line-length", width
    status, out = run("-m", *checked, directory / "wide_client.py", directory / "fraud_client.py")
    assert (status, out) == (0, "2 files already formatted\n")
    lines = (directory / "wide_client.py").read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 100


def test_a_stale_file_is_found(directory, capsys):
    file = directory / "stale.py"
    target = ROOT / "examples/services/fraud.py:app"
    assert stub(target, "-o", file, "--check") == 1
    assert f"{file} does not exist; make it anew: linepool stub {target}" in capsys.readouterr().err
    assert stub(target, "-o", file) == 0
    assert stub(target, "-o", file, "--check") == 0
    file.write_text(file.read_text() + "\n")
    assert stub(target, "-o", file, "--check", "--name", "Sums") == 1
    error = capsys.readouterr().err
    assert "is not what the app's schema gives; make it anew" in error
    assert error.endswith("--name Sums\n")


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        (["nofile.py"], 1, "file nofile.py does not exist"),
        (["127.0.0.1:1"], 1, "cannot connect to 127.0.0.1:1: Connection refused"),
        (["99999999"], 2, "address must be with a port up to 65535"),
        (["x.py", "--check"], 2, "--check compares with a file: add -o FILE"),
        (["x.py", "--name", "class"], 2, "--name must be a name of a class, such as Fraud"),
        (
            ["examples/mailbox/smtp.py:app"],
            1,
            "a stub cannot call Dialogue as the app has it",
        ),
        (
            ["examples/services/fraud.py:app", "-o", "/nowhere/x.py"],
            1,
            "cannot write /nowhere/x.py: No such file",
        ),
    ],
)
def test_a_mistake_is_named(words, status, error, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert stub(*words) == status
    assert capsys.readouterr().err.startswith(f"linepool: {error}")
