"""How this process was started, so that another one can be started in the same way."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from attrs import evolve, frozen


@frozen
class Program:
    """A command line with its environment and directory.

    Attributes:
        arguments: The interpreter's path, and its arguments.
        environment: As it was when the process was started.
        directory: The working directory by its name, which may be a symbolic link: that may lead to a new
            release of the app.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str

    @classmethod
    def of_this_process(cls) -> Program:
        """Return how this process was started; its environment variables may have changed since."""
        return cls((sys.executable, *sys.orig_argv[1:]), _environment(), _directory())

    def with_option(self, option: str) -> Program:
        """Return the same with one more option of the interpreter, such as ``-B``."""
        interpreter, *arguments = self.arguments
        return evolve(self, arguments=(interpreter, option, *arguments))

    def execute(self, variables: Mapping[str, str]) -> NoReturn:
        """Become this program.

        Args:
            variables: Added to its environment.

        Raises:
            OSError: It cannot be started, or its directory is gone.
        """
        os.chdir(self.directory)
        environment = {**self.environment, **variables}
        os.execve(self.arguments[0], self.arguments, environment)  # noqa: S606 - as it was started


def _environment() -> dict[str, str]:
    """Return the environment that this process was started with (proc_pid_environ(5))."""
    try:
        data = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)
    pairs = [os.fsdecode(pair).partition("=") for pair in data.split(b"\0") if b"=" in pair]
    return {name: value for name, _, value in pairs}


def _directory() -> str:
    """Return the name of the working directory as the shell knows it, if that is still its name.

    If it has been removed, its former name, or "".
    """
    name = os.environ.get("PWD", "")
    try:
        return name if os.path.isabs(name) and os.path.samefile(name, ".") else os.getcwd()
    except OSError:
        pass
    try:
        return os.getcwd()
    except OSError:
        return name
