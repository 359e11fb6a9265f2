"""The log as JSON, through a file for dictConfig, and on a terminal."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from linepool import cli
from tests.conftest import Launch
from tests.process.test_control import linepool

APP = """
import logging, time, linepool
logging.getLogger("shop").warning("loading")
@linepool.handler
def sell(item: str) -> str:
    logging.getLogger("shop").info("sold %s", item, extra={"price": 5})
    raise ValueError(item)
@linepool.handler
def hang() -> None:
    while True:
        try: time.sleep(100)
        except BaseException: pass
"""


def test_every_line_of_the_server_is_json(tmp_path: Path, launch: Launch):
    (tmp_path / "app.py").write_text(
        APP.replace('logging.getLogger("shop").warning("loading")', "")
    )
    quick = ("--request-timeout", "0.3", "--kill-grace", "0.1", "--workers", "1")
    server = launch("app.py", *quick, "--log-format", "json", "--log-file", "log", ready=False)
    lines: list[dict[str, Any]] = []

    def until(event: str) -> dict[str, Any]:
        for line in server.lines():
            lines.append(json.loads(line))
            if lines[-1]["event"] == event:
                return lines[-1]
        raise AssertionError(f"no event {event!r}")

    server.addresses = [until("listening")["address"]]
    assert until("ready")["workers"] == 1
    pid = server.pids()[0]
    assert server.ask("SELL pen\x1b").startswith("SERVER_ERROR internal error, id ")
    assert server.ask("HANG").startswith("SERVER_ERROR")
    (tmp_path / "app.py").write_text("1 / 0")
    reload = linepool("reload", "--control", server.control)
    assert (reload.returncode, "ZeroDivisionError" in reload.stderr) == (1, True)
    assert server.stop() == 0

    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    events = {one.get("event", one["message"]): one for one in logged}
    assert events["listening on " + server.addresses[0]]["level"] == "info"
    sold = events["sold pen\x1b"]
    assert (sold["logger"], sold["price"], sold["process"]) == ("shop", 5, pid)
    assert events["handler failed"]["command"] == "SELL"
    assert events["handler failed"]["exception"].endswith("ValueError: pen\\x1b")
    killed = events["worker killed"]
    assert (killed["pid"], killed["limit_s"], killed["level"]) == (pid, 0.3, "error")
    assert "in hang" in killed["stack"]
    assert "Current thread" not in killed["message"]
    assert events["starting"]["workers"] == "1"
    assert "reload failed, generation 1 stays" in str(events)


def test_a_failed_start_is_a_line_of_json_too(tmp_path: Path, launch: Launch):
    server = launch("nothing.py", "--log-format", "json", ready=False)
    (line,) = list(server.lines())
    assert json.loads(line)["event"] == "not started"
    assert "nothing.py does not exist" in json.loads(line)["message"]


CONFIG = """
[formatters.own]
class = "pythonjsonlogger.json.JsonFormatter"
[handlers.file]
class = "logging.FileHandler"
filename = "own.log"
formatter = "own"
[root]
handlers = ["file"]
level = "INFO"
"""


def test_a_file_for_dict_config_takes_the_lines_of_all_processes(tmp_path: Path, launch: Launch):
    (tmp_path / "app.py").write_text(APP)
    config = tmp_path / "log.toml"
    config.write_text(CONFIG)
    dispatch = ("--scheme", "dispatch", "--max-connections-per-address", "3")  # the parker refuses
    server = launch("app.py", "--workers", "1", "--log-config", str(config), *dispatch)
    server.ask("SELL pen")

    config.write_text(CONFIG.replace("FileHandler", "NoHandler"))
    reload = linepool("reload", "--control", server.control)
    assert reload.returncode == 1
    assert "Unable to configure handler 'file'" in reload.stderr
    assert "NoHandler" in reload.stderr
    config.write_text(CONFIG.replace("own.log", "new.log"))
    assert linepool("reload", "--control", server.control).returncode == 0
    server.ask("SELL pen")
    server.until(lambda state: not any(state["connections"].values()))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(4)]
        assert clients[-1].rest().startswith(b"SERVER_ERROR ")
    assert server.stop() == 0

    old, new = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("own.log", "new.log")
    )
    texts = [one["message"].partition(" ")[0] for one in old]
    assert texts.count("loading") == 1
    assert {"starting", "listening", "ready:", "sold", "handler", "reload"} <= set(texts)
    assert [one["command"] for one in old if one["message"].startswith("handler failed")] == [
        "SELL"
    ]
    assert {"loading", "sold", "handler", "refused", "stopping:"} <= {
        one["message"].partition(" ")[0] for one in new
    }
    assert [
        line for line in server.log if line.partition(" ")[0] not in ("listening", "ready:")
    ] == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("log.yaml", "", "log.yaml: the file's name must end in .toml or .json"),
        ("log.json", "[1]", "log.json: must be a table, not list"),
        ("log.json", "{", "log.json is not valid JSON: Expecting"),
        ("log.toml", "[handlers", "log.toml is not valid TOML: "),
        (
            "log.toml",
            "[handlers.x]\nclass = 'no.Such'\n",
            "handler 'x'; ValueError: Cannot resolve 'no.Such'",
        ),
        ("log.toml", "[root]\nhandlers = ['x']\n", "log.toml: Unable to configure root logger; "),
        ("log.toml", "[root]\nlevel = 'LOUD'\n", "Unknown level: 'LOUD'"),
        ("log.toml", "version = 2\n", "log.toml: Unsupported version: 2"),
        ("log.toml", "[handler.x]\n", "unknown key handler; did you mean handlers?"),
        ("log.toml", "[root]\nhandler = []\n", "unknown key root.handler; did you mean handlers?"),
        ("log.toml", "[formatters.x]\nfmt = ''\n", "unknown key formatters.x.fmt; did you mean f"),
        ("log.toml", "[loggers]\nx = 1\n", "loggers.x must be a table, not int"),
        ("log.json", '{"handlers": []}', "handlers must be a table, not list"),
        ("log.json", '{"root": []}', "root must be a table, not list"),
        (
            "log.toml",
            "[loggers.linepool]\nlevel = 'ERROR'\n",
            "loggers.linepool.level has no effect; use the setting log_level",
        ),
        ("", "", "log_config: cannot read log.toml: No such file or directory"),
    ],
)
def test_a_wrong_file_for_dict_config_is_refused(tmp_path, monkeypatch, capsys, name, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(APP)
    if name:
        (tmp_path / name).write_text(text)
    assert cli.main(["check", "app.py", "--log-config", name or "log.toml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("linepool: log_config")
    assert says in err
    assert err.count("\n") == 1
