"""The fast path from a request's words to its handler. Pure: no I/O, no clock.

``Signature.bind`` handles everything a signature allows, and explains what is wrong. Most requests
have exactly the words that the signature requires, and no option words. For these, ``compile_call``
generates a function when the app is frozen, with no decision left to make per request: it takes 0.25
microseconds where ``bind`` and the call take 1.1 (two numbers as words, CPython 3.11).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from linepool.handlers.from_words import AS_SOURCE
from linepool.handlers.signature import Signature, Word
from linepool.signatures import signature_of

Run = Callable[..., Any]
"""From the request and its conversation to what the handler returns."""

CALL_FILE = "<linepool call"
"""Prefix of the file name of generated code; in a stack it separates the handler's frames from ours."""

_SOURCE = """
def call(request, conversation):
    if request.values is not None:
        return fallback(request, conversation)
    try:
        {words} = request.words
{conversions}
    except ValueError:
        pass  # the fallback is called below: its errors have no other one before them
    else:
        return function({arguments})
    return fallback(request, conversation)
"""


def compile_call(function: Callable[..., Any], signature: Signature, fallback: Run) -> Run:
    """Return the fastest function that calls a handler.

    Args:
        function: The handler.
        signature: Its signature.
        fallback: Called if the words are not exactly those that the signature names, or if one of
            them cannot be converted; it raises the error that explains why.
    """
    required = all(word.required for word in signature.words)
    if signature.options and (not required or any(o.required for o in signature.options.values())):
        return fallback  # which words are options is to be found out
    if signature.body and signature.body not in signature.order:
        return fallback
    words = [*signature.words, *([signature.rest] if signature.rest else [])]
    many = [signature.many] if signature.many else []
    names: dict[str, Any] = {"function": function, "fallback": fallback}
    conversions = [line for word in words for line in _conversion(word, names)]
    arguments = [_argument(name, signature, names) for name in signature.order]
    if signature.many:
        names["convert_many"] = signature.many.convert
        conversions.append("many = [convert_many(word) for word in many]")
        arguments.append("*many")
    by_name = [name for name in signature.supplied if name not in signature.order]
    arguments += [f"{name}={_argument(name, signature, names)}" for name in by_name]
    arguments += _defaults(function, signature, names)
    source = _SOURCE.format(
        words="[" + ", ".join([f"w_{word.name}" for word in words] + ["*many"] * len(many)) + "]",
        conversions="\n".join(f"        {line}" for line in conversions),
        arguments=", ".join(arguments),
    )
    exec(compile(source, f"{CALL_FILE} {function.__name__}>", "exec"), names)  # noqa: S102 - generated above
    call: Run = names["call"]
    return call


def _conversion(word: Word, names: dict[str, Any]) -> list[str]:
    """Return the statements that convert a word in place; add the names they use."""
    variable = f"w_{word.name}"
    if (lines := AS_SOURCE.get(word.convert)) is not None:
        return [line.format(variable) for line in lines]
    names[f"convert_{word.name}"] = word.convert
    return [f"{variable} = convert_{word.name}({variable})"]


def _argument(parameter: str, signature: Signature, names: dict[str, Any]) -> str:
    """Return the expression for an argument; add the names it uses."""
    if parameter == signature.body:
        return "request.body"
    if parameter in signature.supplied:
        names[f"supply_{parameter}"] = signature.supplied[parameter]
        return f"supply_{parameter}(request, conversation)"
    return f"w_{parameter}"


def _defaults(
    function: Callable[..., Any], signature: Signature, names: dict[str, Any]
) -> list[str]:
    """Return arguments for the options that have no default in the function itself, ``X | None``."""
    parameters = signature_of(function).parameters
    given = []
    for word in signature.options.values():
        if parameters[word.name].default is inspect.Parameter.empty:
            names[f"default_{word.name}"] = word.default
            given.append(f"{word.name}=default_{word.name}")
    return given
