"""Lua for scripts: one runtime a worker, sandboxed, limited in memory and in time.

``lua/sandbox.lua`` makes the environment of the scripts, and calls the functions here. What Lua's own code
allocates is limited by lupa. What lupa itself allocates in Lua for Python must never reach that limit: lupa
would jump out of its own code, and the worker would hang. So each function here that Lua calls first looks
whether enough is left.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lua_libraries import BIT, STRUCT, pack_double, unpack_double
from lua_values import ScriptError, ToLua, error_text, from_flat, from_lua, to_error, words_of

from linepool import ClientError, ReplyError

try:
    from lupa import lua51
except ImportError:
    lua51 = None

log = logging.getLogger("redis")

_SOURCES = Path(__file__).parent / "lua"
_RESERVED_BYTES = 1024 * 1024  # of the memory: left for what lupa allocates
_GARBAGE = 4  # with more than this part of the memory used after a script, garbage is collected
_CALLS_PER_WATCH = 1024
_LEVELS = (logging.DEBUG, logging.INFO, logging.INFO, logging.WARNING)
_NO_LUA = "scripts need Lua on the server: pip install lupa"
_NO_MEMORY = "the script has used all of its memory"

Run = Callable[[list[bytes], int], Any]
"""From the words of a command, and the version of RESP, to what its handler returns, or the ReplyError."""


class _MemoryUsedError(Exception):
    """The script has used its memory."""


class Runtime:
    """A Lua runtime, for one script after the other.

    Args:
        max_bytes: The memory that scripts may use.
        watch: Called every 100,000 instructions, and every 1,024 commands; what it raises ends the script.
        version: Of Redis, for scripts that look at it.

    Attributes:
        is_spoilt: A script was ended; another runtime is to run the next one.

    Raises:
        ClientError: lupa is not installed.
    """

    def __init__(self, max_bytes: int, watch: Callable[[], None], version: str) -> None:
        if lua51 is None:
            raise ClientError(_NO_LUA)
        self.is_spoilt = False
        self._max_bytes = max_bytes
        self._watch = watch
        self._version = version
        self._calls = 0  # of commands
        self._stop: BaseException | None = None  # what ends the script, once it was raised
        self._command: Run = _no_command
        self._lua = lua = lua51.LuaRuntime(
            encoding=None,
            attribute_filter=_refuse_attribute,
            register_eval=False,
            register_builtins=False,
            unpack_returned_tuples=True,
            max_memory=max_bytes,
        )
        self._to_lua = ToLua(lua.table_from)
        sources = [self._library(name) for name in ("sandbox", "cjson", "cmsgpack")]
        self._run, self._compile = sources[0](lua.table_from(self._host()), *sources[1:])

    def compile(self, code: bytes) -> Any:
        """Return a script as a function of Lua.

        Raises:
            ClientError: It is not Lua.
        """
        self._need_room(4 * len(code))
        made = self._compile(code)
        if isinstance(made, bytes):
            text = made.decode("utf-8", "replace")
            raise ClientError(f"Error compiling script (new function): {text}")
        return made

    def run(self, script: Any, sha: str, keys: list[bytes], words: list[bytes], run: Run) -> Any:
        """Run a script, and return its value for the client, or the error.

        Args:
            script: What ``compile`` returned.
            sha: Its name in errors.
            keys: ``KEYS``.
            words: ``ARGV``.
            run: Runs the commands that it calls.

        Raises:
            ClientError: There is no memory for the words.
            BaseException: What a command that the script has called, or ``watch``, has raised.
        """
        self._need_room(sum(map(len, keys)) + sum(map(len, words)) + 32 * (len(keys) + len(words)))
        self._stop, self._command, self._to_lua.version = None, run, 2
        table = self._lua.table_from
        try:
            ok, *outcome = self._run(script, table(keys), table(words))
        except lua51.LuaError as error:  # Lua itself had no memory left
            ok, outcome = False, [str(error).encode() or b"not enough memory"]
        finally:
            self._command = _no_command
            if self._lua.get_memory_used() > self._max_bytes // _GARBAGE:
                self._lua.gccollect()  # Lua does not when an allocation exceeds the limit
        if (ended := self._ended(outcome[0])) is not None:
            return ended
        return self._value(outcome[0]) if ok else self._error(sha, *outcome)

    def _ended(self, problem: object) -> ClientError | None:
        """Return None, or the error of a script that was ended, or raise what has ended it."""
        stop = self._stop or problem
        if not isinstance(stop, BaseException):
            return None
        self.is_spoilt = True
        if isinstance(stop, _MemoryUsedError):
            return ClientError(_NO_MEMORY)
        raise stop

    def _value(self, value: Any) -> Any:
        version = self._to_lua.version
        if lua51.lua_type(value) == "table":
            return from_flat(iter(value.values()), version)
        return from_lua(value, version)

    def _error(
        self, sha: str, problem: Any, source: bytes | None = None, line: int = 0
    ) -> ClientError:
        if source is not None:
            place = b", on %b:%d." % (source, line) if source else b"."
            return to_error(problem + b" script: " + sha.encode() + place)
        self.is_spoilt = True
        text = problem.decode("utf-8", "replace") if isinstance(problem, bytes) else "unknown error"
        if "not enough memory" in text:
            return ClientError(_NO_MEMORY)
        return ClientError(f"Error running script {sha}, {text}")

    def _library(self, name: str) -> Any:
        code = (_SOURCES / f"{name}.lua").read_bytes()
        return self._lua.compile(code, name=b"=" + name.encode())

    def _host(self) -> dict[bytes, Callable[..., Any]]:
        """Return what Lua calls, by name."""
        own: dict[bytes, Callable[..., Any]] = {
            b"call": self._call,
            b"pcall": self._pcall,
            b"tick": self._tick,
            b"text_of": _text_of,
            b"reraised": _reraised,
        }
        others: dict[bytes, Callable[..., Any]] = {
            b"setresp": self._set_version,
            b"set_repl": _set_replication,
            b"version": self._version.encode,
            b"version_number": self._version_number,
            b"seed": lambda: int.from_bytes(os.urandom(3), "big"),
            b"log": _log,
            b"sha1hex": _sha1hex,
            b"acl_check_cmd": self._check_command,
            b"pack_double": pack_double,
            b"unpack_double": unpack_double,
        }
        others |= {b"bit_" + name: function for name, function in BIT.items()}
        others |= {b"struct_" + name: function for name, function in STRUCT.items()}
        return own | {name: self._guarded(function) for name, function in others.items()}

    def _call(self, *values: Any) -> Any:
        """Run a command; raises ScriptError with its error."""
        try:
            reply = self._replied(values)
            if isinstance(reply, ReplyError):
                raise ScriptError(error_text(reply))
            return self._converted(reply)
        except ScriptError:
            raise
        except BaseException as error:
            self._stop = error
            raise

    def _pcall(self, *values: Any) -> Any:
        """Run a command; return its error as a table."""
        try:
            return self._call(*values)
        except ScriptError as error:
            return self._lua.table_from({b"err": error.text})

    def _replied(self, values: tuple[Any, ...]) -> Any:
        self._check_memory(0)
        self._calls += 1
        if self._calls % _CALLS_PER_WATCH == 0:
            self._watch()
        return self._command(words_of(values), self._to_lua.version)

    def _converted(self, reply: Any) -> Any:
        """Return a reply as Lua's value."""
        if reply is None or type(reply) is int:
            return self._to_lua(reply)
        if type(reply) is bytes:
            self._check_memory(len(reply))
            return reply
        self._to_lua.size_bytes = 0
        self._lua.set_max_memory(0)
        try:
            value = self._to_lua(reply)
        finally:
            self._lua.set_max_memory(self._max_bytes)
        self._check_memory(self._to_lua.size_bytes if type(value) is bytes else 0)
        return value

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with errors that a script may catch, and with regard to Lua's memory."""

        def guarded(*values: Any) -> Any:
            self._check_memory(0)
            try:
                result = function(*values)
            except (TypeError, ValueError, ArithmeticError, struct.error) as error:
                raise ScriptError(f"ERR bad argument ({error})") from None
            self._check_memory(sum(len(one) for one in _parts(result) if isinstance(one, bytes)))
            return result

        return guarded

    def _check_memory(self, needed: int) -> None:
        """End the script if Lua's memory has no room for so many bytes."""
        if not self._has_room(needed):
            self._lua.set_max_memory(0)  # for lupa to raise the error
            self._stop = _MemoryUsedError()
            raise self._stop

    def _need_room(self, needed: int) -> None:
        """Refuse to give Lua so many bytes if they are too many for its memory."""
        if not self._has_room(needed):
            self.is_spoilt = True  # perhaps another runtime has room
            raise ClientError(_NO_MEMORY)

    def _has_room(self, needed: int) -> bool:
        most = self._max_bytes - _RESERVED_BYTES - needed
        if self._lua.get_memory_used() <= most:
            return True
        self._lua.gccollect()
        return bool(self._lua.get_memory_used() <= most)

    def _tick(self, *_event: Any) -> None:
        """End a script whose time is up: RequestTimeout may be raised here as in any code of Python's."""
        if self._stop is not None:
            raise self._stop
        try:
            self._watch()
        except BaseException as error:
            self._stop = error
            raise

    def _set_version(self, *values: Any) -> None:
        if len(values) != 1:
            raise ScriptError("ERR redis.setresp() requires one argument.")
        version = _number(values[0])
        if version not in (2, 3):
            raise ScriptError("ERR RESP version must be 2 or 3.")
        self._to_lua.version = int(version)

    def _version_number(self) -> int:
        major, minor, patch = (int(part) for part in self._version.split(".")[:3])
        return major << 16 | minor << 8 | patch

    def _check_command(self, *values: Any) -> bool:
        """Whether the client may use a command: it may use all."""
        words_of(values)
        return True


def _parts(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _no_command(_words: list[bytes], _version: int) -> Any:
    return ClientError("redis.call/pcall can only be called inside a script invocation")


def _refuse_attribute(_object: Any, _name: Any, _is_setting: bool) -> Any:
    raise AttributeError("scripts have no access to Python")


def _text_of(problem: Any) -> bytes | None:
    """Return the text of an error that a script may catch; None: of another one."""
    return problem.text if isinstance(problem, ScriptError) else None


def _reraised(problem: Any) -> bytes:
    if isinstance(problem, ScriptError):
        return problem.text
    raise problem


def _sha1hex(*values: Any) -> bytes:
    if len(values) != 1:
        raise ScriptError("ERR wrong number of arguments")
    return hashlib.sha1(words_of(values)[0]).hexdigest().encode()  # noqa: S324 - as Redis does


def _set_replication(*values: Any) -> None:
    """Take redis.set_repl, which has no meaning here."""
    if len(values) != 1:
        raise ScriptError("ERR redis.set_repl() requires two arguments.")
    if int(_number(values[0])) & ~3:
        raise ScriptError(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."
        )


def _number(value: Any) -> float:
    """Return a number or a number's text, as Lua takes it; 0 for other values."""
    try:
        return float(value) if isinstance(value, (int, float, bytes)) else 0
    except ValueError:
        return 0


def _log(*values: Any) -> None:
    if len(values) < 2:
        raise ScriptError("ERR redis.log() requires two arguments or more.")
    level, *parts = values
    if not isinstance(level, (int, float)) or isinstance(level, bool):
        raise ScriptError("ERR First argument must be a number (log level).")
    if not 0 <= level <= 3:
        raise ScriptError("ERR Invalid debug level.")
    text = b" ".join(
        words_of((part,))[0] for part in parts if isinstance(part, (bytes, int, float))
    )
    log.log(_LEVELS[int(level)], "script: %s", ascii(text.decode("utf-8", "replace"))[1:-1])
