"""Converters of JSON values: to a value of the annotated type. Pure: no I/O, no clock.

For protocols whose arguments already have types. They are strict: a number is not a string, a bool is
not a number.
"""

from __future__ import annotations

import inspect
import types
from typing import Annotated, Any, Union, get_args, get_origin

from linepool.handlers.converters import Converter, bounded_name
from linepool.handlers.structured import DEFAULT, Structures
from linepool.values.annotations import name_of
from linepool.values.constraints import constraints
from linepool.values.scalars import scalar, unchanged


def json_converter(hint: Any, structures: Structures = DEFAULT) -> Converter:
    """Return the converter for an annotation.

    Args:
        hint: The annotation.
        structures: Makes values of types that are not scalars.

    Raises:
        TypeError: A JSON value cannot be converted to that type.
    """
    if hint is inspect.Parameter.empty:
        return unchanged, "any"
    return structures.conversion(hint), usage_name(hint)


def usage_name(hint: Any) -> str:
    """Return the name of a type in usage texts."""
    if hint in (Any, object):
        return "any"
    if (row := scalar(hint)) is not None:
        return row.name
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        return bounded_name(usage_name(inner), constraints(inner, notes))
    if get_origin(hint) in (Union, types.UnionType):
        return "|".join(map(usage_name, get_args(hint)))
    return name_of(hint)
