"""The command line: its commands, its help, and what a wrong word gets."""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import subprocess
import sys

import pytest

from linepool import cli
from linepool.operate.command_list import COMMANDS
from linepool.operate.parser import Parser

HEAVY = {"asyncio", "attrs", "difflib", "tomllib", "linepool.app", "linepool.settings"}
if sys.version_info < (3, 14):  # whose argparse needs it
    HEAVY.add("inspect")
CLIENTS = ["status", "stacks", "health", "reload", "scale", "stop"]


def main(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit status of a command line, and what it prints."""
    try:
        status = cli.main(words)
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_list_of_commands_is_complete():
    """A command that is not in it cannot be given."""
    for module in {command.module for command in COMMANDS.values()}:
        added: argparse._SubParsersAction[Parser]
        added = Parser(prog="linepool").add_subparsers(parser_class=Parser)
        importlib.import_module(f"linepool.operate.{module}").add_to(added)
        assert set(added.choices) == {name for name in COMMANDS if COMMANDS[name].module == module}


def test_the_help_shows_every_command(capsys):
    status, out, _ = main(capsys, "--help")

    assert status == 0
    for name, command in COMMANDS.items():
        assert any(line.split(None, 1) == [name, command.summary] for line in out.splitlines())


def test_without_arguments_the_help_is_shown_as_an_error(capsys):
    _, out, _ = main(capsys, "--help")

    assert main(capsys) == (2, "", out)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["rnu"], "unknown command 'rnu'; did you mean run?"),
        (["restart"], "unknown command 'restart'; did you mean reload?"),
        (["sums.py"], "unknown command 'sums.py'; to serve it: linepool run sums.py"),
        (["shop:app"], "unknown command 'shop:app'; to serve it: linepool run shop:app"),
        (
            ["--bind", ":7000", "run"],
            "the command comes first, then its options: linepool run TARGET --bind ...",
        ),
    ],
)
def test_a_wrong_command_gets_what_would_be_right(capsys, words, answer):
    assert main(capsys, *words) == (2, "", f"linepool: {answer} (see linepool --help)\n")


def test_a_command_that_is_like_no_other_gets_a_list(capsys):
    status, _, error = main(capsys, "zzz")

    assert status == 2
    assert "choose one of new, run, check," in error


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in CLIENTS)])
def test_a_command_imports_only_what_it_needs(words):
    code = (
        "import sys; from linepool.cli import main\n"
        f"try: main({words})\n"
        "except SystemExit: pass\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


def test_the_help_of_run_shows_groups_choices_defaults_and_variables(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = main(capsys, "run", "--help")
    one_line = " ".join(out.split())

    for group in ("listening", "pool", "limit", "operation", "log", "process"):
        assert f"\n{group} settings:\n" in out
    assert "--scheme {shared,dispatch,accept}" in one_line
    assert "(default: 30) [LINEPOOL_REQUEST_TIMEOUT]" in one_line
    for short, long, name in (("b", "bind", "ADDRESS"), ("w", "workers", "N-OR-MIN:MAX")):
        # Python 3.13 names it once.
        assert re.search(rf"-{short}( {name})?, --{long} {name} ", one_line)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_description_and_an_example(capsys, name):
    _, out, _ = main(capsys, name, "--help")

    assert out.startswith(f"usage: linepool {name} [OPTIONS]")
    assert f"\n  linepool {name}" in out.partition("\nexample")[2]
    assert out.split("\n\n")[1][0].isupper()


def test_help_and_version_have_short_options(capsys):
    assert main(capsys, "-h") == main(capsys, "--help")
    assert main(capsys, "-V") == main(capsys, "--version")


def test_a_key_that_interrupts_a_load_is_seen_in_the_exit_status(capsys, tmp_path, monkeypatch):
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    assert main(capsys, "check", "interrupted.py") == (128 + signal.SIGINT, "", "")
