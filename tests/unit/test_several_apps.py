"""Several apps and the tables of the file: which app listens where, with which settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from linepool import App, SetupError
from linepool.apps import Apps
from linepool.operate.config import Given
from linepool.operate.targets import Word, named, parse_word
from linepool.settings import PER_LISTENER, Settings, as_texts, from_texts, tables_of
from linepool.settings.listeners import keys_of
from tests.servers import ROOT


def _settings(apps: Apps, file: str = "", directory=None, **options: object) -> Settings:
    path = None
    if directory is not None:
        path = str(directory / "x.toml")
        (directory / "x.toml").write_text(file)
    given = Given.read(options, {}, path or "/dev/null")
    return given.configuration(apps, named(apps, given.tables)).settings


def _refusal(apps: Apps, file: str = "", directory=None, **options: object) -> str:
    with pytest.raises(SetupError) as error:
        _settings(apps, file, directory, **options)
    return str(error.value)


def _two(**of_the_second: Any) -> Apps:
    return Apps([App("main", bind="7001"), App("admin", **{"bind": "7002", **of_the_second})])


def test_each_app_keeps_its_addresses_and_its_own_limits():
    settings = _settings(_two(max_line_bytes=99, workers=3), read_timeout=5)

    assert settings.bind == ("7001", "7002")
    assert [(one.app, dict(one.options)) for one in settings.listeners] == [
        ("main", {}),
        ("admin", {"max_line_bytes": 99}),
    ]
    assert settings.of_listener("7002").max_line_bytes == 99
    assert settings.of_listener("7001") == settings.of_listener("7001")
    assert settings.of_listener("7001").max_line_bytes == 8192
    assert settings.of_listener("7002").read_timeout == 5.0
    assert (settings.workers.min, settings.workers.max) == (3, 3)
    assert from_texts(as_texts(settings)) == settings


def test_one_app_without_an_address_has_the_default_one():
    assert _settings(Apps([App("a"), App("b", bind="7002")])).bind == ("127.0.0.1:7000", "7002")
    assert "a and b have no address" in _refusal(Apps([App("a"), App("b")]))


def test_one_app_without_tables_is_as_it_was():
    settings = _settings(Apps([App("main", bind="7001", max_line_bytes=99)]))

    assert settings.listeners == ()
    assert (settings.bind, settings.max_line_bytes) == (("7001",), 99)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bind": "7005"}, "bind (command line) does not say which of the apps main, admin"),
        ({"max_line_bytes": "x"}, "max_line_bytes must be a whole number"),
    ],
)
def test_an_option_that_does_not_fit_several_apps_is_refused(options, said):
    assert said in _refusal(_two(), **options)


def test_contradictions_between_apps_are_refused():
    both = Apps([App("main", bind="7001", workers=2), App("admin", bind="7002", workers=3)])

    assert "workers holds for the whole server, and the apps differ" in _refusal(both)
    assert "two listeners have one address: 7001 for main and 127.0.0.1:7001 for admin" in _refusal(
        _two(bind="127.0.0.1:7001")
    )
    with pytest.raises(SetupError, match="the same app is given twice"):
        Apps([both.first, both.first])
    with pytest.raises(SetupError, match="two apps have the name 'main'"):
        Apps([App("main"), App("main")])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("app = 'main'", "[[listener]] 1 has no address"),
        ("bind = '1'\naddress = '2'", "bind is given twice"),
        ("bind = '1'", "has no app; there are main, admin"),
        ("bind = '1'\napp = 'amin'", "unknown app 'amin'; did you mean 'admin'?"),
        ("bind = '1'\napp = 'main'\nworker = 2", "unknown key 'worker'"),
        ("bind = '1'\napp = 'main'\nmax_line = 2", "did you mean 'max_line_bytes'?"),
        ("bind = '1'\napp = 'main'\nworkers = 2", "workers holds for the whole server"),
        ("bind = '1'\napp = 'main'\nunix_mode = 660", "octal digits, such as '660'"),
        ("bind = 'x y z'\napp = 'main'", "bind must be"),
        ("bind = '7002'\napp = 'main'", "two listeners have one address"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_number(table, said, tmp_path):
    assert said in _refusal(_two(), f"[[listener]]\n{table}\n", tmp_path)


def test_a_file_without_a_table_header_is_refused(tmp_path):
    said = _refusal(_two(), "[listener]\nbind = '1'\n", tmp_path)

    assert "must be tables, each headed by [[listener]]" in said


def test_tables_come_before_the_addresses_of_the_app(tmp_path):
    file = "max_line_bytes = 50\n[[listener]]\naddress = ['7003', 'unix:@x']\napp = 'admin'\nname = 'x'\n"
    settings = _settings(_two(), file, tmp_path)

    assert settings.bind == ("7001", "7003", "unix:@x")
    table = settings.table_of("unix:@x")
    assert table is not None
    assert (table.app, table.name) == ("admin", "x")
    assert settings.of_listener("7003").max_line_bytes == 50


def test_equal_addresses_have_keys_of_their_own():
    assert keys_of(("127.0.0.1:0", "7", "127.0.0.1:0")) == ["127.0.0.1:0", "7", "127.0.0.1:0#2"]
    tables = tables_of([{"bind": "127.0.0.1:0"}, {"bind": ":0", "max-line-bytes": 20}], "f")
    settings = Settings(bind=("127.0.0.1:0", ":0"), listeners=tables)
    assert settings.of_listener(":0").max_line_bytes == 20
    assert settings.table_of("elsewhere") is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("shop:main", Word("shop:main")),
        ("shop:main@7001", Word("shop:main", "7001")),
        ("shop:main@unix:@name", Word("shop:main", "unix:@name")),
        ("shop.py@[::1]:7001", Word("shop.py", "[::1]:7001")),
    ],
)
def test_a_target_may_carry_an_address(text, word):
    assert parse_word(text) == word


def test_an_address_that_is_wrong_is_refused():
    with pytest.raises(SetupError, match="what is behind the @ must be an address"):
        parse_word("shop:main@nowhere")


def test_commands_have_numbers_of_their_own_in_all_apps():
    one, other = App("one"), App("other")
    one.handler("A")(lambda: "")
    other.handler("A")(lambda: "")
    services = Apps([one, other]).freeze(Settings())
    entries = [entry for service in services.values() for entry in service.entries]

    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.shown for entry in entries if entry.name == "A"] == ["one:A", "other:A"]


class Stock(list[str]):
    pass


def _library() -> App:
    library = App("library")

    @library.resource
    def stock() -> Iterator[Stock]:
        yield Stock(["x"])

    @library.handler("COUNT", "N")
    def count(stock: Stock) -> int:
        return len(stock)

    @library.on_worker_start
    def fill(stock: Stock) -> None:
        stock.append("y")

    return library


def test_an_app_includes_the_handlers_of_another_with_their_resources():
    app = App("app")
    app.include(_library())

    assert app.ask("COUNT") == "2"
    assert app.ask("N") == "2"


def test_included_commands_may_have_a_prefix():
    app = App("app")
    app.include(_library(), prefix="LIB.")

    assert app.ask("LIB.COUNT") == "2"
    assert app.ask("COUNT").startswith("ERROR")


def test_an_include_that_does_not_fit_is_refused():
    app = App("app")
    app.handler("COUNT")(lambda: "")
    with pytest.raises(SetupError, match="command COUNT has two handlers"):
        app.include(_library())
    with pytest.raises(SetupError, match="include itself"):
        app.include(app)


def test_the_page_names_the_settings_that_a_listener_can_have():
    page = (ROOT / "docs/listeners.md").read_text(encoding="utf-8")
    section = page.partition("### A listener's own settings\n")[2].strip().partition("\n\n")[0]

    assert re.findall("`(.+?)`", section) == list(PER_LISTENER)
