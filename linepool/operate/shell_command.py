"""The command ``linepool shell``: a prompt for the commands of a server that speaks the line protocol."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from linepool.client.blocking import Client
from linepool.client.errors import ConnectionFailed
from linepool.errors import LinepoolError, SetupError, UnknownCommand
from linepool.operate.calling import add_address, add_options, call_each, client_of, show
from linepool.operate.shell_prompt import History, prompt_of
from linepool.operate.shell_words import Commands
from linepool.operate.terminal import printable

_OWN = {
    "help": "list the commands, or explain one: help NAME",
    "exit": "end the shell, as Ctrl-D does",
}
_DESCRIPTION = (
    "Ask for requests at a prompt, call them, and print what they return. It completes commands, options"
    " and choices, and explains them: help ADD. Ctrl-C interrupts a call, Ctrl-D ends the shell. If standard"
    " input is not a terminal, each of its lines is a request."
)
_EXAMPLES = """\
examples:
  linepool shell 127.0.0.1:7000
  linepool shell tls://sums.example:7000 --tls-ca ca.pem
  linepool shell 7000 < requests.txt

It completes as you type with linepool[shell] (prompt_toolkit), and with the Tab key without it."""


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("shell", description=_DESCRIPTION, epilog=_EXAMPLES)
    add_address(parser)
    add_options(parser)
    parser.set_defaults(run=_run, parser=parser)


def _run(options: argparse.Namespace) -> int:
    with client_of(options) as client:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return call_each(client, as_json=options.json)
        _Shell(client, options.address, as_json=options.json).run()
    return 0


class _Shell:
    """A prompt for the commands of a server.

    Args:
        client: Of the server.
        address: The server's address, as it was given.
        as_json: How values are printed.

    Raises:
        SetupError: The server cannot be reached.
    """

    def __init__(self, client: Client, address: str, *, as_json: bool) -> None:
        self._client = client
        self._as_json = as_json
        self._history = History()
        self._address = address
        self._is_stale = False
        try:
            self._commands = self._described()
        except LinepoolError as error:
            raise SetupError(str(error)) from None

    def run(self) -> None:
        """Ask for lines until there are no more."""
        ask = prompt_of(f"{self._address}> ", lambda: self._commands, self._history.lines)
        print("help lists the commands, Ctrl-D ends the shell")
        while True:
            try:
                lines = ask().splitlines()
            except KeyboardInterrupt:  # what was typed is dropped
                continue
            except EOFError:
                print()
                return
            for line in lines:
                if self._is_end(line):
                    return
                self._obey(line.strip())

    def _is_end(self, line: str) -> bool:
        return line.strip().lower() == "exit" and not self._commands.has("exit")

    def _obey(self, line: str) -> None:
        """Do what one line says."""
        if not line:
            return
        if not self._commands.is_secret(line):
            self._history.add(line)
        word, _, name = line.partition(" ")
        if word.lower() == "help" and self._commands.is_known and not self._commands.has("help"):
            print(printable(self._commands.help(name.strip()), sys.stdout))
        elif block := self._commands.block_of(line):
            print(f"the shell cannot send data blocks, such as {block}; a stub can")
        else:
            self._call(line)

    def _call(self, line: str) -> None:
        values = self._client.stream_line(line.encode(errors="surrogateescape"))
        try:
            for value in values:
                show(value, as_json=self._as_json)
            self._look_again()
        except KeyboardInterrupt:
            print("interrupted; the connection is closed")
        except (LinepoolError, ValueError) as error:
            if isinstance(error, ConnectionFailed | UnknownCommand):
                self._is_stale = True
            print(printable(f"error: {error}".split("\n"), sys.stdout))

    def _look_again(self) -> None:
        """Learn the commands anew if the server may have other ones than before."""
        if self._is_stale:
            self._commands = self._described()
            self._is_stale = False

    def _described(self) -> Commands:
        try:
            document = self._client.call("SCHEMA")
        except UnknownCommand:
            document = None
        is_description = isinstance(document, dict) and "commands" in document
        return Commands(document if is_description else {}, _OWN)
