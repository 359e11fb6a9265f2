"""The files whose changes matter, and how each of them was when it was looked at last."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import Factory, define, frozen


@frozen
class Mark:
    """How a file is: with another content, another mark. Times are in nanoseconds.

    Attributes:
        changed_ns: When anything of it was changed last, its name and its times included (stat(2), st_ctim).
    """

    changed_ns: int
    modified_ns: int
    size: int
    inode: int


@frozen
class Wanted:
    """What matters.

    Attributes:
        modules: Files of code that were loaded. All Python files in their directories count, and the packages
            in them: one of them may be imported later, or may be what an import has not found.
        files: Other files; they need not exist.
        patterns: For further files, as for ``glob``; ``**`` is any number of directories.
        since_ns: When the code was loaded last, in nanoseconds since 1970.
    """

    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    since_ns: int = 0

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Wanted:
        """Return what a letter says."""
        return cls(
            modules=_absolute(facts["modules"]),
            files=_absolute(facts["files"]),
            patterns=_absolute(facts["patterns"]),
            since_ns=int(facts["since_ns"]),
        )


@define
class Files:
    """The files that matter."""

    _wanted: Wanted = Wanted()
    _marks: dict[str, Mark] = Factory(dict)

    def want(self, wanted: Wanted) -> None:
        """Have other files matter from now on.

        Of those that mattered before, it is known how they were. Another one is as it was loaded, unless it
        has changed since.
        """
        self._wanted = wanted
        self._marks = {
            path: self._marks.get(path, mark)
            for path, mark in self._found().items()
            if path in self._marks or mark.changed_ns < wanted.since_ns
        }

    def changed(self) -> list[str]:
        """Return those that have changed, appeared or gone since the last look."""
        before, self._marks = self._marks, self._found()
        paths = before.keys() | self._marks.keys()
        return sorted(path for path in paths if before.get(path) != self._marks.get(path))

    def may_matter(self, path: str) -> bool:
        """Whether it is worth a look if something has happened to a path."""
        wanted = self._wanted
        return path.endswith(".py") or path in wanted.files or bool(wanted.patterns)

    def directories(self) -> set[str]:
        """Return the directories in which something may happen; all of them exist."""
        found = self._code_directories() | {os.path.dirname(path) for path in self._wanted.files}
        for pattern in self._wanted.patterns:
            found.add(_fixed_part(pattern))
            found |= {os.path.dirname(path) for path in glob.iglob(pattern, recursive=True)}
        return {path for path in found if os.path.isdir(path)}

    def _code_directories(self) -> set[str]:
        return {os.path.dirname(path) for path in self._wanted.modules}

    def _found(self) -> dict[str, Mark]:
        """Return how the files are now, as far as they exist."""
        found = {}
        for path in self._paths():
            with contextlib.suppress(OSError):
                facts = os.stat(path)
                found[path] = Mark(
                    facts.st_ctime_ns, facts.st_mtime_ns, facts.st_size, facts.st_ino
                )
        return found

    def _paths(self) -> Iterator[str]:
        yield from self._wanted.modules
        yield from self._wanted.files
        for pattern in self._wanted.patterns:
            yield from filter(os.path.isfile, glob.iglob(pattern, recursive=True))
        for directory in self._code_directories():
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "__pycache__")):
                        continue  # such as the lock of an editor, .#sums.py
                    if entry.name.endswith(".py"):
                        yield entry.path
                    elif entry.is_dir():
                        yield os.path.join(entry.path, "__init__.py")


def remove_compiled(paths: Iterable[str]) -> None:
    """Remove the compiled files of modules that have changed.

    Python takes such a file for that of the present source if that has the same length, and a time of change
    in the same second: an edit right after a load would not be seen.
    """
    for path in paths:
        if path.endswith(".py"):
            with contextlib.suppress(OSError, NotImplementedError):
                os.unlink(importlib.util.cache_from_source(path))


def _absolute(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(os.path.abspath(path) for path in paths)


def _fixed_part(pattern: str) -> str:
    """Return the directory below which everything is that a pattern means."""
    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
    return pattern if os.path.isdir(pattern) else os.path.dirname(pattern)
