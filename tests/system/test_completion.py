"""``linepool completion`` in real shells."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from linepool import cli
from linepool.operate.command_list import COMMANDS
from tests.servers import ENVIRONMENT, TIMEOUT

# What is typed, the last word unfinished, and some of what completes it.
TYPED = [
    ("linepool st", ["status", "stacks", "stop"]),
    ("linepool completion ", ["bash", "zsh", "fish"]),
    ("linepool s", ["shell", "stub"]),
    ("linepool ev", ["events"]),
    ("linepool events --st", ["--stacks"]),
    ("linepool run --inc", ["--incidents"]),
    ("linepool to", ["top"]),
    ("linepool top --in", ["--interval"]),
    ("linepool status --w", ["--watch"]),
    ("linepool stub --ch", ["--check", "--chdir"]),
    ("linepool stub su", ["sums.py"]),
    ("linepool shell --tls-ca line", ["linepool.toml"]),
    ("linepool call --ti", ["--timeout"]),
    ("linepool run --work", ["--workers"]),
    ("linepool run sums.py --scheme ", ["shared", "dispatch", "accept"]),
    ("linepool run sums.py --grow-on-cpu ", ["on", "off"]),
    ("linepool run su", ["sums.py"]),
    ("linepool check sums.py --config line", ["linepool.toml"]),
    ("linepool check sums.py -c line", ["linepool.toml"]),
    ("linepool run sums.py --chdir s", ["srv"]),
]
BASH = """
source ./script
typed() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMPREPLY=()
    _shtab_linepool "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
}
"""


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], request) -> Path:
    """A directory with some files and the script for a shell."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    assert cli.main(["completion", request.param]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out, encoding="utf-8")
    for name in ("sums.py", "linepool.toml"):
        (tmp_path / name).touch()
    (tmp_path / "srv").mkdir()
    return tmp_path


def run(where: Path, *words: str) -> list[str]:
    done = subprocess.run(
        words,
        cwd=where,
        env={**ENVIRONMENT, "HOME": str(where)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert not done.stderr
    return [line.partition("\t")[0].strip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("here", ["bash"], indirect=True)
def test_bash_completes(here):
    for line, expected in TYPED:
        words = " ".join(f"'{word}'" for word in line.split(" "))
        assert set(expected) <= set(run(here, "bash", "-c", f"{BASH}\ntyped {words}")), line


@pytest.mark.parametrize("here", ["fish"], indirect=True)
def test_fish_completes(here):
    script = "source script; " + "; ".join(
        f"complete -C '{line}'; echo -- ---" for line, _ in TYPED
    )
    found = "\n".join(run(here, "fish", "--no-config", "-c", script)).split("---")
    for (line, expected), shown in zip(TYPED, found, strict=False):
        assert set(expected) <= {word.rstrip("/") for word in shown.split()}, line


@pytest.mark.parametrize("here", ["zsh"], indirect=True)
def test_zsh_takes_the_script(here):
    (here / "script").rename(here / "_linepool")
    script = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -uD; print $_comps[linepool]"
    assert run(here, "zsh", "-fc", script) == ["_linepool"]
    text = (here / "_linepool").read_text(encoding="utf-8")
    assert all(f"{name}:" in text for name in COMMANDS)


def test_without_the_package_the_error_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)

    assert cli.main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == (
        "linepool: completion needs the package shtab: pip install 'linepool[completion]'\n"
    )
