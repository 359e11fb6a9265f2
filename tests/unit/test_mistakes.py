"""What users of gunicorn, uvicorn and granian write at first, and the one line that they get.

``python -m tests.unit.test_mistakes`` prints the table.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from linepool import cli
from linepool.operate.elsewhere import ANSWERS, options_in
from linepool.operate.options import add_settings
from linepool.operate.parser import Parser

WSGI = "def application(environ, start_response):\n    return []\n"
ONE_KIND = "there is one kind of worker; --scheme says how connections reach it"
STAYS = "a server stays in the foreground: 'linepool unit' prints a systemd service for it"
TIMEOUT = "use --request-timeout S, and --kill-grace S for handlers that ignore it"

# The command line, part of its answer, and its exit status.
MISTAKES = [
    ("sums:app --workers 4", "unknown command 'sums:app'; to serve it: linepool run sums:app", 2),
    ("serve sums.py", "unknown command 'serve'; did you mean run?", 2),
    ("restart", "unknown command 'restart'; did you mean reload?", 2),
    ("-w 4 sums:app", "the command comes first, then its options: linepool run TARGET -w ...", 2),
    ("run sums.py --timeout 60", f"unknown argument --timeout; {TIMEOUT}", 2),
    ("run sums.py --host 0.0.0.0", "unknown argument --host; use --bind HOST:PORT", 2),
    ("run sums.py --port=80", "unknown argument --port=80; use --bind HOST:PORT", 2),
    ("run -k gevent sums.py", f"unknown argument -k; {ONE_KIND}", 2),
    ("run sums.py --threads 8", "give more --workers", 2),
    ("run --daemon", f"unknown argument --daemon; {STAYS}", 2),
    ("run sums.py --preload", "the app is always loaded before the workers are forked", 2),
    ("run sums.py --certfile a.pem", "unknown argument --certfile; use --tls-cert FILE", 2),
    ("run sums.py --loglevel debug", "use --log-level {debug,info,warning,error}", 2),
    ("run sums.py --pid x.pid", "unknown argument --pid; use --pid-file PATH", 2),
    ("run sums.py --max-worker-memory 300", "use --max-rss-mb MIB", 2),
    ("run --check-config sums.py", "use 'linepool check TARGET'", 2),
    ("run sums.py --wrokers 4", "unknown argument --wrokers; did you mean --workers?", 2),
    ("check sums.py -c gunicorn.conf.py", "settings are written in TOML, as in linepool.toml", 2),
    ("check sums.py -c old.toml", "'timeout'; did you mean 'request_timeout'?", 2),
    ("check sums.py -w auto", "workers must be N or MIN:MAX, such as 4 or 2:32, not 'auto'", 2),
    ("check sums.py -b 0.0.0.0", "bind must be with a port: 0.0.0.0:7000", 2),
    ("check sums.py -b http://[::]:80", "bind must be without a scheme: [::]:80", 2),
    ("check sums.py --max-requests-jitter 50", "must be a fraction, at least 0 and at most 1", 2),
    ("check sums.py --log-level critical", "must be debug or info or warning or error", 2),
    (
        "check wsgi.py:application",
        "application is a function with parameters, such as a WSGI app",
        1,
    ),
    ("check nowhere:app", "it is neither beside the target nor installed for", 1),
    ("unit sums.py -w 0", "a service has workers: workers = 0 is for a debugger", 1),
    ("simulate --burst 2 -w 0", "workers = 0 is for a debugger: there is no pool to simulate", 1),
    ("check sums.py -w 0:3", "workers must be N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0", 2),
    ("kill worker-3", "argument SLOT: must be the number that status shows, not 'worker-3'", 2),
    (f"kill {'9' * 5000}", "argument SLOT: must be the number that status shows", 2),
    (f"simulate --burst {'9' * 5000}", "argument --burst: must be a whole number from 1 to", 2),
    ("simulate --burst \N{ARABIC-INDIC DIGIT ONE}", "must be a whole number from 1 to", 2),
    (f"check sums.py --user {'9' * 5000}", "does not exist", 2),
]


def files(directory: Path) -> None:
    """Write what the command lines name."""
    (directory / "sums.py").write_text("", encoding="utf-8")
    (directory / "wsgi.py").write_text(WSGI, encoding="utf-8")
    (directory / "gunicorn.conf.py").write_text("def on_exit(server): ...\n", encoding="utf-8")
    (directory / "old.toml").write_text("timeout = 60\n", encoding="utf-8")


def answer(line: str) -> tuple[int, str]:
    """Return the exit status and the output of a command line."""
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            status = cli.main(line.split())
        except SystemExit as end:
            status = int(end.code or 0)
    return status, error.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with these files, and what loading an app changes put back."""
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name in ("wsgi", "sums"):
            del sys.modules[name]


@pytest.mark.parametrize(("line", "expected", "status"), MISTAKES)
@pytest.mark.usefixtures("here")
def test_a_mistake_gets_one_line_that_says_what_would_be_right(line, expected, status):
    found, text = answer(line)

    assert expected in text
    assert text.count("\n") == 1
    assert found == status


def test_every_answer_names_options_that_exist():
    parser = Parser(prog="linepool run")
    add_settings(parser)
    wanted = {one for text in ANSWERS.values() for one in options_in(text)}

    assert wanted - set(parser._option_string_actions) <= {"--access-log"}
    assert not set(ANSWERS) & set(parser._option_string_actions)


def test_a_script_keeps_its_own_options_when_one_of_ours_is_wrong(capsys):
    parser = Parser(prog="sums.py", leaves_others=True)
    add_settings(parser)
    with pytest.raises(SystemExit):
        parser.parse_known_args(["--verbose", "--workers"])

    assert "argument -w/--workers: expected one argument" in capsys.readouterr().err


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        files(Path(place))
        os.chdir(place)
        print("| linepool ... | exit status | answer |\n|---|--:|---|")
        for words, *_ in MISTAKES:
            result, said = answer(words)
            print(f"| `{words}` | {result} | {said.strip()} |")
