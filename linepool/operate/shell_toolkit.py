"""The prompt of ``linepool shell`` by prompt_toolkit, an extra: a menu of words, and usage below."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from linepool.operate.shell_words import Commands, common, last_line, last_word


class _Words(Completer):
    def __init__(self, commands: Callable[[], Commands]) -> None:
        self._commands = commands

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        del complete_event
        line = last_line(document.text_before_cursor)
        for one in self._commands().candidates(line):
            yield Completion(one.word, -len(last_word(line)), display_meta=one.about)


class _Typed(History):
    """The lines of the shell, which keeps them itself: not all that are typed."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    async def load(self) -> AsyncGenerator[str, None]:
        for line in reversed(self._lines):
            yield line

    def get_strings(self) -> list[str]:
        return self._lines

    def append_string(self, string: str) -> None:
        del string

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._lines)

    def store_string(self, string: str) -> None:
        del string


def prompt(shown: str, commands: Callable[[], Commands], lines: list[str]) -> Callable[[], str]:
    """Return what asks for lines; arguments as of ``shell_prompt.prompt_of``."""
    keys = KeyBindings()

    @keys.add("tab")
    def complete(event: KeyPressEvent) -> None:
        """Complete at once what is unique: the menu, which opens as one types, may not be there yet."""
        buffer = event.current_buffer
        line = last_line(buffer.document.text_before_cursor)
        typed, whole = last_word(line), common(commands().candidates(line))
        if len(whole) > len(typed):
            buffer.delete_before_cursor(len(typed))
            buffer.insert_text(whole)
        elif buffer.complete_state:
            buffer.complete_next()
        else:
            buffer.start_completion()

    session: PromptSession[str] = PromptSession(
        completer=_Words(commands),
        history=_Typed(lines),
        key_bindings=keys,
        bottom_toolbar=lambda: commands().about(last_line(session.default_buffer.text)) or None,
    )
    # A terminal that does not say where its cursor is has no line of usage, which needs no warning.
    session.app.renderer.cpr_not_supported_callback = lambda: None
    return lambda: session.prompt(shown)
