r"""Dialogues of commands and coded replies, such as SMTP (RFC 5321) and POP3 (RFC 1939).

Rules:

- The server sends the first line. Each command is a line; each reply is one or more lines with a
  code.
- A handler may name the states of the connection in which its command is allowed (``when=``) and
  the state that follows if it succeeds (``to=``). The state is ``session["state"]``.
- A handler with ``data: bytes = linepool.body()`` takes a block that ends with a line of one dot.
  The protocol checks the command, prompts the client, then reads the block. A dot that begins a
  line is sent twice, and one of the two is removed (RFC 5321, 4.5.2). Line endings in the block are
  CR LF. A block that is too large is read to its end, then refused.
- A handler may ask the client something in the middle of its command (``questions.Ask``). The next
  line is the answer, whatever it says, and the handler is run again with all answers so far. A line
  with ``cancel`` alone ends the command.
- A command or an answer with a CR that is not before LF is refused, because other software would see
  the end of a line there (RFC 5321, 2.3.8). With ``strict_crlf``, only CR LF ends a line; a lone CR or
  LF is refused at the end of its line or block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from linepool.errors import (
    ClientError,
    IncompleteError,
    ReplyError,
    ServerError,
    UnknownCommand,
    UsageError,
)
from linepool.protocols.base import SKIPPED, Bad, Builtin, Call, Command, Request
from linepool.protocols.buffered import Buffered
from linepool.protocols.dialogue import replies
from linepool.protocols.dialogue.block import Block, RefusedBlock
from linepool.protocols.dialogue.commands import check_commands, count_error, noop, states_of
from linepool.protocols.dialogue.question import Answered, Question, answers_of
from linepool.protocols.text import dump_with_head, load_with_head, one_line
from linepool.questions import Answers, Ask
from linepool.session import Reply, Secret, Session
from linepool.waiting import Wait

_VERSION = 0x21
_VERSION_ASKED = (
    0x22  # a question is open; code without questions must not take the answer for a command
)
_LINES_AT_ONCE = 1000  # of a block, in one call of next_request
_MAX_LINE_PART_BYTES = 4096  # of a line in a block, kept in the buffer until its end arrives


class Dialogue(Buffered):
    """A protocol of commands and coded replies; see ``Dialogue.smtp`` and ``Dialogue.pop3``.

    A handler's None is ``ok``; a str is ``ok``'s code and that text; ``(250, "text")`` has its own
    code; a list, or ``(250, [...])``, is a reply of several lines. With ``dots``, further lines
    follow the first and end with a dot: ``("2 messages", [...])``; bytes are such lines.

    Args:
        greeting: The first line, such as ``220 ready``.
        ok: The reply to a handler that returns None.
        goodbye: The reply to QUIT.
        start: The state of a new connection.
        strict_crlf: Only CR LF ends a line.
        dots: Replies of several lines end with a dot, as in POP3.
        max_errors: How many errors a client may make; the next one closes the connection.
        cancel: The answer that ends a command which has asked something, as in AUTH (RFC 4954, 4); "": none.
        max_answer_bytes: How long the answers to the questions of one command may be together; their line
            endings count.
        error_replies: Replies that replace the usual ones, by kind: ``usage``, ``unknown``,
            ``state``, ``login`` (it is required), ``password`` (it is wrong), ``client``,
            ``server``, ``line``, ``large``, ``newline``, ``cancel``, ``answer`` (it is not UTF-8)
            ``closing`` (the server ends the connection) and ``errors``. Each is a code, or the whole
            line.
    """

    line_end = b"\r\n"
    public_builtins: ClassVar[frozenset[str]] = frozenset({"NOOP", "QUIT"})
    supplies: ClassVar[Mapping[Any, Any]] = {Answers: answers_of}
    can_wait: ClassVar[bool] = True
    options: ClassVar[Mapping[str, str]] = {
        "when": "the states in which the command is allowed: a word, or several in a tuple",
        "to": "the state that follows",
        "fails_to": "the state that follows if the data block is refused",
        "otherwise": "the reply in other states",
        "prompt": "the line that asks for the data block",
    }

    def __init__(  # noqa: PLR0913 - options
        self,
        *,
        greeting: str = "220 ready",
        ok: str = "250 OK",
        goodbye: str = "221 Bye",
        start: str = "start",
        strict_crlf: bool = False,
        dots: bool = False,
        max_errors: int = 20,
        cancel: str = "*",
        max_answer_bytes: int = 16384,
        error_replies: Mapping[str, str] | None = None,
    ) -> None:
        self.hello = greeting
        self.ok = ok
        self.goodbye = goodbye
        self.first_state = start
        self.strict_crlf = strict_crlf
        self.dots = dots
        self.max_errors = max_errors
        self.cancel = cancel.encode()
        self.max_answer_bytes = max_answer_bytes
        usual = replies.POP3_ERRORS if dots else replies.CODED_ERRORS
        self.error_replies = {**usual, **(error_replies or {})}

    @classmethod
    def smtp(
        cls, greeting: str = "220 ready", *, enhanced_codes: bool = False, **options: Any
    ) -> Self:
        """Return the dialogue of a mail server; only CR LF ends its lines.

        Args:
            greeting: The first line.
            enhanced_codes: The protocol's own replies have enhanced status codes (RFC 2034, RFC 3463).
            **options: Those of the class.
        """
        if enhanced_codes:
            given = options.get("error_replies") or {}
            own = {**replies.ENHANCED_ERRORS, **given}
            options = {**replies.ENHANCED_OPTIONS, **options, "error_replies": own}
        return cls(greeting=greeting, strict_crlf=True, **options)

    @classmethod
    def pop3(cls, greeting: str = "+OK ready", **options: Any) -> Self:
        """Return the dialogue of a mailbox."""
        return cls(greeting=greeting, ok="+OK", goodbye="+OK bye", dots=True, **options)

    def builtins(self) -> Iterable[Builtin]:
        """NOOP and QUIT."""
        return (("NOOP",), noop), (("QUIT",), _quit)

    def locked_error(self, request: Request | None) -> ReplyError:
        """Return the error for a command that needs a log-in."""
        return self._error("login", "authentication required")

    def login_error(self) -> ReplyError:
        """Return the error for a log-in with a wrong password (RFC 4954, 6; RFC 3206, 3)."""
        error = self._error("password", "authentication failed")
        return ClientError(str(error), code="AUTH") if self.dots else error

    def check(self, commands: Iterable[Command]) -> None:
        """Refuse states that no command leads to, and data blocks with an announced size."""
        check_commands(list(commands), self.first_state)

    def greeting(self) -> bytes:
        """Return the first line."""
        return self.hello.encode() + b"\r\n"

    def start(self) -> None:
        """Set up the state of a new connection."""
        super().start()
        self._errors = 0
        self._block: Block | None = None  # that is being read
        self._question: Question | None = None  # whose answer is the next line

    @property
    def at_boundary(self) -> bool:
        """Whether no byte of a further request has arrived."""
        return super().at_boundary and self._block is None and self._question is None

    def next_request(self) -> Request | Bad | None:
        """Return the next complete request, a Bad in its place, or None: more bytes are needed."""
        if self._needed and not self._join_block():
            return None
        if self._block is not None:
            return self._data(self._block)
        question, most = self._question, self.limits.max_line_bytes
        if question is not None:
            most = max(self.max_answer_bytes - question.size - len(self.line_end), -1)
        found = self._line()
        length = len(self._buffer) - self._at - 1 if found is None else len(found)
        if length > most:
            self._forget()  # even if the end of the line has arrived: a cut must not matter
            self._question = None
            return Bad(self._error_reply("line"), close=True)
        if found is None:
            self._await_line(most + 2)
            return None
        self._question = None
        if b"\n" in found or b"\r" in found:  # another program might see another line there
            return self._refused_line("newline")
        if b"\0" in found:
            return self._refused_line("unknown" if question is None else "answer")
        if question is not None:
            return self._answered(question, found)
        words = found.split()
        if words:
            return self._request(found, words)
        return self._refused_line("unknown") if self.strict_crlf else SKIPPED

    def take_back(self, request: Request) -> None:
        """Put a command in front of what has arrived: its line, the end of its block, or its last answer."""
        words = [request.verb, *request.words]
        if isinstance(request, Answered) and request.answers:
            *before, last = request.answers
            self.put_back(last.reveal().encode() + b"\r\n")
            self._question = Question(words, before)
        elif request.body is None:
            self.put_back(request.line + b"\r\n")
        else:
            self.put_back(b".\r\n")
            self._block = Block(words, [request.body], len(request.body))

    def eof(self) -> Bad | None:
        """Return None: a client that leaves inside a request gets no error."""
        return None

    def dump(self) -> bytes:
        """Return all state: the bytes that have arrived, an incomplete block, and an open question."""
        state: dict[str, object] = {"errors": self._errors}
        body, version = b"", _VERSION
        if self._block is not None:
            state |= self._block.facts()
            body = self._block.data
        if self._question is not None:
            state |= self._question.facts()
            version = _VERSION_ASKED
        return dump_with_head(version, state, body, self._unread())

    def load(self, blob: bytes) -> None:
        """Take over the state of a ``dump``."""
        version = _VERSION_ASKED if blob[:1] == bytes([_VERSION_ASKED]) else _VERSION
        state, rest = load_with_head(blob, version, "a dialogue")
        self.start()
        body_size = state.get("body", 0)
        self._buffer = rest[body_size:]
        self._errors = state.get("errors", 0)
        if "block" in state:
            self._block = Block.of(state, rest[:body_size])
        if version == _VERSION_ASKED:
            self._question = Question.of(state)

    def around(self, request: Request, session: Session, call: Call) -> Any:
        """Answer a command if the state allows it, and enter the state that follows."""
        command = request.command
        if self.is_locked and (command is None or not command.is_public):
            return self._counted(self.locked_error(request))
        if command is not None and type(request) is Request and request.body is None:
            refusal = self._state_refusal(command, session)
            if refusal is None and command.body is not None:
                refusal = count_error(request)
                if refusal is None:
                    self._block = Block([request.verb, *request.words])
                    return Reply(raw=replies.line(command.options.get("prompt", "354 Go ahead")))
            if refusal is not None:
                return self._counted(refusal)
        value = request.error if isinstance(request, RefusedBlock) else call(request)
        if isinstance(value, ReplyError):
            is_block = request.body is not None or isinstance(request, RefusedBlock)
            if command is not None and is_block and "fails_to" in command.options:
                session["state"] = command.options["fails_to"]
            return self._counted(value)
        if isinstance(value, Ask | Wait):
            return self._asked(request, value) if isinstance(value, Ask) else value
        if command is not None and "to" in command.options:
            session["state"] = command.options["to"]
        return value

    def encode(self, value: object, request: Request) -> bytes:
        """Return the reply, one line or several."""
        if value is None:
            return replies.line(self.ok)
        code = self.ok.partition(" ")[0]
        if isinstance(value, tuple) and len(value) == 2:
            first, value = value
            if self.dots:
                return replies.line(f"{code} {replies.text(first)}") + replies.dotted(value)
            if not replies.is_code(first):
                raise ValueError(f"a reply's code must be three digits, such as 250, not {first!r}")
            code = replies.text(first)
        if not self.dots:
            rows = value if isinstance(value, (list, tuple)) else [value]
            return replies.coded(code, [] if value is None else rows)
        if isinstance(value, str):
            return replies.line(f"{code} {value}")
        return replies.line(self.ok) + replies.dotted(value)

    def encode_stream(self, items: Iterator[object], request: Request) -> Iterator[bytes]:
        """Yield the reply of a generator handler; with ``dots``, each line as the handler yields it."""
        if not self.dots:
            yield self.encode(list(items), request)
            return
        yield replies.line(self.ok)
        for item in items:
            yield replies.stuffed(item)
        yield b".\r\n"

    def encode_error(self, error: ReplyError, request: Request | None) -> bytes:
        """Return the error reply."""
        text = str(error)
        if isinstance(error, UnknownCommand):
            return self._error_reply("unknown")
        if isinstance(error, IncompleteError) or (
            request is None and isinstance(error, ServerError)
        ):
            kind = "closing"
        elif isinstance(error, UsageError):
            kind = "usage"
        else:
            kind = "server" if isinstance(error, ServerError) else "client"
        code = self.error_replies[kind]
        if error.code is not None and self.dots:
            code = f"{code} [{error.code}]"
        elif replies.is_code(error.code):
            code = replies.text(error.code)
        return one_line(f"{code} {text}") + b"\r\n"

    def _error(self, kind: str, text: str) -> ClientError:
        """Return the error of a kind; ``text`` is for one that has only a code."""
        code, _, shown = self.error_replies[kind].partition(" ")
        return ClientError(shown or text, code=None if self.dots else code)

    def _error_reply(self, kind: str) -> bytes:
        text = self.error_replies[kind]
        return replies.line(text if " " in text else f"{text} Command not recognized")

    def _refused_line(self, kind: str) -> Bad:
        """Refuse a line, and count the error."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Bad(self._error_reply("errors"), close=True)
        return Bad(self._error_reply(kind), close=False)

    def _counted(self, refusal: Reply | ReplyError) -> Reply | ReplyError:
        """Count the error of a command; return its reply, or the one that closes the connection."""
        self._errors += 1
        if self._errors > self.max_errors:
            return Reply(raw=self._error_reply("errors"), close=True)
        return refusal

    def _state_refusal(self, command: Command, session: Session) -> Reply | ReplyError | None:
        """Return the reply to a command that the state does not allow, or None."""
        states = states_of(command)
        if not states or session.get("state", self.first_state) in states:
            return None
        text = command.options.get("otherwise", self.error_replies["state"])
        return Reply(raw=replies.line(text))

    def _line(self) -> bytes | None:
        """Return the next line without its ending, or None: it has not arrived."""
        ending = b"\r\n" if self.strict_crlf else b"\n"
        end = self._buffer.find(ending, self._at)
        if end < 0:
            return None
        line = self._buffer[self._at : end]
        self._at = end + len(ending)
        return line if self.strict_crlf else line.removesuffix(b"\r")

    def _request(self, line: bytes, words: list[bytes]) -> Request:
        verb = words.pop(0)
        command = self.commands.get(verb.upper(), self.unknown)
        if command is not None and command.rest_after is not None:
            words = line.split(None, command.rest_after + 1)[1:]
        return Request(verb, words, command, None, b"\r\n", line)

    def _asked(self, request: Request, ask: Ask) -> Reply:
        """Ask the client a question, and remember what it was and what was answered before."""
        if request.body is not None:
            raise TypeError("a handler with body() cannot ask its client a question")
        reply = Reply(raw=replies.line(ask.question))
        self._question = Question([request.verb, *request.words], [*answers_of(request, None)])
        return reply

    def _answered(self, question: Question, line: bytes) -> Request | Bad:
        """Return the request of a command whose client has answered."""
        if self.cancel and line == self.cancel:
            return self._refused_line("cancel")
        try:
            answers = Answers([*question.answers, Secret(line.decode())])
        except UnicodeDecodeError:
            return self._refused_line("answer")
        verb, *words = question.words
        command = self.commands.get(verb.upper(), self.unknown)
        return Answered(verb, words, command, line=b" ".join(question.words), answers=answers)

    def _data(self, block: Block) -> Request | Bad | None:
        """Read the lines of a block, some of them at a time."""
        most = self.limits.max_body_bytes
        for _ in range(_LINES_AT_ONCE):
            if (line := self._line()) is None:
                break
            if line == b"." and not block.is_inside_line:
                self._block = None
                return self._complete(block)
            block.add(line, b"\r\n", most)
        else:
            return SKIPPED
        # A long line is added in parts, without its last byte: that may begin its ending.
        if len(self._buffer) - self._at > _MAX_LINE_PART_BYTES:
            part = self._buffer[self._at : -1]
            self._at = len(self._buffer) - 1
            block.add(part, b"", most)
        return None

    def _complete(self, block: Block) -> Request:
        """Return the request of a command whose block has come to its end."""
        error = None
        if block.size > self.limits.max_body_bytes:
            error = self._error("large", "too large")
        elif block.has_lone and self.strict_crlf:
            error = self._error("newline", "a lone CR or LF")
        return block.request(self.commands.get(block.words[0].upper(), self.unknown), error)


def _quit(protocol: Dialogue) -> Reply:
    """Close the connection."""
    return Reply(raw=replies.line(protocol.goodbye), close=True)
