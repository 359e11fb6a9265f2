"""The calculator over JSON-RPC, with clients."""

from __future__ import annotations

import json
import re
import socket
import subprocess

import pytest

from tests.clients.harness import all_together
from tests.servers import EXAMPLES, run_server

CALCULATOR = EXAMPLES / "calculator_rpc" / "calculator.py"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with run_server(
        CALCULATOR, tmp_path_factory.mktemp("calculator"), "--workers", "2:8"
    ) as running:
        yield running


def test_the_dialogue_in_the_readme_is_what_netcat_shows(server):
    readme = (EXAMPLES / "calculator_rpc" / "README.md").read_text()
    (session,) = re.findall(r"\$ nc .*\n((?:.*\n)*?)```", readme)
    sent = "".join(line[2:] + "\n" for line in session.splitlines() if line.startswith("> "))
    wanted = "".join(line + "\n" for line in session.splitlines() if not line.startswith("> "))
    command = ["nc", "-N", "127.0.0.1", str(server.port)]
    done = subprocess.run(
        command, input=sent, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == wanted


def test_many_clients_calculate_at_once(server):
    def calculate(number: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
            stream = sock.makefile("rw", encoding="utf-8", newline="\n")
            for step in range(200):
                params = [number, step]
                print(
                    json.dumps({"jsonrpc": "2.0", "method": "add", "params": params, "id": step}),
                    file=stream,
                    flush=True,
                )
                assert json.loads(stream.readline()) == {
                    "jsonrpc": "2.0",
                    "result": number + step,
                    "id": step,
                }

    all_together(4, calculate)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("1 + 2 * 3", 7),
        ("-(4 % 3) / 2", -0.5),
        ("2 ** 1000000", "an expression may contain only numbers, + - * / % and parentheses"),
        ("__import__('os')", "an expression may contain only numbers, + - * / % and parentheses"),
        ("1 +", "'1 +' is not an expression"),
        ("1 / 0", "division by zero"),
        ("9" * 999, int("9" * 999)),
        ("9" * 400 + "*" + "9" * 400 + "*" + "9" * 198, int("9" * 400) ** 2 * int("9" * 198)),
        ("(" * 400, "is not an expression"),
        ("1e308 * 10", "the result is not a number"),
    ],
)
def test_an_expression_is_evaluated_or_refused(server, expression, answer):
    message = {"jsonrpc": "2.0", "method": "evaluate", "params": [expression], "id": 1}
    said = json.loads(server.converse(json.dumps(message).encode() + b"\n"))
    if isinstance(answer, str):
        assert answer in said["error"]["message"]
    else:
        assert said["result"] == answer
