"""From a handler's signature to the conversion of its arguments. Pure: no I/O, no clock.

Everything that can be known from the signature is worked out once, when the app is frozen before
the first fork: which words become which parameters, by which converter, and the usage text. What is
left for a request is to call the converters.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from attrs import define, frozen

from linepool.errors import ClientError, SetupError
from linepool.protocols.base import Request, printable
from linepool.session import Body, Range, Rest

_NOT_BYTES = "is a data block, so it must be bytes"
Convert = Callable[[bytes], Any]
Supply = Callable[[Request, Any], object]
"""Gives a parameter its value from the request and the conversation that it belongs to."""


@frozen
class Word:
    """One parameter that a word of the line becomes.

    Attributes:
        name: The parameter's name.
        convert: From the word's bytes to the value; raises ValueError for a wrong one, with a text
            that goes behind "<name> must be ".
        hint: What the usage text shows behind the name: ``int``, ``red|green``.
        default: The value when the word is left out; ``inspect.Parameter.empty``: it is required.
    """

    name: str
    convert: Convert
    hint: str
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Whether the word may not be left out."""
        return self.default is inspect.Parameter.empty

    @property
    def usage(self) -> str:
        """How the usage text shows it."""
        shown = f"{self.name}:{self.hint}" if self.hint else self.name
        return shown if self.required else f"[{shown}]"


@define(slots=False)
class Signature:
    """A handler's parameters, compiled; ``bind`` turns a request into arguments.

    Attributes:
        words: Parameters that take one word each, in order.
        many: The parameter that takes all further words (``*args``).
        options: Keyword-only parameters, by upper-case name; a ``bool`` one is a flag without value.
        rest: The parameter that takes the rest of the line.
        body: The parameter that takes the data block.
        size_word: Which word announces the data block's size.
        supplied: Parameters handed in by annotation.
        order: Names of all parameters that are passed by position.
    """

    words: list[Word]
    many: Word | None
    options: dict[bytes, Word]
    rest: Word | None
    body: str | None
    size_word: int | None
    supplied: dict[str, Supply]
    order: list[str]

    def __attrs_post_init__(self) -> None:
        self.required = sum(word.required for word in self.words)
        self._converters = [word.convert for word in self.words]
        self._words_only = self.required == len(self.words) == len(self.order) and not (
            self.many or self.options or self.rest or self.body or self.supplied
        )

    @property
    def rest_after(self) -> int | None:
        """How many words stand before the rest of the line, or None."""
        return len(self.words) if self.rest else None

    @property
    def usage(self) -> str:
        """What stands behind the command in its usage text."""
        parts = [word.usage for word in self.words]
        if self.many:
            parts.append(f"[{self.many.name}:{self.many.hint} ...]")
        for name, word in self.options.items():
            shown = name.decode()
            parts.append(f"[{shown}]" if _is_flag(word) else f"[{shown} {word.name}:{word.hint}]")
        if self.rest:
            parts.append(f"{self.rest.name}..." if self.rest.required else f"[{self.rest.name}...]")
        if self.size_word is not None:
            parts.append(f"(then {self.words[self.size_word].name} bytes of {self.body})")
        return " ".join(parts)

    def bind(self, request: Request, conversation: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments for the handler.

        Raises:
            ClientError: A word is missing, too many, or of the wrong kind; the text says which.
        """
        words = request.words
        if self._words_only and len(words) == self.required:
            try:
                return [
                    convert(word) for convert, word in zip(self._converters, words, strict=True)
                ], {}
            except ValueError:
                pass  # the slow way finds out which word it was
        values: dict[str, Any] = {}
        taken = self._take_words(words, values)
        many: list[Any] = []
        if self.rest is not None:
            self._take_rest(words, taken, values)
        elif self.many is not None:
            many = [_converted(self.many, word) for word in words[taken:]]
        else:
            self._take_options(words, taken, values)
        if self.body is not None:
            values[self.body] = request.body
        for name, supply in self.supplied.items():
            values[name] = supply(request, conversation)
        return [values.pop(name) for name in self.order] + many, values

    def _take_words(self, words: list[bytes], values: dict[str, Any]) -> int:
        """Convert the words that stand at fixed places; return how many were there."""
        taken = 0
        for word in self.words:
            if taken < len(words) and (
                taken < self.required or words[taken].upper() not in self.options
            ):
                values[word.name] = _converted(word, words[taken])
                taken += 1
            elif word.required:
                raise ClientError(f"{word.name} is missing.")
            else:
                values[word.name] = word.default
        return taken

    def _take_rest(self, words: list[bytes], taken: int, values: dict[str, Any]) -> None:
        assert self.rest is not None
        if taken < len(words):
            values[self.rest.name] = _converted(self.rest, words[taken])
        elif self.rest.required:
            raise ClientError(f"{self.rest.name} is missing.")
        else:
            values[self.rest.name] = self.rest.default

    def _take_options(self, words: list[bytes], taken: int, values: dict[str, Any]) -> None:
        for word in self.options.values():
            if not word.required:
                values[word.name] = word.default
        at = taken
        while at < len(words):
            option = self.options.get(words[at].upper())
            if option is None:
                raise ClientError(self._surplus(words, at))
            at += 1
            if _is_flag(option):
                values[option.name] = True
                continue
            if at == len(words):
                raise ClientError(f"{option.name.upper()} needs a value.")
            values[option.name] = _converted(option, words[at])
            at += 1
        for word in self.options.values():
            if word.name not in values:
                raise ClientError(f"{word.name.upper()} is missing.")

    def _surplus(self, words: list[bytes], at: int) -> str:
        if self.options:
            known = ", ".join(name.decode() for name in self.options)
            return f"'{printable(words[at])}' is no option; there is {known}."
        most = len(self.words)
        return f"{len(words)} words are too many; {most or 'none'} can be given."


def _converted(word: Word, data: bytes) -> Any:
    try:
        return word.convert(data)
    except ValueError as error:
        raise ClientError(f"{word.name} must be {error}, not '{printable(data)}'.") from None


def _is_flag(word: Word) -> bool:
    return word.convert is _to_bool and word.default is False


def compile_signature(
    function: Callable[..., Any], supply_for: Callable[[Any, str], Supply | None]
) -> Signature:
    """Return the compiled signature of a handler.

    Args:
        function: The handler.
        supply_for: Given a parameter's annotation and name, says how to hand it in, or None: the
            parameter comes from the line.

    Raises:
        SetupError: The signature cannot be served; the text says why.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - annotations may be any code
        raise SetupError(f"annotation: {error}") from None
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise SetupError(str(error)) from None
    builder = Signature([], None, {}, None, None, None, {}, [])
    body: Body | None = None
    for parameter in parameters:
        hint = hints.get(parameter.name, str)
        supply = supply_for(hint, parameter.name)
        if supply is not None:
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            _check(not variable, parameter, "is handed in once, so no * or **")
            builder.supplied[parameter.name] = supply
        elif isinstance(parameter.default, Body):
            body = parameter.default
            _check(hints.get(parameter.name, bytes) is bytes, parameter, _NOT_BYTES)
            builder.body = parameter.name
        else:
            _add(builder, parameter, hint)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            builder.order.append(parameter.name)
    if body is not None:
        builder.size_word = _size_word(builder, body)
    if builder.options and (builder.many or builder.rest):
        raise SetupError("option words (keyword-only parameters) cannot follow *args or Rest")
    builder.__attrs_post_init__()
    return builder


def _add(builder: Signature, parameter: inspect.Parameter, hint: Any) -> None:
    """Add one parameter that comes from the line."""
    _check(parameter.kind is not parameter.VAR_KEYWORD, parameter, "(**) has no place in a line")
    _check(builder.rest is None, parameter, "stands behind the rest of the line")
    default = parameter.default
    if hint is Rest:
        _check(
            parameter.kind is not parameter.VAR_POSITIONAL, parameter, "is the rest, so no *args"
        )
        builder.rest = Word(parameter.name, _to_rest, "", default)
        _check(builder.many is None, parameter, "cannot follow *args")
        return
    try:
        convert, shown = converter(hint)
    except TypeError as error:
        raise SetupError(f"parameter {parameter.name}: {error}") from None
    if default is parameter.empty and _allows_none(hint):
        default = None
    word = Word(parameter.name, convert, shown, default)
    if parameter.kind is parameter.VAR_POSITIONAL:
        builder.many = word
    elif parameter.kind is parameter.KEYWORD_ONLY:
        builder.options[parameter.name.encode().upper()] = word
    else:
        last_optional = bool(builder.words) and not builder.words[-1].required
        _check(
            not (word.required and last_optional),
            parameter,
            "must have a default, as the one before it",
        )
        builder.words.append(word)


def _check(fine: bool, parameter: inspect.Parameter, text: str) -> None:
    if not fine:
        raise SetupError(f"parameter {parameter.name} {text}")


def _size_word(builder: Signature, body: Body) -> int:
    for index, word in enumerate(builder.words):
        if word.name == body.size and word.required and word.hint.startswith("int"):
            return index
    raise SetupError(f'body("{body.size}") must name a required int parameter of the handler')


# -- converters: from a word's bytes to a value, or ValueError with what the word must be


def _to_str(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        raise ValueError("UTF-8 text") from None


def _to_rest(word: bytes) -> Rest:
    return Rest(_to_str(word))


def _to_bytes(word: bytes) -> bytes:
    return word


def _to_int(word: bytes) -> int:
    try:
        if b"_" not in word:
            return int(word)
    except ValueError:
        pass
    raise ValueError("int")


def _to_float(word: bytes) -> float:
    try:
        if b"_" not in word:
            return float(word)
    except ValueError:
        pass
    raise ValueError("float")


_TRUE = {b"1", b"true", b"yes", b"on"}
_FALSE = {b"0", b"false", b"no", b"off"}


def _to_bool(word: bytes) -> bool:
    lower = word.lower()
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    raise ValueError("bool (true or false)")


_SIMPLE: dict[Any, tuple[Convert, str]] = {
    str: (_to_str, "str"),
    bytes: (_to_bytes, "bytes"),
    int: (_to_int, "int"),
    float: (_to_float, "float"),
    bool: (_to_bool, "bool"),
    Any: (_to_str, "str"),
    object: (_to_str, "str"),
    inspect.Parameter.empty: (_to_str, "str"),
}
# By name, so that the module is imported by the user who writes the annotation, not by us.
_FROM_TEXT = {"decimal.Decimal", "uuid.UUID", "fractions.Fraction"}
_PATHS = {"Path", "PurePath", "PosixPath", "PurePosixPath"}


def converter(hint: Any) -> tuple[Convert, str]:
    """Return the converter for an annotation, and how the usage text names it.

    Raises:
        TypeError: There is no conversion from a word to such a type.
    """
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin = get_origin(hint)
    if origin is Annotated:
        return _annotated(*get_args(hint))
    if origin is Literal:
        return _choice({_shown_literal(value): value for value in get_args(hint)})
    if origin in (Union, types.UnionType):
        return _union([arm for arm in get_args(hint) if arm is not type(None)])
    if isinstance(hint, type):
        if issubclass(hint, Enum):
            names = {member.name: member for member in hint}
            return _choice({**{str(member.value): member for member in hint}, **names}, names=names)
        if issubclass(hint, date):
            return _iso(hint)
        if f"{hint.__module__}.{hint.__qualname__}" in _FROM_TEXT or (
            hint.__module__.partition(".")[0] == "pathlib" and hint.__name__ in _PATHS
        ):
            return _from_text(hint)
    return _structured(hint)


def _allows_none(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _allows_none(get_args(hint)[0])
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _shown_literal(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _annotated(hint: Any, *notes: Any) -> tuple[Convert, str]:
    convert, shown = converter(hint)
    for bounds in notes:
        if isinstance(bounds, Range):
            if hint in (str, bytes, bool):
                raise TypeError(f"a Range bounds numbers, not {shown}")
            convert, shown = _bounded(convert, shown, bounds), f"{shown}({bounds})"
    return convert, shown


def _bounded(convert: Convert, shown: str, bounds: Range) -> Convert:
    def bounded(word: bytes) -> Any:
        value = convert(word)
        try:
            too_low = bounds.min is not None and not value >= bounds.min
            too_high = bounds.max is not None and not value <= bounds.max
        except ArithmeticError:  # decimal refuses to compare NaN
            too_low = too_high = True
        if too_low or too_high:
            raise ValueError(f"{shown} in {bounds}")
        return value

    return bounded


def _choice(
    values: Mapping[str, Any], names: Mapping[str, Any] | None = None
) -> tuple[Convert, str]:
    table = {name.encode(): value for name, value in values.items()}
    folded = {name.upper(): value for name, value in reversed(table.items())}
    shown = "|".join(names or values)

    def choose(word: bytes) -> Any:
        if word in table:
            return table[word]
        try:
            return folded[word.upper()]
        except KeyError:
            raise ValueError(shown.replace("|", " or ")) from None

    return choose, shown


def _union(arms: list[Any]) -> tuple[Convert, str]:
    converters = [converter(arm) for arm in arms]
    if len(converters) == 1:
        return converters[0]
    shown = "|".join(name for _, name in converters)

    def first_that_fits(word: bytes) -> Any:
        for convert, _ in converters:
            try:
                return convert(word)
            except ValueError:
                continue
        raise ValueError(shown.replace("|", " or "))

    return first_that_fits, shown


def _iso(kind: type[date]) -> tuple[Convert, str]:
    example = "2026-01-31T12:00:00" if issubclass(kind, datetime) else "2026-01-31"
    shown = kind.__name__

    def from_iso(word: bytes) -> date:
        try:
            return kind.fromisoformat(_to_str(word))
        except ValueError:
            raise ValueError(f"{shown} such as {example}") from None

    return from_iso, shown


def _from_text(kind: type) -> tuple[Convert, str]:
    shown = kind.__name__

    def from_text(word: bytes) -> Any:
        try:
            return kind(_to_str(word))
        except (ValueError, ArithmeticError):  # decimal's own error is an ArithmeticError
            raise ValueError(shown) from None

    return from_text, shown


def _structured(hint: Any) -> tuple[Convert, str]:
    """Return the converter for a type that only cattrs knows: the word is JSON.

    Raises:
        TypeError: cattrs does not know it either, or is not installed.
    """
    name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    try:
        import cattrs  # noqa: PLC0415 - heavy, and wanted by few
        from cattrs.preconf.json import make_converter  # noqa: PLC0415
    except ImportError:
        raise TypeError(
            f"a word cannot become {name}; for such types install cattrs (pip install linepool[cattrs])"
        ) from None
    structurer = make_converter()
    try:
        structure = structurer.get_structure_hook(hint)
    except cattrs.errors.StructureHandlerNotFoundError:
        raise TypeError(f"a word cannot become {name}, and cattrs cannot structure it") from None

    def from_json(word: bytes) -> Any:
        try:
            return structure(json.loads(word), hint)
        except json.JSONDecodeError:
            raise ValueError(f"JSON of {name}") from None
        except Exception as error:  # noqa: BLE001 - cattrs raises what the type's own checks raise
            what = "; ".join(cattrs.transform_error(error, path="value"))
            raise ValueError(f"JSON of {name} ({what})") from None

    return from_json, name
