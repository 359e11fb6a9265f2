"""Texts in the source of linepool: what its calls are given, found without running them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from site_pages import ROOT

PACKAGE = ROOT / "linepool"


@frozen
class Called:
    """A call, and the texts that it is given.

    Attributes:
        name: Of the function.
        texts: Of the arguments, with ``{}`` for each value of an f-string; "": the source does not say.
        call: The call.
        module: Of the source, below ``linepool``.
    """

    name: str
    texts: list[str]
    call: ast.Call
    module: str


@functools.cache
def calls(path: Path) -> tuple[Called, ...]:
    """Return all calls of a file that are given an argument."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    return tuple(_calls(tree, module, _texts(tree.body)))


def _calls(node: ast.AST, module: str, known: Mapping[str, str]) -> Iterator[Called]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = {**known, **_texts(list(ast.walk(child)))}
            yield from _calls(child, module, inside)
            continue
        if isinstance(child, ast.Call) and child.args:
            called = child.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            texts = [_text(one, known) for one in child.args]
            yield Called(name, texts, child, module)
        yield from _calls(child, module, known)


def _texts(nodes: list[ast.stmt] | list[ast.AST]) -> dict[str, str]:
    """Return the texts that are assigned to names."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _text(node.value, found)
    return found


def _text(node: ast.expr, known: Mapping[str, str]) -> str:
    """Return a text as the source has it; "": it is not known."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Constant(value=bytes() as data):
            return data.decode("utf-8", "replace")
        case ast.Name(id=name):
            return known.get(name, "")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, known) + (_text(right, known) or "{}") if _text(left, known) else ""
        case ast.BinOp(left=left, op=ast.Mult()):
            return _text(left, known)
        case ast.JoinedStr(values=values):
            return "".join(_text(one, known) or "{}" for one in values)
        case ast.IfExp(body=body, orelse=orelse):
            return _text(body, known) or _text(orelse, known)
        case _:
            return ""
