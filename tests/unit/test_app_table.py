"""The table [app], files for the environment, factories: what an app gets from its configuration."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import attrs
import pytest

from linepool import App, SetupError, cli


@attrs.frozen
class Shop:
    items: int
    _key: str = "k"
    since: date = date(2020, 1, 1)
    rate: float = attrs.field(default=0.5, validator=attrs.validators.lt(1))
    total: int = attrs.field(init=False, default=0)


@dataclasses.dataclass
class Plain:
    names: list[str] = dataclasses.field(default_factory=list)


def shop(**settings: object) -> App:
    app = App()
    app.config(Shop)

    @app.resource
    def stock(config: Shop) -> Iterator[dict[str, int]]:
        yield {"pen": config.items}

    @app.handler
    def show(shop: Shop, stock: dict[str, int]) -> str:
        return f"{shop.items} {shop._key} {shop.since} {shop.rate} {stock}"

    app.configure(settings)
    return app


def test_handlers_and_resources_get_the_table_as_an_object():
    app = shop(items=3, key="s", since=date(2024, 5, 1), rate=0.25)
    assert app.ask(b"show\n") == b"3 s 2024-05-01 0.25 {'pen': 3}\n"
    app.configure({"items": 4})
    assert app.ask(b"show\n") == b"4 k 2020-01-01 0.5 {'pen': 4}\n"


def test_without_a_table_the_defaults_count():
    app = App()
    app.config(Plain)

    @app.handler
    def show(config: Plain) -> str:
        return str(config.names)

    assert app.ask(b"show\n") == b"[]\n"
    app.configure({"names": ["a"]})
    assert app.ask(b"show\n") == b"['a']\n"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"itmes": 3}, "x: unknown key 'itmes'; did you mean 'items'?"),
        ({"items": 3, "zzz": 3}, "x: unknown key 'zzz'; the keys are items, key, since, rate"),
        (
            {"items": 3, "workers": 3},
            "x: unknown key 'workers'; it is a setting of the server: write it",
        ),
        ({}, "x: items is missing; it must be int"),
        ({"items": "3"}, "x items must be int, not '3'"),
        ({"items": True}, "x items must be int, not True"),
        ({"items": 3, "since": "soon"}, "x since must be date such as 2026-01-31, not 'soon'"),
        ({"items": 3, "rate": 2.0}, "x: 'rate' must be < 1: 2.0"),
    ],
)
def test_a_wrong_table_is_refused(table, says):
    app = App()
    app.config(Shop)
    with pytest.raises(SetupError) as error:
        app.configure(table, "x")
    assert str(error.value).startswith(says)


def test_a_class_that_cannot_be_filled_is_refused():
    app = App()
    with pytest.raises(
        SetupError, match="config takes a class made with attrs or dataclasses, not"
    ):
        app.config(int)

    @attrs.frozen
    class Odd:
        lock: Iterator[int]

    app.config(Odd)
    with pytest.raises(SetupError, match="config Odd: lock: "):
        app.configure({})
    with pytest.raises(SetupError, match="config is given twice: Odd and Shop"):
        app.config(Shop)
    with pytest.raises(SetupError, match=r"\[app\]: the app takes no settings of its own"):
        App().configure({"x": 1})


# -- on the command line

CODE = """
import os, linepool
def create_app(name="eu", debug=False):
    app = linepool.App(name=f"{name} {debug} {os.environ.get('GREETING')}")
    @app.handler
    def ping() -> str:
        return "pong"
    return app
def nothing():
    return 3
def broken():
    return 1 / 0
made = create_app()
"""


@pytest.fixture
def check(tmp_path: Path, monkeypatch, capsys):
    """Run ``linepool check`` in a directory with an app; return status, output and errors."""
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "LINEPOOL_WORKERS": "4"}
    (tmp_path / "checked_shop.py").write_text(CODE)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(os, "environ", dict(environment))
        monkeypatch.delitem(sys.modules, "checked_shop", raising=False)
        status = cli.main(["check", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("create_app", "to serve the app that it returns, give checked_shop.py:create_app()"),
        ("creat_app()", "creat_app does not exist; did you mean create_app?"),
        ("mad", "mad does not exist; did you mean made?"),
        ("made()", "made cannot be called; leave out the parentheses"),
        ("os", "os is not a linepool.App"),
        ("create_app(os)", "must be literals, such as create_app('eu', debug=True)"),
        ("create_app(**{})", "the arguments of create_app must be literals"),
        ("create_app(1, 2, 3)", "TypeError: create_app() takes from 0 to 2 positional arguments but 3"),
        ("nothing()", "nothing() returned 3, not a linepool.App"),
        ("broken()", "ZeroDivisionError: division by zero"),
        ("", "names no app after the colon; give FILE.py"),
    ],
)  # fmt: skip
def test_a_target_that_makes_no_app_is_refused(check, call, says):
    status, _, err = check(f"checked_shop.py:{call}")
    assert status == 1
    assert says in err.partition("\n")[0]


def test_a_function_may_make_the_app(check):
    assert check("checked_shop:create_app('a:b', debug=True)")[1].startswith("a:b True None: ")
    assert check("checked_shop.py:create_app()")[1].startswith("eu False None: ")


def test_each_setting_is_shown_with_its_source(check, tmp_path):
    (tmp_path / "linepool.toml").write_text("max-age = 3\nbacklog = 5\n[app]\nitems = 3\n")
    (tmp_path / "a.env").write_text(
        "LINEPOOL_BACKLOG=6\nLINEPOOL_WORKERS=3\nexport GREETING='hi there'\n"
    )
    status, out, err = check(
        "checked_shop:create_app()", "--env-file", "a.env", "--scheme", "accept"
    )
    assert (status, err.count("takes no settings of its own")) == (2, 1)
    (tmp_path / "linepool.toml").write_text("max-age = 3\nbacklog = 5\n")

    status, out, err = check(
        "checked_shop:create_app()", "--env-file", "a.env", "--scheme", "accept", "--settings"
    )
    assert (status, err) == (0, "")
    sources = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert sources["max_age"] == ["3", "linepool.toml"]
    assert sources["backlog"] == ["6", "a.env"]
    assert sources["workers"] == ["4", "LINEPOOL_WORKERS"]
    assert sources["scheme"] == ["accept", "--scheme"]
    assert sources["kill_grace"] == ["2", "default"]
    assert check("checked_shop:create_app()", "--env-file", "a.env")[1].startswith(
        "eu False hi there: "
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("A=1\n\n# c\nfoo bar\n", "a.env, line 4: not of the form NAME=VALUE"),
        ("A\n", "a.env, line 1: A has no value"),
        ("LINEPOOL_SCHEME=x\n", "a.env: scheme must be shared or dispatch or accept, not 'x'"),
        (None, "--env-file: cannot read a.env: No such file or directory"),
    ],
)
def test_a_wrong_file_for_the_environment_is_refused(check, tmp_path, text, says):
    if text is not None:
        (tmp_path / "a.env").write_text(text)
    assert check("--settings", "--env-file", "a.env") == (2, "", f"linepool: {says}\n")


def test_settings_in_a_table_for_another_file_are_refused(check, tmp_path):
    (tmp_path / "linepool.toml").write_text("[tool.linepool]\nworkers = 3\n")
    assert "[tool.linepool] is for pyproject.toml" in check("--settings")[2]
    (tmp_path / "linepool.toml").write_text("app = 3\n")
    assert check("--settings")[2] == "linepool: linepool.toml: app must be a table, not 3\n"
