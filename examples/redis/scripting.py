"""EVAL and SCRIPT: Lua scripts that run as one transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from application import app
from attrs import define, frozen
from db import Db
from lua_runtime import Runtime
from script_kill import Kill
from script_table import Script, add, forget, known, parsed, sha_of, source
from transaction import Txn

import linepool
from linepool import ClientError, Resp, Session, Verb
from linepool.protocols.base import Request
from linepool.protocols.resp import OK, Commands, Status
from linepool.protocols.resp.facts import bounds

_MOST_COMPILED = 1000  # scripts that a worker keeps
_SHA_LETTERS = 40
_REFUSED = "This Redis command is not allowed from script"
_MAY_BLOCK = (b"XREAD", b"XREADGROUP")
_NOT_FROM_SCRIPTS = {b"CONFIG", b"FUNCTION"}  # all of their subcommands
_MAY_REPLICATE = {b"PUBLISH", b"SPUBLISH", b"PFCOUNT"}  # read-only scripts may not call them either
_MEMORY = os.environ.get("REDIS_SCRIPT_MB", "64")
if not _MEMORY.isdigit() or int(_MEMORY) < 4:
    raise linepool.SetupError(
        f"REDIS_SCRIPT_MB must be a number of megabytes, 4 or more, not {_MEMORY!r}"
    )


@frozen
class _Callable:
    """What a script may do with a command.

    Attributes:
        least, most: How many words may follow it.
        is_refused: Scripts may not call it.
        writes: Read-only scripts may not.
    """

    least: int
    most: int
    is_refused: bool
    writes: bool


@define
class _Compiled:
    script: Script
    function: Any


class Scripts:
    """What a worker has for scripts: Lua's runtime, and what it has compiled."""

    def __init__(self, directory: str) -> None:
        self.kill = Kill(directory)
        self._runtime: Runtime | None = None
        self._compiled: dict[str, _Compiled] = {}
        self._commands: dict[bytes, _Callable] = {}

    def runtime(self, version: str) -> Runtime:
        """Return the runtime: a new one if the last one is spoilt."""
        if self._runtime is None or self._runtime.is_spoilt:
            self._compiled.clear()
            self._runtime = Runtime(int(_MEMORY) * 2**20, self.kill.check, version)
        return self._runtime

    def compiled(self, sha: str, version: str) -> _Compiled | None:
        """Return a script that was compiled before, or None."""
        self.runtime(version)
        return self._compiled.get(sha)

    def compile(self, code: bytes, sha: str, version: str) -> _Compiled:
        """Compile a script; raises ClientError."""
        script = parsed(code, sha)
        runtime = self.runtime(version)
        if len(self._compiled) >= _MOST_COMPILED:
            self._compiled.clear()
        made = self._compiled[sha] = _Compiled(script, runtime.compile(script.code))
        return made

    def command(self, request: Request, commands: Commands) -> _Callable:
        """Return what scripts may do with the command of a request."""
        name = request.verb
        if name not in self._commands:
            if (
                len(self._commands) >= _MOST_COMPILED
            ):  # clients choose between small and capital letters
                self._commands.clear()
            flags = commands.facts(request).flags
            verb = name.upper()
            self._commands[name] = _Callable(
                *bounds(request.command),
                is_refused="noscript" in flags or verb in _NOT_FROM_SCRIPTS,
                writes="write" in flags or verb in _MAY_REPLICATE,
            )
        return self._commands[name]


@app.resource
def scripts() -> Iterator[Scripts]:
    """Have Lua in each worker, from its first script on."""
    scripts = Scripts(os.environ["REDIS_DIR"])
    yield scripts
    scripts.kill.close()


@define
class _Evaluation:
    """One EVAL: what it takes.

    Attributes:
        is_read_only: The script may not write.
    """

    scripts: Scripts
    commands: Commands
    db: Db
    resp: Resp
    session: Session
    is_read_only: bool

    def __call__(self, sha: str, code: bytes | None, numkeys: int, words: tuple[bytes, ...]) -> Any:
        """Run a script, in one transaction; return its value.

        Args:
            sha: Its SHA1.
            code: Its source, or None: the server has to know it.
            numkeys: How many of the words are keys.
            words: The keys, and the other words.

        Raises:
            ClientError: It cannot be run, or has ended with this error; what it did before is kept.
        """
        if numkeys > len(words):
            raise ClientError("Number of keys can't be greater than number of args")
        if numkeys < 0:
            raise ClientError("Number of keys can't be negative")
        compiled = self._compiled(sha, code)
        flags = compiled.script.flags
        if flags is not None and "no-writes" in flags:
            self.is_read_only = True
        elif flags is not None and self.is_read_only:
            raise ClientError("Can not execute a script with write flag using *_ro command.")
        keys, arguments = [*words[:numkeys]], [*words[numkeys:]]
        if self.is_read_only:
            with self.db.read() as t:
                is_known = known(t, sha)
            if not is_known:
                with self.db.write() as t:
                    _add(t, sha, code)
            value = self._run(compiled, keys, arguments)
        else:
            with self.db.together() as t:
                if not known(t, sha):
                    _add(t, sha, code)
                value = self._run(compiled, keys, arguments)
        if isinstance(value, ClientError):
            raise value
        return value

    def _compiled(self, sha: str, code: bytes | None) -> _Compiled:
        version = self.resp.redis_version
        if compiled := self.scripts.compiled(sha, version):
            return compiled
        if code is None:
            with self.db.read() as t:
                code = source(t, sha)
        if code is None:
            raise _unknown()
        return self.scripts.compile(code, sha, version)

    def _run(self, compiled: _Compiled, keys: list[bytes], words: list[bytes]) -> Any:
        """Run a script; return its value, or the ClientError with which it ended."""
        resp, session, kill = self.resp, self.session, self.scripts.kill
        version, database = resp.version, session.get("db", 0)
        runtime = self.scripts.runtime(resp.redis_version)
        kill.begin()
        try:
            return runtime.run(compiled.function, compiled.script.sha, keys, words, self._command)
        finally:
            kill.end()
            resp.version = version
            if session.get("db", 0) != database:  # SELECT in a script is for the script
                session["db"] = database
                self.db.select(database)

    def _command(self, words: list[bytes], version: int) -> Any:
        """Run a command that the script calls; return the value of its handler, or the error."""
        request = self.commands.request(words)
        if request.command is None:
            return ClientError(self._why_unknown(words))
        found = self.scripts.command(request, self.commands)
        if not found.least <= len(request.words) <= found.most:
            return ClientError("Wrong number of args calling Redis command from script")
        if found.is_refused:
            return ClientError(_REFUSED)
        if self.is_read_only and found.writes:
            return ClientError("Write commands are not allowed from read-only scripts.")
        if _blocks(words):
            name = words[0].decode().lower()
            return ClientError(f"{name} command is not allowed with BLOCK option from scripts")
        self.resp.version = version
        return self.commands.run(request)

    def _why_unknown(self, words: list[bytes]) -> str:
        """Return the error for a command that is not served, which Redis may have and refuse."""
        names = [word.decode("latin-1").upper() for word in words[:2]]
        known = [self.resp.facts.get("|".join(names[:count])) for count in (1, 2)]
        if any(facts is not None and "noscript" in facts.flags for facts in known):
            return _REFUSED
        return "Unknown Redis command called from script"


def _blocks(words: list[bytes]) -> bool:
    """Whether this is a XREAD or XREADGROUP with BLOCK."""
    if words[0].upper() not in _MAY_BLOCK:
        return False
    options = [word.upper() for word in words[1:]]
    return b"BLOCK" in options[: options.index(b"STREAMS") if b"STREAMS" in options else None]


def _add(t: Txn, sha: str, code: bytes | None) -> None:
    """Have the server know a script of EVAL, unless it has no room for it."""
    if code is None:
        raise _unknown()
    if t.has_room:
        add(t, sha, code, is_loaded=False)


def _unknown() -> ClientError:
    return ClientError("No matching script. Please use EVAL.", code="NOSCRIPT")


@app.handler("EVAL", "EVAL_RO")
def eval_(
    script: bytes,
    numkeys: int,
    *words: bytes,
    verb: Verb,
    scripts: Scripts,
    commands: Commands,
    db: Db,
    resp: Resp,
    session: Session,
) -> Any:
    """Run a script: EVAL script numkeys [key ...] [arg ...]."""
    run = _Evaluation(scripts, commands, db, resp, session, verb.endswith("_RO"))
    return run(sha_of(script), script, numkeys, words)


@app.handler("EVALSHA", "EVALSHA_RO")
def evalsha(
    sha1: bytes,
    numkeys: int,
    *words: bytes,
    verb: Verb,
    scripts: Scripts,
    commands: Commands,
    db: Db,
    resp: Resp,
    session: Session,
) -> Any:
    """Run a script that the server knows."""
    if len(sha1) != _SHA_LETTERS:
        raise _unknown()
    run = _Evaluation(scripts, commands, db, resp, session, verb.endswith("_RO"))
    return run(sha1.lower().decode("latin-1"), None, numkeys, words)


@app.handler("SCRIPT|LOAD")
def load(script: bytes, scripts: Scripts, db: Db, resp: Resp) -> str:
    """Have the server know a script, without running it."""
    sha = sha_of(script)
    if not scripts.compiled(sha, resp.redis_version):
        scripts.compile(script, sha, resp.redis_version)
    with db.write() as t:
        add(t, sha, script, is_loaded=True)
    return sha


@app.handler("SCRIPT|EXISTS")
def exists(sha1: bytes, *more: bytes, db: Db) -> list[int]:
    """Tell which scripts the server knows."""
    with db.read() as t:
        return [int(known(t, one.lower().decode("latin-1"))) for one in (sha1, *more)]


@app.handler("SCRIPT|FLUSH")
def flush(*modes: bytes, db: Db) -> Status:
    """Forget all scripts; ASYNC and SYNC are the same here."""
    if len(modes) > 1 or (modes and modes[0].upper() not in (b"ASYNC", b"SYNC")):
        raise ClientError("SCRIPT FLUSH only support SYNC|ASYNC option")
    with db.write() as t:
        forget(t)
    return OK


@app.handler("SCRIPT|KILL")
def kill(scripts: Scripts) -> Status:
    """End the scripts that have been running for a while."""
    if not scripts.kill.kill():
        raise ClientError("No scripts in execution right now.", code="NOTBUSY")
    return OK
