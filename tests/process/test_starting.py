"""How starting fails: an exit status and one line, never a traceback; and odd environments."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.process.booting import launch_booting
from tests.servers import ENVIRONMENT, HANDLERS, ROOT, TIMEOUT, has_ended

WORKSHOP = str(HANDLERS / "workshop.py")


class CommandLine:
    """A process that has linepool loaded and forks for each command, which is much quicker."""

    PROGRAM = """
import json, os, sys
import linepool.cli

for line in sys.stdin:
    place, environment, words, *streams = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.chdir(place)
        os.environ.update(environment)
        for number, file in enumerate(streams):
            os.dup2(os.open(file, os.O_RDWR), number)
        sys.exit(linepool.cli.main(words))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

    def __init__(self, place: Path) -> None:
        self._streams = [os.devnull, str(place / "stdout"), str(place / "stderr")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", self.PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, place: Path, words: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[int, str, str]:
        """Run a command; return its exit status, stdout and stderr."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for stream in self._streams[1:]:
            Path(stream).write_text("")
        order = [str(place), dict(environment), list(words), *self._streams]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], TIMEOUT)[0], f"{words} does not end"
        status = int(self._process.stdout.readline())
        return status, Path(self._streams[1]).read_text(), Path(self._streams[2]).read_text()

    def close(self) -> None:
        """Kill the process, and the command that it may be running."""
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            pass


Complain = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Give the process that all tests of this module share."""
    with contextlib.closing(CommandLine(tmp_path_factory.mktemp("streams"))) as command_line:
        yield command_line


@pytest.fixture
def complaint(command_line: CommandLine, tmp_path: Path) -> Complain:
    """Run commands that must fail; each call returns the exit status and the line on stderr."""

    def run(*words: str, **environment: str) -> tuple[int, str]:
        status, stdout, stderr = command_line.run(tmp_path, words, environment)
        assert "Traceback" not in stderr
        assert stdout == ""
        lines = stderr.splitlines()
        assert all(line.startswith("  ") for line in lines[1:]), stderr  # the user's own frames
        assert str(ROOT / "linepool") not in "".join(lines[1:])
        return status, lines[0]

    return run


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere.py", "file nowhere.py does not exist"),
        ("nowhere", "No module named 'nowhere'"),
        ("nowhere:app", "No module named 'nowhere'"),
        ("there/nowhere.py:app", "file there/nowhere.py does not exist"),
        ("app.py:nothing", "nothing does not exist"),
        ("app.py:number", "number is not a linepool.App"),
        ("app.py:", "app.py:"),
        ("notes.txt", "notes.txt is not a Python file"),
        (".", ". is not a Python file"),
        ("folder.py", "file folder.py does not exist"),
        ("no-module", "'no-module' is not a target"),
        ("", "'' is not a target"),
    ],
)
def test_a_wrong_target_is_reported_in_one_line(complaint: Complain, tmp_path, target, words):
    (tmp_path / "app.py").write_text("import linepool\napp = linepool.App()\nnumber = 1\n")
    (tmp_path / "notes.txt").write_text("notes\n")
    (tmp_path / "folder.py").mkdir()

    status, line = complaint("run", target)

    assert status == 1
    assert line.startswith("linepool: ")
    assert words in line


HANDLER = "import linepool\n@linepool.handler\ndef add(a: int) -> None: ...\n"
APP = "import linepool\napp = linepool.App()\n@app.handler\ndef price() -> int: return 5\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"def f(:\n", ["SyntaxError", "app.py", "line 1"]),
        (b"\xff\xfe\x00rubbish", ["SyntaxError", "app.py"]),
        (
            b"x = 1\n\nraise ValueError('not\\ntoday')\n",
            ["ValueError: not today", "app.py, line 3"],
        ),
        (b"import nowhere\n", ["No module named 'nowhere'", "app.py, line 1"]),
        (b"import sys\nsys.exit('enough')\n", ["SystemExit: enough", "app.py, line 2"]),
        (b"import broken\n", ["SyntaxError", "broken.py, line 2"]),
        (b"x = 1\n", ["app.py has no handlers"]),
        (HANDLER.encode() + b"linepool.run()\n", ["if __name__ == '__main__':"]),
        (
            b"import linepool\na = linepool.App()\nb = linepool.App()\n",
            ["several apps", ":a", ":b"],
        ),
        (APP.encode() + HANDLER.encode(), ["the app app", "add at app.py:6", "linepool.run(app)"]),
        (
            APP.encode() + b"@linepool.on_start\ndef prepare(): ...\n",
            ["the app app", "prepare at app.py:5"],
        ),
        (b"import app\n" + HANDLER.encode() + b"app.run()\n", ["rename the file", "'app'"]),
        (b"from app import App\n", ["rename the file", "'app'"]),
        (b"import app.settings\n", ["rename the file", "'app'"]),
        (b"from . import settings\n", ["put an empty __init__.py beside the file"]),
        (b"{}['app']\n", ["KeyError: 'app' ("]),
        (
            b"a\0b\n",
            ["cannot load app.py: SyntaxError: source code string cannot contain null bytes"],
        ),
        (
            HANDLER.encode() + b"@linepool.handler('ADD')\ndef plus(): ...\n",
            ["command ADD has two handlers", "app.py:2", "app.py:4"],
        ),
        (
            b"import linepool\n@linepool.handler\nasync def add(): ...\n",
            ["add at app.py:2 is async"],
        ),
        (
            b"import linepool\n@linepool.handler\ndef add(a: 'Nothing'): ...\n",
            ["handler add at app.py:2", "Nothing"],
        ),
        (
            b"import linepool\n@linepool.on_start\ndef f(): raise OSError('no disk')\n"
            + HANDLER.encode(),
            ["no disk"],
        ),
    ],
)
def test_a_broken_file_is_reported_in_one_line(complaint: Complain, tmp_path, code, words):
    (tmp_path / "app.py").write_bytes(code)
    (tmp_path / "broken.py").write_text("\nclass\n")

    status, line = complaint("run", "app.py", "--bind", "127.0.0.1:0")

    assert status == 1
    assert line.startswith("linepool: ")
    assert [word for word in words if word not in line] == []
    assert ("rename" in line) == ("rename the file" in words)


def test_an_error_in_a_target_shows_the_frames_of_the_users_own_code(
    command_line: CommandLine, tmp_path
):
    (tmp_path / "app.py").write_text("import helper\nhelper.prepare()\n" + HANDLER)
    (tmp_path / "helper.py").write_text(
        "import os\ndef prepare():\n    try:\n        os.mkdir('.')\n"
        "    except OSError as error:\n        raise KeyError('prepared') from error\n"
    )

    for command in ("run", "check"):
        status, _, stderr = command_line.run(tmp_path, (command, "app.py"), {})

        assert status == 1
        helper = tmp_path / "helper.py"
        assert stderr.splitlines()[0] == (
            f"linepool: cannot load app.py: KeyError: 'prepared' ({helper}, line 6)"
        )
        assert [line for line in stderr.splitlines() if "File" in line or "before" in line] == [
            f'  File "{tmp_path}/app.py", line 2, in <module>',
            f'  File "{helper}", line 6, in prepare',
            "  before that: FileExistsError: [Errno 17] File exists: '.'",
            f'  File "{helper}", line 4, in prepare',
        ]
        assert "    raise KeyError('prepared') from error" in stderr


@pytest.mark.parametrize("where", ["", "@linepool.on_start\ndef start():\n    "])
def test_what_is_raised_while_an_app_loads_need_not_be_an_exception(
    command_line: CommandLine, tmp_path, where
):
    cancelled = f"import asyncio\n{where}raise asyncio.CancelledError('at once')\n"
    (tmp_path / "app.py").write_text(HANDLER + cancelled)

    status, _, stderr = command_line.run(tmp_path, ("run", "app.py", "--bind", "127.0.0.1:0"), {})

    assert status == 1
    error = next(line for line in stderr.splitlines() if line.startswith("linepool: "))
    assert ": CancelledError: at once (" in error
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise KeyboardInterrupt", "KeyboardInterrupt ("),
        ("raise GeneratorExit", "GeneratorExit ("),
        (
            "sys.exit()",
            "SystemExit; a file that is served must not end the process that loads it (",
        ),
        (
            "sys.exit('no disk')",
            "SystemExit: no disk; a file that is served must not end the process",
        ),
        ("raise ValueError from KeyError()", "ValueError ("),
    ],
)
@pytest.mark.parametrize("where", ["", "@linepool.on_start\ndef start():\n    "])
def test_an_exception_without_a_text_is_named_with_its_place(
    command_line: CommandLine, tmp_path, where, code, words
):
    (tmp_path / "app.py").write_text(f"{HANDLER}import sys\n{where}{code}\n")
    status, _, stderr = command_line.run(tmp_path, ("run", "app.py", "--bind", "127.0.0.1:0"), {})
    assert status == 1
    assert f": {words}" in next(line for line in stderr.splitlines() if "linepool: " in line)
    assert f"{tmp_path}/app.py, line " in stderr
    assert ": \n" not in stderr


def test_the_text_of_an_error_loses_its_middle_if_it_is_long(command_line: CommandLine, tmp_path):
    (tmp_path / "app.py").write_text("raise ValueError('x' * 1_000_000)\n")
    status, _, stderr = command_line.run(tmp_path, ("run", "app.py"), {})
    assert status == 1
    assert "983616 characters" in stderr
    assert len(stderr) < 20_000


def test_a_syntax_error_shows_the_line_and_where_in_it(command_line: CommandLine, tmp_path):
    (tmp_path / "app.py").write_text("import broken\n")
    (tmp_path / "broken.py").write_text("x = 1\nif x = 1:\n    pass\n")

    _, _, stderr = command_line.run(tmp_path, ("check", "app.py"), {})

    assert f'  File "{tmp_path}/app.py", line 1, in <module>\n    import broken\n' in stderr
    assert "    if x = 1:\n       ^^^^^\n" in stderr


@pytest.mark.parametrize("name", ["linepool", "json", "calendar", "attrs"])
@pytest.mark.parametrize("form", ["{}.py", "{}.py:app", "{}", "{}:app"])
def test_a_file_that_would_hide_a_module_is_to_be_renamed(
    complaint: Complain, tmp_path, name, form
):
    (tmp_path / f"{name}.py").write_text(APP)

    status, line = complaint("check", form.format(name))

    assert status == 1
    assert f"{name}.py has the name of the module {name!r}" in line
    assert "rename it" in line


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Give a directory with a package; a module of it is also imported by another one of it."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from .stock import price\nfrom . import types\n")
    (package / "types.py").write_text("import shop.stock\n")
    (package / "stock.py").write_text(
        "import linepool\nfrom . import types\n@linepool.handler\ndef price() -> int: return 5\n"
        "app = linepool.App()\napp.handler(price)\nempty = 1\n"
    )
    (package / "script.py").write_text("import types\nimport stock\n")
    return package


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("shop", "shop"),
        ("./shop", "shop"),
        ("shop/", "shop"),
        ("{}", "shop"),
        ("shop/__init__.py", "shop"),
        ("shop.stock:app", "stock"),
        ("shop/stock.py:app", "stock"),
        ("{}/stock.py:app", "stock"),
    ],
)
def test_a_package_or_a_file_in_one_can_be_a_target(
    command_line: CommandLine, tmp_path: Path, shop: Path, target, name
):
    status, stdout, stderr = command_line.run(tmp_path, ["check", target.format(shop)], {})

    assert stderr.count("\n") == ("app" in target)  # which is not the only one of its file
    assert status == 0
    assert stdout.startswith(f"{name}: ")
    assert "PRICE " in stdout


def test_a_package_of_which_an_app_is_named_may_be_a_directory(
    command_line: CommandLine, tmp_path: Path, shop: Path
):
    (shop / "__init__.py").write_text(APP)

    for target in ("shop:app", "./shop:app", "shop/:app", f"{shop}:app"):
        status, stdout, stderr = command_line.run(tmp_path, ["check", target], {})
        assert (status, stderr) == (0, "")
        assert stdout.startswith("shop: ")


def test_a_file_in_a_package_may_import_the_files_beside_it_as_a_script_does(
    command_line: CommandLine, tmp_path: Path, shop: Path
):
    (shop / "__init__.py").write_text("")
    (shop / "stock.py").write_text(HANDLER)

    status, stdout, _ = command_line.run(tmp_path, ["check", "shop/script.py"], {})

    assert status == 0
    assert "ADD " in stdout


def test_what_is_registered_beside_the_app_that_was_chosen_is_named(
    launch: Launch, command_line: CommandLine, tmp_path: Path
):
    (tmp_path / "two.py").write_text(APP + HANDLER)
    (tmp_path / "script.py").write_text(APP + HANDLER + "linepool.run(app)\n")
    words = "add at two.py:6 is not served: it does not belong to the app 'two'"

    served = launch("two.py:app", "--workers", "1")
    script = launch(command=("script.py",), target="--scheme=shared")
    status, _, stderr = command_line.run(tmp_path, ["check", "two.py:app"], {})

    assert served.ask("PRICE") == script.ask("PRICE") == "5"
    assert sum(words in line for line in served.log) == 1
    assert sum(words.replace("two", "script") in line for line in script.log) == 1
    assert (status, stderr) == (0, f"linepool: {words}\n")


# -- scripts


def run_script(tmp_path: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script that ends by itself."""
    (tmp_path / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "script.py", *words],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_a_script_serves_its_only_app_without_naming_it(tmp_path, launch: Launch):
    (tmp_path / "script.py").write_text(APP + "linepool.run()\n")

    server = launch(command=("script.py",), target="--workers=1")

    assert server.ask("PRICE") == "5"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import linepool\nlinepool.run()\n", "script.py has no handlers"),
        (APP + HANDLER + "linepool.run()\n", "has the app app, to which add at script.py:6"),
    ],
)
def test_a_script_whose_app_is_not_clear_is_told_so_in_one_line(tmp_path, code, words):
    done = run_script(tmp_path, code)

    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_run_outside_of_the_main_thread_is_refused_in_one_line(tmp_path):
    done = run_script(
        tmp_path,
        HANDLER
        + "import threading\nt = threading.Thread(target=linepool.run)\nt.start(); t.join()\n"
        "print('the script continues')\n",
    )

    assert done.stdout == "the script continues\n"
    assert done.stderr.count("\n") == 1
    assert "main thread" in done.stderr


OWN_OPTIONS = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--db")
parser.add_argument("--worker-name")
parser.add_argument("-v", action="store_true")
parser.add_argument("--workers", default="1")
options = parser.parse_known_args()[0]

import linepool

@linepool.handler
def which(): return [options.db, options.worker_name]

linepool.run({arguments})
"""


def test_a_script_may_have_options_and_arguments_of_its_own(tmp_path, launch: Launch):
    (tmp_path / "script.py").write_text(OWN_OPTIONS.format(arguments=""))
    words = ("-v", "--worker-name", "w", "--backlo=5", "one", "--workers", "2")

    server = launch("--db=secret", *words, command=("script.py",))

    assert server.converse(b"WHICH\n") == b"secret\nw\nEND\n"
    assert server.status()["tally"]["max"] == 2
    warnings = [line.partition("WARNING ")[2] for line in server.log if "WARNING" in line]
    assert [warning for warning in warnings if "as root" not in warning] == [
        "option --backlo is left to the script; did you mean --backlog?"
    ]


def test_a_script_with_options_of_the_same_names_gives_the_arguments_itself(
    tmp_path, launch: Launch
):
    arguments = "arguments=['--bind', '127.0.0.1:0', '--control', 'off', '--workers', '1']"
    (tmp_path / "script.py").write_text(OWN_OPTIONS.format(arguments=arguments))

    server = launch(command=("script.py",), target="--workers=many", bind=())

    assert server.converse(b"WHICH\n") == b"-\n-\nEND\n"


def test_an_unknown_option_among_given_arguments_is_an_error(tmp_path):
    done = run_script(tmp_path, OWN_OPTIONS.format(arguments="arguments=['--wrokers=2']"))

    assert done.returncode == 2
    assert "unknown argument --wrokers=2; did you mean --workers?" in done.stderr


@pytest.mark.parametrize("kind", ["handler", "resource"])
def test_a_file_that_is_loaded_twice_is_named_with_both_names(tmp_path, kind):
    (tmp_path / "util.py").write_text("import script\n")

    done = run_script(
        tmp_path,
        f"import linepool\n@linepool.{kind}\ndef add() -> int: yield 1\n"
        "if __name__ == '__main__':\n    import util\n    linepool.run()\n",
    )

    last = done.stderr.splitlines()[-1]
    assert "script.py:2: the file is loaded twice, as __main__ and as script" in last


@pytest.mark.parametrize("is_script", [False, True])
def test_a_file_with_an_app_that_is_loaded_twice_is_named_in_a_warning(
    tmp_path, launch: Launch, is_script
):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "stock.py").write_text(
        APP + "import util\nif __name__ == '__main__': linepool.run(app)\n"
    )
    other = "stock" if is_script else "shop.stock"
    (tmp_path / "shop" / "util.py").write_text(
        f"import sys\nsys.path.append({str(tmp_path)!r})\nimport {other}\n"
    )
    options = {"command": ("shop/stock.py",)} if is_script else {}

    server = launch("--workers=1" if is_script else "shop/stock.py", **options)

    name = "__main__" if is_script else "stock"
    words = f"WARNING {tmp_path}/shop/stock.py is loaded twice, as {name} and as {other}: "
    assert sum(words in line for line in server.log) == 1
    assert server.ask("PRICE") == "5"


@pytest.mark.parametrize(
    "words",
    [
        ["fly"],
        ["run"],
        ["run", WORKSHOP, "--no-such-option"],
        ["run", WORKSHOP, "--work", "3"],
        ["run", WORKSHOP, "--workers", "0:4"],
        ["run", WORKSHOP, "--workers", "4:2"],
        ["run", WORKSHOP, "--workers", "many"],
        ["run", WORKSHOP, "--workers", "100000"],
        ["run", WORKSHOP, "--idle-timeout", "nan"],
        ["run", WORKSHOP, "--read-timeout", "-1"],
        ["run", WORKSHOP, "--backlog", "1.5"],
        ["run", WORKSHOP, "--unix-mode", "999"],
        ["run", WORKSHOP, "--log-level", "loud"],
        ["run", WORKSHOP, "--config", "nowhere.toml"],
        ["check", WORKSHOP, "--workers", "-1"],
        ["run", WORKSHOP, "--bind", "nonsense"],
        ["run", WORKSHOP, "--bind", "127.0.0.1:65536"],
        ["run", WORKSHOP, "--bind", "::1:7000"],
        ["run", WORKSHOP, "--bind", "unix:"],
        ["run", WORKSHOP, "--bind", "fd://x"],
        ["scale"],
        ["stop", "--soon"],
    ],
    ids=lambda words: " ".join(words[:1] + words[2:]),
)
def test_a_usage_error_ends_with_status_2(complaint: Complain, tmp_path, words):
    status, line = complaint(*words)

    assert status == 2
    assert line.startswith("linepool")
    # The line names the wrong word.
    assert not words[2:] or words[-1] in line or words[-2] in line


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("linepool.toml", b"idel_timeout = 3\n", ["idel_timeout", "did you mean 'idle_timeout'"]),
        ("linepool.toml", b"idle_timeout = 'soon'\n", ["linepool.toml", "idle_timeout", "'soon'"]),
        ("linepool.toml", b"workers = [1]\n", ["linepool.toml", "workers"]),
        ("linepool.toml", b"bind = 7000\n", ["linepool.toml", "bind"]),
        ("linepool.toml", b'user = "a\\u0000b"\n', ["the user 'a\\x00b' does not exist"]),
        ("linepool.toml", b'user = "root"\ngroup = "\\u0000"\n', ["the group '\\x00' does not"]),
        ("linepool.toml", b"idle_timeout =\n", ["linepool.toml is not valid TOML"]),
        ("linepool.toml", b"# caf\xe9\n", ["linepool.toml"]),
        ("pyproject.toml", b"[tool.linepool]\nworker = 3\n", ["pyproject.toml", "'workers'"]),
        ("pyproject.toml", b"tool = 5\n", ["pyproject.toml"]),
        ("pyproject.toml", b"[tool]\nlinepool = 5\n", ["pyproject.toml"]),
    ],
)
def test_a_wrong_setting_in_a_file_names_the_file(complaint: Complain, tmp_path, file, text, words):
    (tmp_path / file).write_bytes(text)

    status, line = complaint("run", WORKSHOP, "--bind", "127.0.0.1:0")

    assert status == 2
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LINEPOOL_WORKERS", "none", ["environment", "workers", "'none'"]),
        ("LINEPOOL_READ_TIMEOUT", "soon", ["environment", "read_timeout", "'soon'"]),
    ],
)
def test_a_wrong_setting_in_the_environment_is_named(
    complaint: Complain, tmp_path, name, value, words
):
    status, line = complaint("run", WORKSHOP, **{name: value})

    assert status == 2
    assert [word for word in words if word not in line] == []


def test_a_misspelt_setting_in_the_environment_is_named_and_the_server_starts(
    launch: Launch, command_line: CommandLine, tmp_path: Path
):
    hint = "environment: LINEPOOL_WROKERS is not a setting; did you mean LINEPOOL_WORKERS?"
    environment = {"LINEPOOL_WROKERS": "2"}

    server = launch("workshop.py", "--workers", "1", environment=environment)
    status, _, stderr = command_line.run(tmp_path, ["check", WORKSHOP], environment)

    assert sum(hint in line for line in server.log) == 1
    assert (status, stderr) == (0, f"linepool: {hint}\n")


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("192.0.2.1:0", ["192.0.2.1:0", "assign requested address"]),
        ("a..b:7000", ["a..b:7000"]),
        ("unix:here", ["unix:here", "is not a socket"]),
        ("unix:missing/sock", ["unix:missing/sock", "No such file"]),
        ("unix:" + "x" * 120, ["too long"]),
        ("fd://99", ["fd://99", "Bad file descriptor"]),
        ("fd://0", ["fd://0", "non-socket"]),
        ("fd://100000000", ["fd://100000000", "Bad file descriptor"]),
        ("unix:@" + "x" * 120, ["too long"]),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_an_unusable_address_is_reported_in_one_line(complaint: Complain, tmp_path, bind, words):
    (tmp_path / "here").write_text("precious")

    status, line = complaint("run", WORKSHOP, "--control", "off", "--bind", bind)

    assert status == 1
    assert [word for word in words if word.lower() not in line.lower()] == []
    assert (tmp_path / "here").read_text() == "precious"


def test_an_abstract_control_socket_is_refused(complaint: Complain, tmp_path):
    status, line = complaint("run", WORKSHOP, "--control", "@here")

    assert status == 2
    assert "control must be a path; every local user may connect to an abstract socket" in line


def test_a_port_in_use_is_reported_in_one_line(complaint: Complain, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        status, line = complaint("run", WORKSHOP, "--bind", f"127.0.0.1:{port}")

    assert status == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line


@pytest.mark.parametrize("kind", ["unix", "tcp", "fd"])
def test_an_address_that_is_given_twice_is_reported_in_one_line(tmp_path, launch: Launch, kind):
    with socket.create_server(("127.0.0.1", 0)) as given:
        fd = given.fileno()
        port = given.getsockname()[1]
        bind = {"unix": "unix:s", "tcp": f"127.0.0.2:{port}", "fd": f"fd://{fd}"}[kind]

        server = launch(bind=(bind, bind), pass_fds=[fd], ready=False)

        assert server.ended() != 0
    assert len(server.log) == 1
    assert bind in server.log[0]
    assert not (tmp_path / "s").exists()


def test_a_server_starts_in_a_working_directory_that_has_been_removed(tmp_path, launch: Launch):
    (tmp_path / "elsewhere.py").write_text(
        "import os, sys\n"
        "os.mkdir('gone')\n"
        "os.chdir('gone')\n"
        "os.rmdir('../gone')\n"
        "os.execv(sys.executable, [sys.executable, '-P', '-m', 'linepool', 'run', *sys.argv[1:]])\n"
    )

    server = launch(command=("elsewhere.py",))

    assert server.ask("ADD 2 3") == "5"


@pytest.mark.parametrize("is_full", [False, True])
def test_a_unix_socket_of_a_live_server_is_refused_at_once(complaint: Complain, tmp_path, is_full):
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(path))
        server.listen(0)
        if is_full:
            client.connect(str(path))

        status, line = complaint("run", WORKSHOP, "--bind", f"unix:{path}", "--control", "off")

    assert status == 1
    assert "another server listens there" in line
    assert path.exists()


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("here", ["control", "is not a socket"]),
        ("missing/sock", ["control", "missing/sock", "No such file"]),
        ("x" * 120, ["control", "too long"]),
    ],
    ids=["file", "missing", "long"],
)
def test_an_unusable_control_socket_is_reported_in_one_line(
    complaint: Complain, tmp_path, control, words
):
    (tmp_path / "here").write_text("precious")

    status, line = complaint("run", WORKSHOP, "--bind", "unix:sock", "--control", control)

    assert status == 1
    assert [word for word in words if word not in line] == []
    assert not (tmp_path / "sock").exists()


def test_a_runtime_directory_that_is_a_file_is_reported_in_one_line(complaint: Complain, tmp_path):
    (tmp_path / "linepool").write_text("")

    status, line = complaint(
        "run",
        WORKSHOP,
        "--bind",
        "127.0.0.1:0",
        XDG_RUNTIME_DIR=str(tmp_path),
    )

    assert status == 1
    assert str(tmp_path / "linepool") in line


@pytest.mark.parametrize("is_at_terminal", [False, True], ids=["sent", "typed"])
def test_an_interrupt_while_the_target_is_loaded_leaves_no_traceback(
    tmp_path, launch: Launch, is_at_terminal
):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "slow.py").write_text(
        "import os, sys\nprint('loading', file=sys.stderr, flush=True)\nopen('fifo').read()\n"
    )
    server = launch("slow.py", ready=False, start_new_session=True)
    server.wait_for("loading")

    if is_at_terminal:  # which sends it to all processes
        os.killpg(server.process.pid, signal.SIGINT)
    else:
        server.send(signal.SIGINT)

    assert server.ended() != 0
    assert "Traceback" not in server.text


def test_check_shows_what_would_be_served_and_serves_nothing(
    command_line: CommandLine, tmp_path: Path
):
    (tmp_path / "linepool.toml").write_text("idle_timeout = 60\n")
    words = ["check", WORKSHOP, "--workers", "3", "--bind", "unix:s"]

    status, stdout, stderr = command_line.run(tmp_path, words, {"LINEPOOL_BACKLOG": "7"})
    shown = json.loads(command_line.run(tmp_path, [*words, "--json"], {})[1])

    assert (status, stderr) == (0, "")
    assert "ADD a:int b:int" in stdout
    for line in ("workers 3 (command line)", "idle_timeout 60 (linepool.toml)"):
        assert line in " ".join(stdout.split())
    assert "backlog 7 (environment)" in " ".join(stdout.split())
    assert shown["name"] == "workshop"
    assert {"names": ["ADD"], "usage": "ADD a:int b:int"}.items() <= shown["commands"][0].items()
    assert (shown["settings"]["workers"], shown["settings"]["bind"]) == ("3", "unix:s")
    assert not (tmp_path / "s").exists()


def test_the_documented_lines_are_logged_in_order(launch: Launch):
    server = launch("workshop.py", "--workers", "3", bind=("127.0.0.1:0", "unix:sock"))

    promised = [line for line in server.log if line.startswith(("listening on ", "ready:"))]
    assert promised[0].startswith("listening on 127.0.0.1:")
    assert promised[1:] == ["listening on unix:sock", "ready: 3 workers"]
    assert server.stop() == 0


def test_help_has_an_example_for_every_command():
    for command in ("run", "check", "status", "scale", "stop"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "linepool", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"linepool {command}" in done.stdout.partition("example")[2]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_server_runs_without_standard_descriptors(tmp_path, launch: Launch, closed):
    (tmp_path / "bare.py").write_text(
        "import os, sys\n"
        f"words = ['sh', '-c', 'exec \"$@\" {closed}', 'sh', sys.executable, '-m', 'linepool', 'run']\n"
        "os.execv('/bin/sh', words + sys.argv[1:])\n"
    )
    silent = "2>" in closed
    server = launch(command=("bare.py",), bind=("unix:s",), ready=not silent)
    if silent:
        server.addresses = ["unix:s"]
        while not _accepts(tmp_path / "s"):
            assert server.process.poll() is None

    assert server.ask("ADD 2 3") == "5"
    assert server.order("STOP") == "stopping gracefully"
    assert server.ended() == 0
    assert "Traceback" not in server.text


def test_output_of_the_app_at_import_is_written_once(tmp_path, launch: Launch):
    (tmp_path / "app.py").write_text("print('loaded')\n" + HANDLER)
    with (tmp_path / "out").open("wb") as out:
        server = launch("app.py", "--workers", "3", stdout=out)

    assert server.stop() == 0
    assert (tmp_path / "out").read_text() == "loaded\n"


def test_output_of_a_handler_is_written_when_its_worker_exits(tmp_path, launch: Launch):
    with (tmp_path / "out").open("wb") as out:
        server = launch("workshop.py", "--workers", "1", stdout=out)
    with server.connect() as peer:
        assert peer.ask("SHOW hello") == "OK"

    assert server.stop() == 0
    assert (tmp_path / "out").read_text() == "hello\n"


def test_a_full_disk_behind_stdout_does_no_harm(launch: Launch):
    with open("/dev/full", "w") as full:
        server = launch("workshop.py", "--workers", "2", bind=("unix:sock",), stdout=full)
    with server.connect() as one, server.connect() as other:
        one.ask("SHOW hello")
        other.ask("SHOW hello")
        server.order("SCALE 1")
        server.until(lambda state: state["tally"]["total"] == 1)
    server.order("SCALE 3")
    server.until(lambda state: state["tally"]["idle"] == 3)

    assert server.ask("ADD 2 3") == "5"
    assert server.stop() == 0
    assert "Traceback" not in server.text
    assert "cannot fork" not in server.text


def test_a_server_outlives_the_reader_of_its_log(tmp_path, launch: Launch):
    server = launch_booting(launch, tmp_path, "--workers", "1", how="wait")
    address = server.wait_for("listening on").removeprefix("listening on ")
    assert server.process.stderr is not None
    server.process.stderr.close()
    server.addresses = [address]

    with open(tmp_path / "boot.fifo", "w"):
        assert server.ask("ADD 2 3") == "5"

    assert server.order("STOP") == "stopping gracefully"
    assert server.process.wait(TIMEOUT) == 0


def test_a_pool_of_which_one_worker_has_booted_is_restored_even_if_all_die_at_once(
    tmp_path, launch: Launch
):
    server = launch_booting(launch, tmp_path, "--workers", "2", how="all but one wait")
    server.wait_for("listening on")
    server.until(lambda state: state["tally"]["idle"] == 1 and len(state["workers"]) == 2)
    workers, watched = server.pids(), server.watch()
    (tmp_path / "boot").unlink()

    server.send(signal.SIGSTOP)  # so that it sees both deaths in one turn
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert all(has_ended(watched[worker]) for worker in workers)
    server.send(signal.SIGCONT)

    server.wait_for("ready: 2 workers")
    assert "giving up" not in server.text


def _accepts(path: Path) -> bool:
    """Whether a process listens at a path."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
