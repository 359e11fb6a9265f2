"""The document of an app's commands: ``linepool schema``, SCHEMA, ``linepool check --json``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from linepool import App, Line, Secret, body
from linepool.testing import serve

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/schema.md").read_text(encoding="utf-8")
CODE, SHOWN = (
    re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    for kind in ("python", "json")
)


def linepool(directory: Path, *words: str) -> tuple[int, str, str]:
    """Run the command in a directory with the app of the page; return status, output and errors."""
    (directory / "shop.py").write_text(CODE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "linepool", *words],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def shop() -> App:
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(CODE, "shop.py", "exec", dont_inherit=True), names)
    app = names["app"]
    assert isinstance(app, App)
    return app


def document(app: App) -> dict[str, Any]:
    found = json.loads(app.ask(b"SCHEMA\n"))
    assert isinstance(found, dict)
    return found


def test_the_command_prints_what_the_page_shows_and_the_server_sends(tmp_path):
    status, out, error = linepool(tmp_path, "schema", "shop.py", "PAY")
    assert (status, error) == (0, "")
    assert json.loads(out) == json.loads(SHOWN)
    status, out, _ = linepool(tmp_path, "schema", "shop.py")
    whole = json.loads(out)
    assert [one["name"] for one in whole["commands"]] == ["PAY", "RECEIPTS"]
    with serve(shop(), workers=2) as server:
        assert json.loads(server.ask("SCHEMA")) == whole
        assert json.loads(server.ask("schema pay")) == json.loads(SHOWN)
        assert server.ask("@ SCHEMA").startswith('= {"$schema":')
        reply = json.loads(server.ask("PAY tea 2 1234"))
    for one in (whole, json.loads(SHOWN)):
        schema = {**one["commands"][0]["reply"]["schema"], "$defs": one["$defs"]}
        jsonschema.validate(reply, schema)


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["shop.py", "PYA"], 2, "unknown command 'PYA'; did you mean PAY?"),
        (["shop.py", "zzz"], 2, "unknown command 'zzz'; the commands are PAY, RECEIPTS"),
        (["shop.py", "--chdri", "/"], 2, "unknown argument --chdri; did you mean --chdir?"),
        (["nothing.py"], 1, "file nothing.py does not exist"),
        ([], 2, "give a TARGET, or write target = 'TARGET' in linepool.toml"),
    ],
)
def test_a_wrong_use_gets_one_line(tmp_path, words, status, text):
    found, out, error = linepool(tmp_path, "schema", *words)
    assert (found, out) == (status, "")
    assert text in error
    assert error.count("\n") == 1


def test_check_prints_params_and_replies_and_names_commands_without_an_annotation(tmp_path):
    (tmp_path / "bare.py").write_text(
        CODE + "@app.handler\ndef bare(): ...\n\n@app.handler\ndef other(): ...\n", encoding="utf-8"
    )
    status, out, error = linepool(tmp_path, "check", "bare.py", "--json")
    assert status == 0
    assert error == (
        "linepool: no return annotation: bare, other; HELP and the schema cannot say what their"
        " replies look like\n"
    ).replace("bare, other", "BARE, OTHER")
    facts = json.loads(out)
    commands = {one["names"][0]: one for one in facts["commands"]}
    shown = json.loads(SHOWN)
    assert commands["PAY"]["params"] == shown["commands"][0]["params"]
    assert commands["PAY"]["reply"] == shown["commands"][0]["reply"]
    assert commands["BARE"]["reply"] == {"shape": "unknown", "text": "", "schema": {}}
    assert commands["HELP"]["reply"]["shape"] == "many"
    assert facts["$defs"] == shown["$defs"]


def test_every_kind_of_parameter_is_described():
    app = App()

    @app.handler("PUT", "STORE", timeout=1.5)
    def put(
        key: str, size: int, data: bytes = body("size"), *, ttl: float = 0.5, quiet: bool = False
    ) -> None: ...

    @app.handler
    def login(user: str, password: Secret | None = None) -> bool:
        return bool(user and password)

    @app.handler
    def total(*numbers: int) -> int:
        return sum(numbers)

    @app.handler
    def place(order: list[int]) -> str:
        return str(order)

    put_, login_, total_, place_ = document(app)["commands"]
    assert (put_["aliases"], put_["timeout"]) == (["STORE"], 1.5)
    kinds = {one["name"]: (one["kind"], one["required"]) for one in put_["params"]}
    assert kinds == {
        "key": ("word", True),
        "size": ("word", True),
        "ttl": ("option", False),
        "quiet": ("flag", False),
        "data": ("body", True),
    }
    params = {one["name"]: one for one in put_["params"]}
    assert params["ttl"]["default"] == 0.5
    assert params["data"]["size"] == "size"
    assert put_["reply"] == {"shape": "none", "text": "OK", "schema": {"type": "null"}}
    password = login_["params"][1]
    assert password["secret"]
    assert "default" not in password
    assert place_["params"][0]["kind"] == "json"
    assert place_["params"][0]["schema"] == {"type": "array", "items": {"type": "integer"}}
    assert total_["params"][0]["kind"] == "many"
    assert total_["params"][0]["schema"] == {"type": "integer"}


def test_what_may_be_called_twice_is_described_and_digested():
    def described(**options):
        app = App()
        app.handler("ADD", **options)(lambda: None)
        return document(app)

    once, repeatable = described(), described(idempotent=True)
    assert [one["commands"][0]["idempotent"] for one in (once, repeatable)] == [False, True]
    assert once["digest"] != repeatable["digest"]


def test_an_app_whose_clients_have_to_log_in_says_so(tmp_path):
    app = App()
    app.handler("ADD")(lambda: None)
    app.handler("MOTD", public=True)(lambda: None)
    without = document(app)
    app.authenticate(lambda user, password: True)
    whole = json.loads(app.ask("SCHEMA", user="ann"))
    assert whole["login"] is True
    assert [one.get("public") for one in whole["commands"]] == [None, True]
    assert "login" not in without
    assert "public" not in without["commands"][1]
    assert whole["digest"] != without["digest"]
    assert json.loads(app.ask("SCHEMA MOTD", user="ann"))["commands"] == whole["commands"][1:]

    (tmp_path / "vault.py").write_text(
        "import linepool\n@linepool.authenticate\ndef check(user, password): return True\n"
        "@linepool.handler\ndef add() -> int: return 1\n"
    )
    status, out, _ = linepool(tmp_path, "check", "vault.py")
    assert status == 0
    assert out.startswith("vault: 5 commands; clients have to log in for all but AUTH, QUIT\n")
    found = json.loads(linepool(tmp_path, "check", "vault.py", "--json")[1])
    assert found["login"] is True
    assert [one["names"] for one in found["commands"] if "public" in one] == [["AUTH"], ["QUIT"]]


def app_with(doc: str = "Say it.", kind: type = str, timeout: float = 1, name: str = "say") -> App:
    app = App("other")

    def say(text): ...

    say.__doc__, say.__annotations__ = doc, {"text": kind, "return": kind}
    first, second = (name, "zzz") if doc == "Say it." else ("zzz", name)
    app.handler(first, timeout=timeout)(say)
    app.handler(second, timeout=timeout)(say)
    return app


def test_the_digest_changes_with_what_clients_depend_on():
    digest = document(app_with())["digest"]
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert document(app_with(doc="Say it again.", timeout=2))["digest"] == digest
    assert document(app_with(kind=int))["digest"] != digest
    assert document(app_with(name="tell"))["digest"] != digest
    lines = [App(protocol=Line(records=records)) for records in ("lines", "json")]
    for app in lines:
        app.handler("A")(_dict)
    assert document(lines[0])["digest"] != document(lines[1])["digest"]


def _dict() -> dict[str, int]:
    return {}


def test_help_does_not_list_schema_but_explains_it():
    app = App()
    assert b"SCHEMA" not in app.ask(b"HELP\n")
    assert app.ask(b"HELP SCHEMA\n").startswith(b"SCHEMA [command:str]\nReturns: JSON of ")
    assert app.ask(b"SCHEMA FRO\n") == (
        b"CLIENT_ERROR unknown command 'FRO'. HELP lists the commands.\n"
    )


def test_an_app_may_have_a_command_of_that_name_or_no_builtins():
    app = App()

    @app.handler
    def schema() -> str:
        """Show the tables."""
        return "mine"

    assert app.ask(b"SCHEMA\n") == b"mine\n"
    assert b"SCHEMA" in app.ask(b"HELP\n")
    assert App(builtins=False).ask(b"SCHEMA\n").startswith(b"ERROR unknown command")
