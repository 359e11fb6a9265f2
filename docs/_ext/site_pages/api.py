"""The pages on the Python API: which names each has; Sphinx takes the text from their docstrings."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple


class Topic(NamedTuple):
    """A page of the API.

    Attributes:
        title: Its title.
        text: Its first paragraph, as Markdown.
        names: What it documents, below ``linepool``.
    """

    title: str
    text: str
    names: tuple[str, ...]


TOPICS: Mapping[str, Topic] = {
    "apps": Topic(
        "Apps and handlers",
        "[Writing handlers](../../handlers.md) and [resources](../../resources.md) say how these are used."
        " The functions of the module act on a default app, which `linepool run FILE.py` serves.",
        ("App", "handler", "unknown", "middleware", "authenticate", "resource", "config", "run"),
    ),
    "hooks": Topic(
        "Hooks and events",
        "Functions that linepool calls when something happens:"
        " [hooks](../../handlers.md#hooks-middleware-unknown-commands) and"
        " [hooks of the server](../../handlers.md#hooks-of-the-server).",
        (
            *(
                "on_start",
                "on_worker_start",
                "on_worker_exit",
                "on_connect",
                "on_disconnect",
                "on_error",
            ),
            *("when_ready", "on_reload", "on_worker_end", "on_stop"),
            *("ServerReady", "ReloadEnd", "WorkerEnd"),
        ),
    ),
    "injected": Topic(
        "What a handler is given",
        "Annotate a parameter with one of these classes, and the handler gets such an object:"
        " see [handlers](../../handlers.md).",
        (
            *(
                "Session",
                "Connection",
                "Verb",
                "Rest",
                "Secret",
                "Range",
                "Argument",
                "Reply",
                "body",
            ),
            *("Login", "server_status", "server_stats"),
        ),
    ),
    "waiting": Topic(
        "Requests that wait, and messages",
        "See [requests that wait](../../waiting.md).",
        ("Wait", "Waited", "Waiters", "PubSub", "Message"),
    ),
    "errors": Topic(
        "Exceptions",
        "What handlers raise for their clients, and what linepool raises:"
        " see [errors](../../handlers.md#errors).",
        (
            *("LinepoolError", "SetupError", "ReplyError", "ClientError", "ServerError"),
            *("UnknownCommand", "RequestTimeout"),
        ),
    ),
    "protocols": Topic(
        "Protocols",
        "What an app speaks: `linepool.App(protocol=...)`. [Protocols](../../protocols.md) compares them, and"
        " says how to write one.",
        (
            *("Line", "Memcache", "Resp", "JsonRpc", "Dialogue", "Ask", "Answers", "Tls"),
            *("Protocol", "Request", "Bad", "Limits"),
        ),
    ),
    "client": Topic(
        "The client",
        "Calls a server from Python, blocking or with asyncio: see [the client](../../client.md).",
        (
            *("Client", "AsyncClient", "client.Pipeline", "client.AsyncPipeline", "client.Pending"),
            *("client.Call", "client.deadline", "client.request_id", "client.ConnectionFailed"),
            *("client.CallTimeout", "client.LoginRefused", "client.UnexpectedReply"),
        ),
    ),
    "cache": Topic(
        "A memcached server from a store",
        "`linepool.cache` serves every command of memcached's text protocol from a store that you write.",
        ("cache.server", "cache.Store", "cache.Item", "cache.Change", "cache.OutOfMemory"),
    ),
    "testing": Topic(
        "Testing",
        "`linepool.testing`: see [testing and debugging](../../testing.md).",
        (
            *("testing.serve", "testing.Server", "testing.Peer", "testing.client"),
            *("testing.async_client", "testing.assert_split_invariant"),
        ),
    ),
}
_FOREIGN = "object, dict, str, Exception, BaseException, OSError, TimeoutError"
"""Classes of Python, whose members are not told again."""
_PATTERNS = {"Line": "", "Memcache": "", "Resp": "", "JsonRpc": "", "Dialogue": "smtp, pop3"}
"""Classes whose arguments are for users, with the methods that are, too; others are as in ``Protocol``."""
_OF_THE_SERVER = {
    "App": "call_observing, observed, takes_table, functions, has_handlers, freeze, start, worker",
    "Session": "dump, load",
}
"""Methods that the server calls."""

_HEAD = """\
# The Python API

Every public name, with its docstring. The other parts of the package may change at any time.

"""


def _page(topic: Topic) -> str:
    lines = [f"# {topic.title}\n\n{topic.text}\n"]
    return "".join([*lines, *map(_documented, topic.names)])


def _documented(name: str) -> str:
    """Return the directive with which Sphinx takes the text of a name from its docstring."""
    found = _named(name)
    if inspect.ismethod(found):  # of the default app
        first = (inspect.getdoc(found) or "").partition("\n")[0]
        text = f"{first}\n\n   :py:meth:`linepool.App.{name}` of the default app."
        return _directive("py:function", f"{name}(...)", {"module": "linepool"}, text)
    if not inspect.isclass(found):
        return _directive("autofunction", f"linepool.{name}", {})
    if name in _PATTERNS:
        options = {"members": _PATTERNS[name]} if _PATTERNS[name] else {}
    else:
        options = {"members": "", "inherited-members": _FOREIGN}
    if name in _OF_THE_SERVER:
        options["exclude-members"] = _OF_THE_SERVER[name]
    kind = "autoexception" if issubclass(found, BaseException) else "autoclass"
    return _directive(kind, f"linepool.{name}", options)


def _directive(kind: str, argument: str, options: Mapping[str, str], text: str = "") -> str:
    lines = [f".. {kind}:: {argument}", *(f"   :{key}: {value}" for key, value in options.items())]
    return "\n```{eval-rst}\n" + "\n".join([*lines, "", f"   {text}"]) + "\n```\n"


def _named(name: str) -> Any:
    module, _, last = f"linepool.{name}".rpartition(".")
    return getattr(importlib.import_module(module), last)


def _index() -> str:
    rows = [
        f"- [{topic.title}]({name}.md): {', '.join(f'`{one}`' for one in topic.names)}\n"
        for name, topic in TOPICS.items()
    ]
    return _HEAD + "".join(rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/api/index": _index,
    **{f"reference/api/{name}": partial(_page, topic) for name, topic in TOPICS.items()},
}
