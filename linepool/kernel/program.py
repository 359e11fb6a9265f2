"""How this process was started, so that another one can be started in the same way."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from attrs import evolve, frozen

from linepool.kernel import features


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

    @property
    def resolved(self) -> Program:
        """The program that its names lead to now; they may be links that lead to another one later."""
        executable, *arguments = self.arguments
        script = sys.argv[0]
        arguments = [_real_file(one) if one == script else one for one in arguments]
        environment = dict(self.environment)
        if paths := environment.get("PYTHONPATH"):
            places = [os.path.join(self.directory, path) for path in paths.split(os.pathsep)]
            environment["PYTHONPATH"] = os.pathsep.join(map(os.path.realpath, places))
        # Python finds a virtual environment by the directory of its executable, which itself is a link.
        return Program(
            (_real_file(executable), *arguments), environment, os.path.realpath(self.directory)
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object; bytes that are not text are lone surrogates, as in ``os.environ``."""
        return {
            "arguments": list(self.arguments),
            "environment": dict(self.environment),
            "directory": self.directory,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Program:
        """Return the program in a JSON object."""
        return cls(tuple(facts["arguments"]), facts["environment"], facts["directory"])

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

    def replace(
        self,
        variables: Mapping[str, str],
        descriptors: Sequence[int],
        prepare: Callable[[], None] = lambda: None,
    ) -> NoReturn:
        """Become this program under the same pid, in which all signals are blocked until it unblocks them.

        Pre-condition: this is the main thread; after an exec in another one, the kernel tells all children
        that their parent has ended (prctl(2), PR_SET_PDEATHSIG).

        Args:
            variables: Added to its environment.
            descriptors: It inherits them beside the standard ones.
            prepare: Called when signals are blocked.

        Raises:
            OSError: It cannot be started; everything is as before.
        """
        here = os.open(".", features.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            prepare()
            for number in descriptors:
                os.set_inheritable(number, True)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            self.execute(variables)
        except OSError:
            for number in descriptors:
                with contextlib.suppress(OSError):
                    os.set_inheritable(number, False)
            os.fchdir(here)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(here)


def _real_file(path: str) -> str:
    """Return a path with its directory resolved, and the file's own name kept."""
    directory, file = os.path.split(path)
    return os.path.join(os.path.realpath(directory), file) if directory else path


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
