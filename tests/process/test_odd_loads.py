"""Apps whose code does to the process that loads it what it should leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Launch

HANDLER = "import linepool, os, sys\n@linepool.handler\ndef add(a: int, b: int) -> int:\n    return a + b\n"


def write(place: Path, code: str) -> str:
    (place / "app.py").write_text(HANDLER + code)
    return "app.py"


@pytest.mark.parametrize(
    "code",
    [
        "os.closerange(3, 100)\n",
        "linepool.on_start(lambda: os.closerange(3, 100))\n",
        "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER\n",
        "if os.fork() == 0:\n    sys.exit(3)\n",
        "if os.fork() == 0:\n    raise ValueError\n",
        "os.fork()\n",
        "linepool.on_start(lambda: os.fork() and None)\n",
        "linepool.on_start(lambda: os.fork() or sys.exit(3))\n",
    ],
)
def test_an_app_may_close_files_and_fork_while_it_is_loaded(tmp_path, launch: Launch, code):
    server = launch(write(tmp_path, code))
    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "failed" not in server.text.replace("forked process failed", "")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.closerange(3, 65536)\n", "its code has closed all descriptors"),
        ("linepool.on_start(lambda: os.closerange(0, 65536))\n", "has closed all descriptors"),
        (
            "os.closerange(3, 65536)\nfiles = [open(os.devnull) for _ in range(1200)]\n",
            "its code has closed all descriptors",
        ),
        ("os.closerange(3, 65536)\nraise ValueError\n", "its code has closed all descriptors"),
        ("if os.fork():\n    os._exit(0)\n", "the process that loads it has ended: exit status 0"),
    ],
)
def test_an_app_that_cuts_itself_off_from_the_server_is_refused_in_one_line(
    tmp_path, launch: Launch, code, why
):
    server = launch(write(tmp_path, code), ready=False)
    assert server.ended() == 1
    (line,) = server.log
    assert line.startswith("linepool: cannot load app.py: ")
    assert why in line


def test_the_development_mode_of_python_warns_of_nothing(launch: Launch):
    server = launch("workshop.py", environment={"PYTHONDEVMODE": "1"})
    assert server.ask("ADD 2 3") == "5"
    server.order("RELOAD")
    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "Warning" not in server.text
