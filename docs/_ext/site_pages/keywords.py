"""What readers search for, and the page that they want first.

The search of the site puts these above all that it finds in titles and texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

KEYWORDS: Mapping[str, Sequence[str]] = {
    "client": ("client", "retry", "connection pool"),
    "client#a-typed-module-linepool-stub": ("stub", "code generation"),
    "compare/grpc": ("grpc",),
    "compare/gunicorn": ("gunicorn", "uvicorn", "http"),
    "connections": ("connection", "scheme", "parker"),
    "connections#who-may-connect": ("allow", "deny", "firewall", "ban"),
    "examples": ("example",),
    "examples/memcached": ("memcached", "memcache", "cache"),
    "examples/redis": ("redis", "valkey", "lua"),
    "examples/mailbox": ("smtp", "pop3", "mail"),
    "reliability": ("fault", "survive"),
    "fork-safety": ("fork", "thread", "threads"),
    "handlers": ("handler", "command", "argument"),
    "handlers#errors": ("error", "exception"),
    "handlers#hooks-middleware-unknown-commands": ("hook", "middleware"),
    "handlers#replies": ("reply", "stream", "generator"),
    "handlers#session-verb-connection": ("session", "state"),
    "howto/development": ("autoreload", "development", "ide"),
    "howto/docker": ("docker", "container", "podman", "image"),
    "howto/from-asyncio": ("asyncio", "uvloop"),
    "howto/from-socketserver": ("socketserver", "migrate", "migration"),
    "howto/from-twisted": ("twisted", "linereceiver"),
    "howto/haproxy": ("haproxy", "load balancer", "proxy"),
    "howto/kubernetes": ("kubernetes", "k8s", "probe", "autoscaling"),
    "howto/logging": ("log", "logs", "logging", "journald", "logrotate"),
    "howto/opentelemetry": ("opentelemetry", "tracing", "traces", "otel"),
    "howto/prometheus": ("prometheus", "grafana", "alert", "monitoring"),
    "howto/sentry": ("sentry", "error reports"),
    "howto/systemd": ("systemd", "socket activation", "service", "daemon"),
    "howto/tls": ("tls", "ssl", "certificate", "encryption"),
    "howto/zero-downtime": (
        "zero downtime",
        "deploy",
        "deployment",
        "reload",
        "release",
        "restart",
        "upgrade",
        "drain",
    ),
    "installing": ("install", "pip"),
    "line-protocol": ("line protocol", "telnet", "netcat"),
    "operating#incidents": ("crash", "segfault", "incident"),
    "operating#replacing-workers": ("memory", "memory leak", "recycle", "oom"),
    "operating#requests-that-run-too-long": (
        "timeout",
        "timeouts",
        "time limit",
        "deadline",
        "hang",
        "kill",
    ),
    "operating#status": ("status",),
    "operating#stopping": ("stop", "shutdown", "graceful"),
    "operating#the-access-log": ("access log",),
    "protocols": ("protocol",),
    "protocols#jsonrpc": ("json-rpc", "jsonrpc"),
    "protocols#resp": ("resp",),
    "reference/metrics": ("metric", "metrics"),
    "resources": ("resource", "database", "sqlite", "lmdb"),
    "schema": ("schema", "openrpc"),
    "security": ("security", "hardening"),
    "security#authentication": ("login", "password", "authentication", "auth"),
    "settings": ("settings", "setting", "configuration", "config", "toml", "environment variable"),
    "sizing": ("workers", "worker", "pool", "scaling", "autoscale", "load"),
    "testing": ("test", "tests", "testing", "pytest", "debug", "debugger"),
    "tutorial": ("tutorial", "getting started", "quickstart", "new"),
    "types": ("type", "types", "annotation", "json", "decimal"),
    "waiting": ("wait", "long poll", "queue", "pubsub", "publish"),
    "why": ("why", "alternatives", "comparison"),
}
"""Words by the page that is the answer, or by one of its headings."""

_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def slug(heading: str) -> str:
    """Return the anchor of a heading, as code forges have it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def with_keywords(page: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    """Return a page with what makes the search of Sphinx find it by its words.

    Also return the headings that are found so, with their anchors, in their order; ("", ""): the page.
    """
    entries = sorted(_entries(page, text))
    end = 0
    parts: list[str] = []
    for at, _, _, entry in entries:
        parts += [text[end:at], entry]
        end = at
    return "".join([*parts, text[end:]]), [(heading, anchor) for _, heading, anchor, _ in entries]


def _entries(page: str, text: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield where something is added to a page, for which heading, its anchor, and what is added."""
    headings = list(_HEADING.finditer(text))
    for target, words in KEYWORDS.items():
        name, _, anchor = target.partition("#")
        if name == page:
            entry = f"\n```{{index}} {', '.join(f'! {word}' for word in words)}\n```\n\n"
            if anchor:
                (found,) = [one for one in headings if slug(one[1]) == anchor]
                yield found.start(), found[1].replace("`", ""), anchor, entry
            else:
                yield headings[0].end() + 1, "", "", entry
