"""The option ``--env-file``: files with variables of the environment, for settings and for the app."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

from linepool.errors import SetupError

Variables = Sequence[tuple[str, Mapping[str, str]]]
"""The name of each file, and its variables; a later file overrides an earlier one."""


def read(files: Iterable[str]) -> Variables:
    """Return the variables of files, in the syntax of python-dotenv (``NAME=VALUE``, quotes, comments).

    Raises:
        SetupError: A file cannot be read; the text names file and line.
    """
    return [(file, _read(file)) for file in files]


def add_to(environment: MutableMapping[str, str], variables: Variables) -> None:
    """Add variables to an environment; those that it has already stay as they are."""
    merged = {name: value for _, some in variables for name, value in some.items()}
    for name, value in merged.items():
        environment.setdefault(name, value)


def _read(file: str) -> Mapping[str, str]:
    try:
        from dotenv import dotenv_values  # noqa: PLC0415 - an extra
        from dotenv.parser import parse_stream  # noqa: PLC0415
    except ImportError:
        raise SetupError(
            "--env-file needs python-dotenv; install it with: pip install 'linepool[dotenv]'"
        ) from None
    try:
        with open(file, encoding="utf-8-sig") as stream:
            for binding in parse_stream(stream):
                line = binding.original.line + _blank_lines(binding.original.string)
                if binding.error:
                    raise SetupError(f"{file}, line {line}: not of the form NAME=VALUE")
                if binding.key is not None and binding.value is None:
                    raise SetupError(f"{file}, line {line}: {binding.key} has no value")
        values = dotenv_values(file, encoding="utf-8-sig")
    except OSError as error:
        raise SetupError(f"--env-file: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"--env-file: {file} is not UTF-8") from None
    known = {name: value for name, value in values.items() if value is not None}
    for name, value in known.items():
        if "\0" in name + value:
            raise SetupError(f"{file}: {name!r} has a NUL in it")
    return known


def _blank_lines(text: str) -> int:
    """Return how many line breaks precede a statement in its text."""
    return (text[: len(text) - len(text.lstrip())]).count(os.linesep)
