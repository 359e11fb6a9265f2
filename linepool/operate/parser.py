"""The command line's parser: an error is one line, which says what would be right.

Light: the commands that ask a running server import it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from linepool.near import nearest

EXIT_FAILURE = 1
EXIT_USAGE = 2

_NUMBER = re.compile(r"-\d")


class _Formatter(argparse.HelpFormatter):
    """Wraps a text of one line; the lines of others, such as examples, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(indent + line for line in text.splitlines(keepends=True))


class Parser(argparse.ArgumentParser):
    """A parser that reports an error on one line; an unknown option is reported before all else.

    Args:
        leaves_others: Unknown options are for another program, so they are not errors.
        options: Arguments of ``argparse.ArgumentParser``.
    """

    def __init__(self, *, leaves_others: bool = False, **options: Any) -> None:
        self._words: Sequence[str] = ()
        self._leaves_others = leaves_others
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the options, and the words that are none."""
        if args is not None:
            self._words = args
        return super().parse_known_args(args, namespace)

    def format_usage(self) -> str:
        """Return how the command is used, without its many options."""
        return f"usage: {self._short_usage()}\n"

    def format_help(self) -> str:
        """Return the help; a usage of several lines is replaced by a short one."""
        given, self.usage = self.usage, self._short_usage().replace("%", "%%")
        try:
            return super().format_help()
        finally:
            self.usage = given

    def error(self, message: str) -> NoReturn:
        """Print one line and exit."""
        unknown = [word for word in self._options_in_words() if not self._is_known(word)]
        if unknown and not self._leaves_others:
            message = self._unknown(unknown[0])
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def refuse(self, surplus: Sequence[str]) -> NoReturn:
        """Print what is wrong with words that are no options of this parser, and exit."""
        self.error(self._unknown(next(filter(self.is_option, surplus), surplus[0])))

    def _short_usage(self) -> str:
        if self.usage is not None:
            return self.usage
        names = [str(a.metavar or a.dest) for a in self._get_positional_actions()]
        return " ".join([self.prog, "[OPTIONS]", *names])

    def _options_in_words(self) -> list[str]:
        words = list(self._words)
        return list(filter(self.is_option, words[: words.index("--")] if "--" in words else words))

    @staticmethod
    def is_option(word: str) -> bool:
        """Whether a word of the command line has the form of an option."""
        return len(word) > 1 and word[0] == "-" and not _NUMBER.match(word) and " " not in word

    def _is_known(self, word: str) -> bool:
        known = self._option_string_actions
        return word.partition("=")[0] in known or (word[1] != "-" and word[:2] in known)

    def _unknown(self, word: str) -> str:
        from linepool.operate.elsewhere import option_here  # noqa: PLC0415 - only for an error

        name, known = word.partition("=")[0], self._option_string_actions
        if answer := option_here(name, known):
            return f"unknown argument {word}; {answer}"
        return f"unknown argument {word}{hint(word, known)}"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; for an unknown one, exit with the nearest known option in the message."""
    options, surplus = parser.parse_known_args(arguments)
    targets = getattr(options, "target", None)
    if isinstance(targets, list) and not any(map(Parser.is_option, surplus)):
        targets += surplus  # argparse leaves what stands behind an option
        surplus = []
    if surplus:
        subparser = getattr(options, "parser", parser)
        assert isinstance(subparser, Parser)
        subparser.refuse(surplus)
    return options


def hint(option: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return a question that names the known option nearest to another one; "": none is near."""
    near = nearest(option.partition("=")[0], known, cutoff)
    return f"; did you mean {near}?" if near else ""
