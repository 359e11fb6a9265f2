"""The parameters of a function, whether or not its annotations can be evaluated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature


def signature_of(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function, as ``inspect.signature`` does.

    An annotation may name what is imported for type checkers only. From Python 3.14 on, annotations are
    evaluated when they are asked for; such names stay unresolved here.

    Raises:
        ValueError: It is a builtin function without one.
        TypeError: It cannot be called.
    """
    import inspect  # noqa: PLC0415 - takes long to import

    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415

        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)
