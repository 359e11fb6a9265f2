"""From a handler's signature to the conversion of its arguments. Pure: no I/O, no clock.

Everything that follows from the signature is computed once, when the app is frozen before the first
fork: which words become which parameters, by which converter, and the usage text. Per request, only
the converters are called.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from attrs import define, frozen

from linepool.errors import SetupError, UsageError
from linepool.handlers.converters import Convert, Converter
from linepool.handlers.from_words import allows_none, is_rest, word_converter
from linepool.handlers.mistakes import Mistakes, given
from linepool.protocols.base import Parameter, Request, printable
from linepool.session import Body, Secret
from linepool.signatures import signature_of
from linepool.values.words import word_to_bool

_NOT_BYTES = "is a data block, so it must be bytes"
Supply = Callable[[Request, Any], object]
"""Returns the value to inject into a parameter, given the request and its conversation."""


@frozen
class Word:
    """One parameter that takes its value from the request.

    Attributes:
        name: The parameter's name.
        convert: From the word's bytes (or the JSON value) to the argument; raises ValueError for a
            wrong one, with the text that follows "<name> must be ".
        hint: What the usage text shows after the name: ``int``, ``red|green``.
        default: The argument if the word is left out; ``inspect.Parameter.empty``: it is required.
        annotation: The parameter's type.
        is_secret: Its values are not shown.
        from_value: From a JSON value to the argument, where a request of words may hold JSON; it raises
            as ``convert``. None: ``convert`` takes whatever a request holds.
        is_json: ``convert`` takes the text of a JSON value.
    """

    name: str
    convert: Convert
    hint: str
    default: Any = inspect.Parameter.empty
    annotation: Any = str
    is_secret: bool = False
    from_value: Convert | None = None
    is_json: bool = False

    @property
    def required(self) -> bool:
        """Whether the word must be given."""
        return self.default is inspect.Parameter.empty

    @property
    def usage(self) -> str:
        """The word in the usage text."""
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
        size_word: Index of the word that announces the data block's size.
        supplied: Parameters that are injected, each with the function that returns its value.
        order: Names of all parameters that are passed by position.
        returns: The annotation of the handler's return value, or None.
    """

    words: list[Word]
    many: Word | None
    options: dict[bytes, Word]
    rest: Word | None
    body: str | None
    size_word: int | None
    supplied: dict[str, Supply]
    order: list[str]
    returns: Any = None

    def __attrs_post_init__(self) -> None:
        self.count_required()

    def count_required(self) -> None:
        """Count the words that must be given; to be called when ``words`` has changed."""
        self.required = sum(word.required for word in self.words)

    @property
    def has_secrets(self) -> bool:
        """Whether values of a parameter are not to be shown."""
        words = [*self.words, *self.options.values(), *filter(None, [self.many, self.rest])]
        return any(word.is_secret for word in words)

    @property
    def rest_after(self) -> int | None:
        """How many words precede the rest of the line; None: no parameter takes it."""
        return len(self.words) if self.rest else None

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that take their values from the request."""
        found = [_parameter(word, "word") for word in self.words]
        if self.many:
            found.append(_parameter(self.many, "many"))
        found += [
            _parameter(word, "flag" if _is_flag(word) else "option")
            for word in self.options.values()
        ]
        if self.rest:
            found.append(_parameter(self.rest, "json" if self.rest.is_json else "rest"))
        if self.body:
            found.append(Parameter(self.body, "body", bytes, "bytes", required=True))
        return found

    @property
    def usage(self) -> str:
        """The usage text without the command's name."""
        parts = [word.usage for word in self.words]
        if self.many:
            parts.append(f"[{self.many.name}:{self.many.hint} ...]")
        for name, word in self.options.items():
            shown = name.decode()
            parts.append(f"[{shown}]" if _is_flag(word) else f"[{shown} {word.name}:{word.hint}]")
        if self.rest:
            shown = f"{self.rest.name}:{self.rest.hint}".rstrip(":")
            parts.append(f"{shown}..." if self.rest.required else f"[{shown}...]")
        if self.size_word is not None:
            parts.append(f"(then {self.words[self.size_word].name} bytes of {self.body})")
        return " ".join(parts)

    def bind(self, request: Request, conversation: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and the keyword arguments for the handler.

        Raises:
            UsageError: A word is missing, surplus or of the wrong type; the message says which.
        """
        if request.values is not None:
            return self._bind_values(request.values, request, conversation)
        words = request.words
        values: dict[str, Any] = {}
        taken = self._take_words(words, values)
        many: list[Any] = []
        if self.rest is not None:
            self._take_rest(words, taken, values)
        elif self.many is not None:
            many = [_converted_word(self.many, word) for word in words[taken:]]
        else:
            self._take_options(words, taken, values)
        if self.body is not None:
            values[self.body] = request.body
        for name, supply in self.supplied.items():
            values[name] = supply(request, conversation)
        return [values.pop(name) for name in self.order] + many, values

    def _bind_values(
        self, given: list[Any] | dict[str, Any], request: Request, conversation: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for values that already have types, by position or by name."""
        fixed = [*self.words, self.rest] if self.rest else self.words
        many: list[Any] = []
        if isinstance(given, list):
            if len(given) > len(fixed) and self.many is None:
                raise _too_many(len(given), len(fixed))
            named = {word.name: value for word, value in zip(fixed, given, strict=False)}
            many = given[len(fixed) :]
        else:
            named = dict(given)
            if self.many is not None:
                many = named.pop(self.many.name, [])
                if not isinstance(many, list):
                    raise UsageError(f"{self.many.name} must be a list.", "value", self.many.name)
        values: dict[str, Any] = {self.body: request.body} if self.body else {}
        for word in [*fixed, *self.options.values()]:
            if word.name in named:
                values[word.name] = _converted_value(word, named.pop(word.name))
            elif word.required:
                raise _missing(word.name)
            else:
                values[word.name] = word.default
        if named:
            raise UsageError(f"unknown parameter {next(iter(named))!r}.", "surplus")
        for name, supply in self.supplied.items():
            values[name] = supply(request, conversation)
        more = [_converted_value(self.many, value) for value in many] if self.many else []
        return [values.pop(name) for name in self.order] + more, values

    def _take_words(self, words: list[bytes], values: dict[str, Any]) -> int:
        """Convert the words of positional parameters; return how many were given."""
        taken = 0
        for word in self.words:
            if taken < len(words) and (
                taken < self.required or words[taken].upper() not in self.options
            ):
                values[word.name] = _converted_word(word, words[taken])
                taken += 1
            elif word.required:
                raise _missing(word.name)
            else:
                values[word.name] = word.default
        return taken

    def _take_rest(self, words: list[bytes], taken: int, values: dict[str, Any]) -> None:
        assert self.rest is not None
        if len(words) > taken + 1:  # where a protocol does not cut the line
            raise _too_many(len(words), taken + 1)
        if taken < len(words):
            values[self.rest.name] = _converted_word(self.rest, words[taken])
        elif self.rest.required:
            raise _missing(self.rest.name)
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
                raise self._surplus(words, at)
            at += 1
            if _is_flag(option):
                values[option.name] = True
                continue
            if at == len(words):
                raise UsageError(f"{option.name.upper()} needs a value.", "option", option.name)
            values[option.name] = _converted_word(option, words[at])
            at += 1
        for word in self.options.values():
            if word.name not in values:
                raise _missing(word.name.upper())

    def _surplus(self, words: list[bytes], at: int) -> UsageError:
        if self.options:
            known = ", ".join(name.decode() for name in self.options)
            text = f"unknown option '{printable(words[at])}'; the options are {known}."
            return UsageError(text, "option")
        return _too_many(len(words), len(self.words))


def _converted_word(word: Word, data: bytes) -> Any:
    try:
        return word.convert(data)
    except ValueError as error:
        raise _wrong(word, error, f"'{printable(data)}'") from None


def _converted_value(word: Word, value: object) -> Any:
    try:
        return (word.from_value or word.convert)(value)
    except ValueError as error:
        raise _wrong(word, error, given(value)) from None


def _wrong(word: Word, error: ValueError, shown: str) -> UsageError:
    text = f"{word.name} must be {error}, not {shown}"
    if word.is_secret:  # what is wrong within a value may quote it
        kind = f"JSON of {word.hint.removesuffix('(JSON)')}" if word.is_json else word.hint
        text = f"{word.name} must be {kind or 'text'}"
    elif isinstance(error, Mistakes):
        text = error.described(word.name)
    return UsageError(text if text.endswith("...") else f"{text}.", "value", word.name)


def _missing(name: str) -> UsageError:
    return UsageError(f"{name} is missing.", "missing", name)


def _too_many(given: int, most: int) -> UsageError:
    return UsageError(f"too many arguments: {given} given, at most {most}.", "surplus")


def _parameter(word: Word, kind: str) -> Parameter:
    default = None if word.required or word.is_secret or kind == "many" else word.default
    required = word.required and kind != "many"
    return Parameter(word.name, kind, word.annotation, word.hint, required, default, word.is_secret)


def _is_flag(word: Word) -> bool:
    return word.convert is word_to_bool and word.default is False


def compile_signature(
    function: Callable[..., Any],
    supply_for: Callable[[Any, str], Supply | None],
    convert_for: Callable[[Any], Converter] = word_converter,
) -> Signature:
    """Return the compiled signature of a handler.

    Args:
        function: The handler.
        supply_for: From a parameter's annotation and name to the function that returns the value to
            inject, or None: the parameter takes its value from the request.
        convert_for: From an annotation to its converter.

    Raises:
        SetupError: The signature is not supported; the message says why.
    """
    try:
        inspect.unwrap(function)  # get_type_hints would never end with a function that wraps itself
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - annotations may be any code
        raise SetupError(f"annotation: {error}") from None
    try:
        parameters = signature_of(function).parameters.values()
    except (ValueError, TypeError) as error:
        raise SetupError(str(error)) from None
    builder = Signature([], None, {}, None, None, None, {}, [])
    body: Body | None = None
    for parameter in parameters:
        hint = hints.get(parameter.name, str)
        supply = supply_for(hint, parameter.name)
        if supply is not None:
            variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            _require(not variable, parameter, "is injected, so it cannot be *args or **kwargs")
            builder.supplied[parameter.name] = supply
        elif isinstance(parameter.default, Body):
            body = parameter.default
            _require(hints.get(parameter.name, bytes) is bytes, parameter, _NOT_BYTES)
            builder.body = parameter.name
        else:
            _add(builder, parameter, hint, convert_for)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            builder.order.append(parameter.name)
    builder.returns = hints.get("return")
    if body is not None and body.size:
        builder.size_word = _size_word(builder, body)
    if builder.options and (builder.many or builder.rest):
        raise SetupError("option words (keyword-only parameters) cannot follow *args or Rest")
    builder.count_required()
    return builder


def _add(
    builder: Signature,
    parameter: inspect.Parameter,
    hint: Any,
    convert_for: Callable[[Any], Converter],
) -> None:
    """Add one parameter that takes its value from the request."""
    if parameter.kind is parameter.VAR_KEYWORD:
        raise SetupError(f"parameter {parameter.name}: **kwargs are not supported")
    _require(builder.rest is None, parameter, "cannot follow the rest of the line")
    default = parameter.default
    try:
        convert, shown = convert_for(hint)
    except TypeError as error:
        raise SetupError(f"parameter {parameter.name}: {error}") from None
    if default is parameter.empty and allows_none(hint):
        default = None
    if is_rest(hint):
        one = parameter.kind is not parameter.VAR_POSITIONAL
        _require(one, parameter, "is the rest of the line, so it cannot be *args")
        builder.rest = Word(parameter.name, convert, "", default, hint, _is_secret(hint))
        _require(builder.many is None, parameter, "cannot follow *args")
        return
    word = Word(parameter.name, convert, shown, default, hint, _is_secret(hint))
    if parameter.kind is parameter.VAR_POSITIONAL:
        builder.many = word
    elif parameter.kind is parameter.KEYWORD_ONLY:
        builder.options[parameter.name.encode().upper()] = word
    else:
        last_optional = bool(builder.words) and not builder.words[-1].required
        _require(
            not (word.required and last_optional),
            parameter,
            "must have a default, because the one before it has one",
        )
        builder.words.append(word)


def _is_secret(hint: Any) -> bool:
    return hint is Secret or any(map(_is_secret, typing.get_args(hint)))


def _require(met: bool, parameter: inspect.Parameter, text: str) -> None:
    if not met:
        raise SetupError(f"parameter {parameter.name} {text}")


def _size_word(builder: Signature, body: Body) -> int:
    for index, word in enumerate(builder.words):
        if word.name == body.size and word.required and word.hint.startswith("int"):
            return index
    raise SetupError(f'body("{body.size}") must name a required int parameter of the handler')
