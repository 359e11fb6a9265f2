"""What a schema says in words. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LENGTHS = {"Length": "character", "Items": "item", "Properties": "key"}
_BOUNDS = {
    "minimum": ">= ",
    "exclusiveMinimum": "> ",
    "maximum": "<= ",
    "exclusiveMaximum": "< ",
    "multipleOf": "a multiple of ",
    "pattern": "matches ",
}


def said_of(schema: Any) -> str:
    """Return what a schema says beside its type: a description, constraints; "": nothing."""
    if not isinstance(schema, Mapping):
        return ""
    parts = [one.strip().rstrip(".") for one in _parts(schema) if one.strip()]
    found = ". ".join(dict.fromkeys(parts))
    return f"{' '.join(found.split())}." if found else ""


def _parts(schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(text := schema.get("description"), str):
        yield text
    if schema.get("writeOnly"):
        yield "Secret: it is kept out of logs"
    arms = [schema, *(one for one in schema.get("anyOf", ()) if isinstance(one, Mapping))]
    for arm in arms:
        if bounds := ", ".join(_bounds(arm)):
            yield bounds[0].upper() + bounds[1:]


def _bounds(schema: Mapping[str, Any]) -> Iterator[str]:
    for keyword, words in _BOUNDS.items():
        if keyword in schema:
            yield f"{words}{schema[keyword]}"
    if "prefixItems" in schema:
        return
    for suffix, noun in _LENGTHS.items():
        for keyword, words in ((f"min{suffix}", "at least"), (f"max{suffix}", "at most")):
            if (count := schema.get(keyword)) is not None:
                yield f"{words} {count} {noun}{'' if count == 1 else 's'}"


def with_section(text: str, heading: str, said: Mapping[str, str]) -> str:
    """Return a docstring's text with a section for what is said of each name; none if nothing is."""
    lines = [f"    {name}: {one}" for name, one in said.items() if one]
    if not lines or f"{heading}:" in text:
        return text
    return "\n".join([text, "", f"{heading}:", *lines])
