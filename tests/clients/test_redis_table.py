"""The table of commands in the README of the Redis example."""

import subprocess

import pytest

from tests.clients.redis_table import VERSION, current, in_readme


def test_the_readme_tells_which_commands_are_served():
    said = subprocess.run(["redis-cli", "--version"], capture_output=True, text=True, check=True)
    if f" {VERSION}." not in said.stdout:
        pytest.skip(
            f"the table is of the commands of Redis {VERSION}; here is {said.stdout.strip()}"
        )
    assert in_readme() == current(), "run ./dev python -m tests.clients.redis_table"
