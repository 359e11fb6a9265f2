"""The names of a module: none is given twice, and none hides another. Pure: no I/O, no clock."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from linepool.stubs.layout import text

_LINEPOOL = "linepool"


class Names:
    """How a module refers to what it imports.

    Args:
        taken: The names that the module's own classes have. What is imported under such a name is written
            with its module's name.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = frozenset(taken)
        self._hidden: frozenset[str] = frozenset()
        self._modules: dict[str, str] = {}  # by the name that is used for each
        self._homes: dict[str, str] = {}  # the module of each imported name
        self._quoted: list[str] = []

    def of(self, module: str, name: str) -> str:
        """Return the expression for a name of a module; ``builtins`` has those without an import."""
        if name in self._taken or name in self._hidden:
            alias = "_" + module.replace(".", "_")
            self._modules[alias] = module
            return f"{alias}.{name}"
        if module != "builtins":
            self._homes[name] = module
        return name

    @contextmanager
    def within(self, members: Iterable[str]) -> Iterator[None]:
        """Take further names for the code of a class: those of its fields and methods."""
        self._hidden = frozenset(members)
        try:
            yield
        finally:
            self._hidden = frozenset()

    def quoted(self, code: str) -> str:
        """Return an expression as a literal, which type checkers and ``get_type_hints`` read."""
        self._quoted.append(code)
        return text(code)

    def imports(self, body: str) -> str:
        """Return the import statements for a module's code: of what it uses, in the usual order."""
        used = {name for code in (body, *self._quoted) for name in _used(ast.parse(code))}
        lines: dict[bool, list[str]] = {False: [], True: []}
        for alias, module in sorted(self._modules.items(), key=lambda item: item[1]):
            if alias in used:
                lines[_is_own(module)].append(f"import {module} as {alias}\n")
        by_module: dict[str, list[str]] = {}
        for name, module in self._homes.items():
            if name in used:
                by_module.setdefault(module, []).append(name)
        for module, names in sorted(by_module.items()):
            lines[_is_own(module)].append(_from(module, sorted(names, key=_as_sorted)))
        return "\n".join("".join(lines[own]) for own in (False, True) if lines[own])


def _used(node: ast.AST) -> Iterator[str]:
    """Yield the names that code uses; a method's body has its parameters' names, and imports nothing."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, ast.AST):
                yield from _used(one)


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == _LINEPOOL


def _as_sorted(name: str) -> tuple[int, str]:
    """Return the key by which import sorters order names: constants, classes, others."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


def _from(module: str, names: list[str]) -> str:
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= 89:
        return line
    return f"from {module} import (\n{''.join(f'    {name},{chr(10)}' for name in names)})\n"


def is_name(text: str) -> bool:
    """Whether a text can be a name in code."""
    return text.isidentifier() and not keyword.iskeyword(text)


def method_name(command: str, taken: Iterable[str]) -> str:
    """Return the name of a method for a command.

    Args:
        command: The command's name; one without small letters is written in small ones.
        taken: The names that a method cannot have.
    """
    plain = command if re.search("[a-z]", command) else command.lower()
    return free(_word(plain, "command"), taken)


def constant_name(method: str, taken: Iterable[str]) -> str:
    """Return the name of the constant that has the command of a method."""
    return free(f"_{method.upper()}", taken)


def class_name(app: str) -> str:
    """Return the name of a class for an app: ``payment-service`` is ``PaymentService``."""
    words = re.findall(r"[^\W_]+", app)
    return _word("".join(word[0].upper() + word[1:] for word in words), "Service")


def free(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken: the name itself, or with ``_`` or a number behind it."""
    taken = frozenset(taken)
    if is_name(name) and name not in taken:
        return name
    candidate, number = f"{name}_", 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _word(text: str, without: str) -> str:
    """Return a text as a name that is not private; ``without``: what to put before or in place of it."""
    word = re.sub(r"\W+", "_", text).strip("_")
    if not word:
        return without
    return word if word.isidentifier() else f"{without}_{word}"


BUILTINS = frozenset(dir(builtins))
