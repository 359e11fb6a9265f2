"""``linepool unit``: the units that it prints."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from linepool import cli

PROGRAM = str(Path(sys.executable).with_name("linepool"))


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Give the command, in a directory with an app; it returns what was printed."""
    (tmp_path / "sums.py").write_text("raise SystemExit('it is loaded')\n")
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int = 0) -> str:
        assert cli.main(["unit", *words]) == status
        out, err = capsys.readouterr()
        return str(out if status == 0 else err)

    return run


def values(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_command_has_absolute_paths_and_the_options_of_run(printed, tmp_path):
    options = ["--workers", "2:4", "--bind", "0.0.0.0:7000", "--bind", "unix:s", "--user", "www"]
    text = printed("sums.py", *options, "--graceful-timeout", "90")

    assert values(text, "ExecStart") == [
        f"{PROGRAM} run {tmp_path}/sums.py --workers 2:4 --graceful-timeout 90 --bind 0.0.0.0:7000"
        f" --bind unix:{tmp_path}/s --control /run/sums/control.sock"
    ]
    assert values(text, "ExecReload") == [f"{PROGRAM} reload --control /run/sums/control.sock"]
    assert values(text, "WorkingDirectory") == [str(tmp_path)]
    assert values(text, "RuntimeDirectory") == ["sums"]
    assert values(text, "TimeoutStopSec") == ["100"]
    assert values(text, "User") == ["www"]
    assert values(text, "ReadWritePaths") == [f"-{tmp_path}"]
    assert values(text, "AmbientCapabilities") == [""]


def test_settings_of_the_file_count_and_variables_of_this_process_do_not(
    printed, tmp_path, monkeypatch
):
    (tmp_path / "other.toml").write_text(
        "graceful_timeout = 5\nmax_connections = 50000\nuser = 'www'\n"
    )
    monkeypatch.setenv("LINEPOOL_GRACEFUL_TIMEOUT", "50")
    text = printed("sums.py", "--config", "other.toml", "--control", "off")

    assert values(text, "TimeoutStopSec") == ["15"]
    assert values(text, "User") == ["www"]
    assert int(values(text, "LimitNOFILE")[0]) > 50000
    assert values(text, "ExecStart")[0].endswith(f" --config {tmp_path}/other.toml --control off")
    assert values(text, "ExecReload") == []


@pytest.mark.parametrize(
    ("target", "name", "word"),
    [
        ("sums.py:app", "sums", "{}/sums.py:app"),
        ("shop", "shop", "{}/shop"),
        ("shop.stock", "stock", "shop.stock"),
        ("shop.stock:app", "stock", "shop.stock:app"),
    ],
)
def test_a_target_may_be_a_file_a_package_or_a_module(printed, tmp_path, target, name, word):
    (tmp_path / "shop").mkdir()
    text = printed(target)

    assert values(text, "Description") == [f"linepool: {name}"]
    assert f" run {word.format(tmp_path)} " in values(text, "ExecStart")[0]
    assert values(text, "DynamicUser") == ["yes"]


def test_a_directory_that_was_entered_by_a_link_has_the_name_of_the_link(
    printed, tmp_path, monkeypatch
):
    """After a deployment the link leads to another one."""
    link = tmp_path / "current"
    link.symlink_to(tmp_path)
    monkeypatch.setenv("PWD", str(link))

    assert values(printed("sums.py"), "WorkingDirectory") == [str(link)]


def test_words_are_quoted_as_systemd_reads_them(printed, tmp_path):
    (tmp_path / 'a b%c$d"e.py').write_text("")
    text = printed('a b%c$d"e.py', "--name", "x")

    assert f' run "{tmp_path}/a b%%c$$d\\"e.py" ' in values(text, "ExecStart")[0]


def test_with_a_socket_unit_the_service_takes_its_sockets_by_name(printed, tmp_path):
    options = ["sums.py", "--user", "www", "--unix-mode", "660", "--backlog", "7"]
    options += ["--bind", "0.0.0.0:80", "--bind", "[::]:80", "--bind", f"unix:{tmp_path}/s"]
    service, socket = printed(*options, "--socket"), printed(*options, "--socket-unit")

    assert "--bind systemd:sums " in values(service, "ExecStart")[0]
    assert values(service, "Requires") == ["sums.socket"]
    assert values(service, "AmbientCapabilities") == [""]  # systemd opens the port
    assert values(service, "ReadWritePaths") == []
    assert values(socket, "ListenStream") == ["0.0.0.0:80", "[::]:80", f"{tmp_path}/s"]
    assert values(socket, "FileDescriptorName") == ["sums"]
    assert values(socket, "BindIPv6Only") == ["ipv6-only"]
    assert values(socket, "SocketMode") == ["0660"]
    assert values(socket, "Backlog") == ["7"]


def test_a_low_port_gets_the_capability_for_it(printed):
    text = printed("sums.py", "--bind", "127.0.0.1:25")

    assert values(text, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert values(text, "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.py"], "file none.py does not exist"),
        (["no such"], "'no such' is neither a file nor the name of a module"),
        (["sums.py", "--name", "a/b"], "a unit cannot have the name 'a/b': give --name NAME"),
        (["sums.py", "--user", "a b"], "'a b' is not a user or group"),
        (["sums.py", "--control", "a\nb"], "a unit cannot have the characters of 'a\\nb'"),
        (
            ["sums.py", "--socket", "--bind", "localhost:1"],
            "systemd cannot listen on localhost:1: give a number in place of the host's name",
        ),
        (
            ["sums.py", "--socket-unit", "--bind", "127.0.0.1:0"],
            "systemd cannot listen on 127.0.0.1:0: give a port",
        ),
        (
            ["sums.py", "--socket", "--bind", "fd://3"],
            "systemd cannot listen on fd://3: it is open already",
        ),
    ],
)
def test_what_a_unit_cannot_have_is_refused(printed, words, message):
    assert printed(*words, status=1) == f"linepool: {message}\n"


def test_a_wrong_setting_is_a_usage_error(printed):
    assert "workers must be N or MIN:MAX" in printed("sums.py", "--workers", "x", status=2)


@pytest.mark.parametrize("why", ["temporary", "closed"])
def test_without_a_user_a_directory_that_its_user_cannot_enter_is_named(
    printed, tmp_path, monkeypatch, capsys, why
):
    for name in ("prefix", "base_prefix", "executable"):
        monkeypatch.setattr(sys, name, "/usr/bin/python3")
    tmp_path.chmod(0o700)
    place = next(one for one in [*reversed(tmp_path.parents), tmp_path] if _is_closed(one))
    if why == "temporary":
        place = tmp_path.parent
        monkeypatch.setattr("linepool.operate.unit.TEMPORARY", (f"{place}/",))
    else:
        monkeypatch.setattr("linepool.operate.unit.TEMPORARY", ("/elsewhere/",))

    assert cli.main(["unit", "sums.py"]) == 0
    message = f"a user that systemd makes up cannot enter {place}: give --user NAME"
    assert capsys.readouterr().err == f"linepool: {message}\n"


def _is_closed(directory: Path) -> bool:
    return not directory.stat().st_mode & 0o001


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_finds_no_fault_in_the_units(printed, tmp_path):
    options = ["sums.py", "--user", "daemon", "--bind", "127.0.0.1:7000", "--bind", "unix:/run/s"]
    for suffix, kind in (("service", "--socket"), ("socket", "--socket-unit")):
        (tmp_path / f"sums.{suffix}").write_text(printed(*options, kind))
    words = ["systemd-analyze", "verify", "--man=no", "./sums.service", "./sums.socket"]
    verified = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    words = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", "./sums.service"]
    rated = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert (verified.returncode, verified.stderr) == (0, "")
    assert rated.returncode == 0, rated.stdout  # 2.5 of 10 at most
