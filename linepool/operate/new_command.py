"""The command ``linepool new``: makes a project."""

from __future__ import annotations

import argparse
import keyword
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from attrs import frozen

from linepool.errors import SetupError
from linepool.version import __version__

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*")  # also a name of a Python project
_RESERVED = {"attr", "attrs", "cattrs", "linepool", "mypy", "pytest", "ruff", "test", "tests"}
# Where each file of the folder project/ goes.
_FILES = {
    "pyproject": "pyproject.toml",
    "linepool_toml": "linepool.toml",
    "readme": "README.md",
    "init": "{{package}}/__init__.py",
    "service": "{{package}}/service.py",
    "test_service": "tests/test_service.py",
    "dockerfile": "Dockerfile",
    "dockerignore": ".dockerignore",
    "gitignore": ".gitignore",
}


class _WrongNameError(SetupError):
    is_usage = True


@frozen
class _Project:
    """What is made.

    Attributes:
        name: Of the project, its app and its image.
        package: The name by which Python imports it.
    """

    name: str
    package: str

    @classmethod
    def named(cls, name: str) -> _Project:
        """Return a project.

        Raises:
            SetupError: It cannot have the name; the text says which would be right.
        """
        if not _NAME.fullmatch(name):
            raise _WrongNameError(
                f"a project cannot have the name {name!r}: it must be letters and digits, with single - or _"
                f" between them, and begin with a letter{_suggested(name)}"
            )
        package = name.lower().replace("-", "_")
        if why := _why_reserved(package):
            raise _WrongNameError(
                f"a project cannot have the name {name!r}: {why}; {name}-service would be possible"
            )
        return cls(name, package)

    def filled(self, text: str) -> str:
        """Return a text of the template with what is its own in it."""
        own = {"name": self.name, "package": self.package, "version": __version__}
        return re.sub(r"\{\{(\w+)\}\}", lambda found: own[found[1]], text)

    def files(self) -> Mapping[str, str]:
        """Return the content of each file."""
        folder = resources.files("linepool.operate") / "project"
        return {
            self.filled(place): self.filled((folder / f"{file}.txt").read_text(encoding="utf-8"))
            for file, place in _FILES.items()
        }


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    new = commands.add_parser(
        "new",
        description="Make a directory with a project: an app, its tests, linepool.toml, pyproject.toml, a"
        " Dockerfile and a README. Its tests pass and it can be served as it is.",
        epilog="examples:\n  linepool new shop\n  linepool new services/stock-keeper",
    )
    new.add_argument(
        "directory",
        metavar="DIRECTORY",
        help="made if it does not exist; the last part of its path is the name of the project",
    )
    new.set_defaults(run=_run, parser=new)


def _run(options: argparse.Namespace) -> int:
    place = directory = Path(os.path.abspath(options.directory))
    project = _Project.named(directory.name)
    try:
        _refuse_used(directory, options.directory)
        files = project.files()
        for name, text in files.items():
            place = directory / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write {error.filename or place}: {error.strerror}") from None
    print(*(os.path.join(options.directory, place) for place in files), sep="\n")
    steps = ["pip install -e '.[test]'", "pytest", "linepool run"]
    if directory != Path.cwd():
        steps.insert(0, f"cd {shlex.quote(options.directory)}")
    print("next:", *steps, sep="\n  ", file=sys.stderr)
    return 0


def _refuse_used(directory: Path, given: str) -> None:
    """Raise SetupError for a directory in which something is already, hidden files included."""
    if directory.is_dir() and any(directory.iterdir()):
        raise SetupError(f"the directory {given} is not empty; give another name, or remove it")
    if directory.exists() and not directory.is_dir():
        raise SetupError(f"{given} is a file; give another name")


def _suggested(name: str) -> str:
    """Return a question that names a similar name that is possible; "": there is none."""
    near = (
        re.sub(r"[^a-z0-9]+", "-", name.lower().removesuffix(".py"))
        .strip("-")
        .lstrip("0123456789-")
    )
    return f"; did you mean {near}?" if _NAME.fullmatch(near) and not _why_reserved(near) else ""


def _why_reserved(package: str) -> str:
    """Return why a package must not have a name; "": it may."""
    if keyword.iskeyword(package):
        return f"{package} is a word of Python's own"
    if package in sys.stdlib_module_names:
        return f"it would hide Python's module {package}"
    if package in _RESERVED:
        return f"it would hide the module {package}, which the project needs"
    return ""
