"""Source text laid out as a formatter leaves it. Pure: no I/O, no clock.

What fits is one line. Otherwise the items of a bracket have a line each and a comma behind the last one,
which formatters keep whatever their line length is, as long as it is ``WIDTH`` or more.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence

from attrs import frozen

WIDTH = 88
_TEXT_WIDTH = 100
_INDENT = 4


@frozen
class Group:
    """Items in brackets.

    Attributes:
        open: The text before them.
        items: The items.
        close: The text behind them.
        join: What is between two of them in one line.
        long_open: The text before them if each has a line, if that is another one.
        long_close: Likewise the text behind them.
        has_comma: Whether a comma follows the last of them if each has a line.
    """

    open: str
    items: Sequence[Code]
    close: str
    join: str = ", "
    long_open: str | None = None
    long_close: str | None = None
    has_comma: bool = True


Code = Sequence[str | Group]
"""Texts and groups, one behind the other."""


def flat(code: Code) -> str:
    """Return code in one line."""
    return "".join(
        part
        if isinstance(part, str)
        else part.open + part.join.join(map(flat, part.items)) + part.close
        for part in code
    )


def laid_out(
    code: Code, depth: int = 0, more: int = 0, *, from_first: bool = False, is_long: bool = False
) -> str:
    """Return code with as few lines as its width allows.

    Args:
        code: The code; the first line is returned without its indentation.
        depth: How deep it is indented, in steps.
        more: Columns that must stay free at its end.
        from_first: Of several groups the first is split, as in a definition; otherwise the last one.
        is_long: A group is split in any case.
    """
    indent = " " * (_INDENT * depth)
    line = flat(code)
    groups = [at for at, part in enumerate(code) if isinstance(part, Group) and part.items]
    fits = len(indent) + len(line) + more <= WIDTH
    if not groups or (fits and not is_long):
        return line
    fitting = [at for at in groups if len(indent) + len(_up_to(code, at)) <= WIDTH]
    at = groups[0] if from_first or not fitting else fitting[-1]
    part = code[at]
    assert isinstance(part, Group)
    # A single item of a subscript can have no comma: split within, or wider lines would hold it in one.
    end = "," if part.has_comma else ""
    items = "".join(
        f"{indent}{' ' * _INDENT}{laid_out(item, depth + 1, len(end), is_long=not end)}{end}\n"
        for item in part.items
    )
    last = part.close if part.long_close is None else part.long_close
    rest = laid_out([last, *code[at + 1 :]], depth, more, from_first=from_first)
    return f"{_up_to(code, at)}\n{items}{indent}{rest}"


def _up_to(code: Code, at: int) -> str:
    """Return code up to where a group is split."""
    part = code[at]
    assert isinstance(part, Group)
    return flat(code[:at]) + (part.open if part.long_open is None else part.long_open)


def text(value: str) -> str:
    """Return a string literal."""
    quote = '"' if value.count('"') <= value.count("'") else "'"
    return quote + "".join(_escaped(one, quote) for one in value) + quote


def data(value: bytes) -> str:
    """Return a literal of bytes."""
    quote = '"' if value.count(b'"') <= value.count(b"'") else "'"
    shown = (_escaped(chr(one), quote) if one < 128 else f"\\x{one:02x}" for one in value)
    return f"b{quote}{''.join(shown)}{quote}"


def _escaped(one: str, quote: str) -> str:
    if one in (quote, "\\"):
        return f"\\{one}"
    return one if one.isprintable() else _control(one)


def _control(one: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(one) or ascii(one)[1:-1]


def docstring(paragraphs: str, depth: int) -> str:
    """Return a docstring, with its indentation and line ending.

    Args:
        paragraphs: Its lines; longer ones are wrapped.
        depth: How deep it is indented, in steps.
    """
    indent = " " * (_INDENT * depth)
    text = inspect.cleandoc(paragraphs.replace("\r\n", "\n"))
    lines = [_readable(line.rstrip()) for line in text.split("\n")]
    wrapped = list(_wrapped(lines, _TEXT_WIDTH - len(indent) - len('""""""')))
    if not any(wrapped):
        return ""
    if wrapped[0].startswith('"'):
        wrapped[0] = " " + wrapped[0]
    if len(wrapped) == 1:
        gap = " " if wrapped[0].endswith('"') else ""
        return f'{indent}"""{wrapped[0]}{gap}"""\n'
    body = "".join(f"{indent}{line}".rstrip() + "\n" for line in [*wrapped[1:], '"""'])
    return f'{indent}"""{wrapped[0]}\n{body}'


def _readable(line: str) -> str:
    shown = "".join(
        "\\\\" if one == "\\" else one if one.isprintable() else _control(one)
        for one in line.encode(
            errors="backslashreplace"
        ).decode()  # a class cannot have half characters
    )
    return shown.replace('"""', '\\"\\"\\"')


def _wrapped(lines: Iterable[str], width: int) -> Iterable[str]:
    for line in lines:
        if len(line) <= width:
            yield line
            continue
        begin = line[: len(line) - len(line.lstrip())]
        yield from textwrap.wrap(
            line.strip(),
            width,
            initial_indent=begin,
            subsequent_indent=begin,
            break_long_words=False,
            break_on_hyphens=False,
        )
