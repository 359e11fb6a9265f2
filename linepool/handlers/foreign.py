"""Classes that convert their own values: pydantic models and msgspec Structs. Pure: no I/O, no clock.

Neither library is imported: a class of one has imported it.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from linepool.handlers.composed import Convert, Make
from linepool.handlers.mistakes import Found, Mistakes, given

_PLACE = r"^(.*?)(?: - at `(?:key in )?\$([^`]*)`)?$"
_KIND = r"^Expected `(.*)`, got `(.*)`$"
_FIELD = r"^Object (missing required|contains unknown) field `(.*)`$"


def foreign(kind: Any, make: Make) -> Convert | None:
    """Return the conversion of JSON values to a class of another library, or None for any other class.

    Args:
        kind: The class.
        make: From a type to its conversion, for those that msgspec does not know.

    Raises:
        TypeError: The library cannot convert to the class.
    """
    if not isinstance(kind, type):
        return None
    if hasattr(kind, "__pydantic_validator__"):
        return _pydantic(kind)
    return _msgspec(kind, make) if hasattr(kind, "__struct_fields__") else None


def _pydantic(kind: Any) -> Convert:
    if hasattr(kind, "model_rebuild"):
        kind.model_rebuild()  # now, if it refers to classes that were defined later

    def convert(value: Any) -> Any:
        try:
            return kind.__pydantic_validator__.validate_python(value)
        except ValueError as error:
            if not hasattr(error, "errors"):
                raise
            raise Mistakes([_of_pydantic(one) for one in error.errors(include_url=False)]) from None

    return convert


def _of_pydantic(error: Any) -> tuple[str, str]:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    text = " ".join(error["msg"].split())
    if error["type"] == "missing":
        return path, "is missing"
    if error["type"] == "extra_forbidden":
        return path, "is unknown"
    if text.startswith("Input should be "):
        expected = text.removeprefix("Input should be ")
        return path, f"must be {expected}, not {given(error['input'])}"
    return path, f"is not valid: {text}"


def _msgspec(kind: Any, make: Make) -> Convert:
    msgspec = sys.modules["msgspec"]
    known: dict[Any, Convert] = {}

    def other(hint: Any, value: Any) -> Any:
        if hint not in known:
            known[hint] = make(hint)
        return known[hint](value)

    msgspec.json.Decoder(kind, dec_hook=other)  # raises TypeError if the types of the fields clash

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, kind, dec_hook=other)
        except msgspec.ValidationError as error:
            raise Mistakes(_of_msgspec(error)) from None

    return convert


def _of_msgspec(error: Exception) -> Found:
    match = re.match(_PLACE, str(error), re.DOTALL)
    text, path = (match[1], match[2] or "") if match else (str(error), "")
    if (inner := error.__cause__) is not None and isinstance(inner, Mistakes):
        return [(path + rest, what) for rest, what in inner.found]
    if field := re.match(_FIELD, text, re.DOTALL):
        what = "is missing" if field[1] == "missing required" else "is unknown"
        return [(f"{path}.{field[2]}", what)]
    if kinds := re.match(_KIND, text, re.DOTALL):
        return [(path, f"must be {kinds[1]}, not {kinds[2]}")]
    return [(path, f"is not valid: {text}")]
