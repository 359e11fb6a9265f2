"""Options that gunicorn, uvicorn or granian have, and what is right here. Imported only for an error."""

from __future__ import annotations

import re
from collections.abc import Container

_OPTION = re.compile(r"--[a-z-]+")
_COMMAND = re.compile("'[^']*'")
_BIND = "use --bind HOST:PORT"
_THREADS = "a worker runs one handler at a time: give more --workers"
_ONE_KIND = "there is one kind of worker; --scheme says how connections reach it"
_CERT = "use --tls-cert FILE"
_KEY = "use --tls-key FILE"
_CA = "use --tls-ca FILE"
_VERIFY = "use --tls-verify {off,optional,required}"
_DAEMON = "a server stays in the foreground: 'linepool unit' prints a systemd service for it"
_PRELOAD = "the app is always loaded before the workers are forked: leave it out"
_ASGI = "handlers are plain functions, not an ASGI or WSGI app: leave it out"
_HEADERS = "there are no HTTP headers: leave it out"
_ACCESS = "use --access-log"
_SYSLOG = "the log goes to standard error, or to --log-file; --log-config for all else"
_TIMEOUT = "use --request-timeout S, and --kill-grace S for handlers that ignore it"
_GRACEFUL = "use --graceful-timeout S"
_LEVEL = "use --log-level {debug,info,warning,error}"

ANSWERS = {
    "--host": _BIND,
    "--port": _BIND,
    "-p": "use --bind HOST:PORT, or --pid-file PATH",
    "--uds": "use --bind unix:/PATH",
    "--uds-permissions": "use --unix-mode OCTAL",
    "--fd": "use --bind fd://N",
    "--timeout": _TIMEOUT,
    "-t": _TIMEOUT,
    "--timeout-keep-alive": "use --idle-timeout S",
    "--keep-alive": "use --idle-timeout S",
    "--keepalive": "use --idle-timeout S",
    "--timeout-graceful-shutdown": _GRACEFUL,
    "--workers-kill-timeout": _GRACEFUL,
    "--timeout-worker-healthcheck": _TIMEOUT,
    "--worker-class": _ONE_KIND,
    "-k": _ONE_KIND,
    "--interface": _ASGI,
    "--ws": _ASGI,
    "--loop": _ASGI,
    "--lifespan": _ASGI,
    "--factory": "write the call in TARGET: MODULE:FUNCTION()",
    "--threads": _THREADS,
    "--blocking-threads": _THREADS,
    "--runtime-threads": _THREADS,
    "--worker-connections": "use --max-connections N, for the whole server",
    "--limit-concurrency": "use --max-connections N",
    "--backpressure": "use --max-connections N",
    "--limit-max-requests": "use --max-requests N",
    "--limit-max-requests-jitter": "use --max-requests-jitter FRACTION",
    "--workers-lifetime": "use --max-age S",
    "--workers-max-rss": "use --max-rss-mb MIB",
    "--max-worker-memory": "use --max-rss-mb MIB",
    "--limit-request-line": "use --max-line-bytes BYTES",
    "--daemon": _DAEMON,
    "-D": _DAEMON,
    "--pid": "use --pid-file PATH",
    "--pidfile": "use --pid-file PATH",
    "--preload": _PRELOAD,
    "--preload-app": _PRELOAD,
    "--loglevel": _LEVEL,
    "--logfile": "use --log-file PATH",
    "--log-to-syslog": _SYSLOG,
    "--syslog": _SYSLOG,
    "--error-logfile": "use --log-file PATH",
    "--errorlog": "use --log-file PATH",
    "--logconfig": "use --log-config FILE.toml or FILE.json",
    "--logger-class": "use --log-config FILE.toml or FILE.json",
    "--access-logfile": _ACCESS,
    "--access-logformat": _ACCESS,
    "--access-log-fmt": _ACCESS,
    "--reload-dir": "use --reload-include PATHS",
    "--reload-paths": "use --reload-include PATHS",
    "--reload-extra-file": "use --reload-include PATHS",
    "--reload-engine": "use --reload",
    "--app-dir": "use --chdir PATH",
    "--working-dir": "use --chdir PATH",
    "--pythonpath": "set PYTHONPATH, or use --chdir PATH",
    "--env": "set it in the environment, or use --env-file FILE",
    "--raw-env": "set it in the environment, or use --env-file FILE",
    "-e": "set it in the environment, or use --env-file FILE",
    "-u": "use --user NAME",
    "-g": "use --group NAME",
    "-m": "use --umask OCTAL",
    "--certfile": _CERT,
    "--keyfile": _KEY,
    "--ca-certs": _CA,
    "--cert-reqs": _VERIFY,
    "--ciphers": "use --tls-ciphers LIST",
    "--ssl-certfile": _CERT,
    "--ssl-keyfile": _KEY,
    "--ssl-ca-certs": _CA,
    "--ssl-cert-reqs": _VERIFY,
    "--ssl-certificate": _CERT,
    "--ssl-keyfile-password": "store the key without a passphrase",
    "--tls-cert-file": _CERT,
    "--tls-key-file": _KEY,
    "--tls-ca-cert-file": _CA,
    "--tls-auth-clients": _VERIFY,
    "--proxy-protocol": "use --proxy-from NETWORK, the proxy's address",
    "--proxy-headers": _HEADERS,
    "--forwarded-allow-ips": _HEADERS,
    "--root-path": _HEADERS,
    "--statsd-host": "ask 'linepool status --json' for the counters",
    "--check-config": "use 'linepool check TARGET'",
    "--print-config": "use 'linepool check --settings'",
    "--log": "use --log-level, --log-file or --log-format",
    "--name": "processes are named after the app: linepool.App(name=...)",
    "-n": "processes are named after the app: linepool.App(name=...)",
    "--process-name": "processes are named after the app: linepool.App(name=...)",
}


def option_here(name: str, known: Container[str]) -> str:
    """Return what is right here instead of an option of another server; "": it has no such option.

    Args:
        name: The option, without a value.
        known: The options of the command.
    """
    answer = ANSWERS.get(name, "")
    is_for_a_server = "--bind" in known
    return answer if is_for_a_server and all(one in known for one in options_in(answer)) else ""


def options_in(answer: str) -> list[str]:
    """Return the options of the same command that an answer names; those of others are in quotes."""
    return _OPTION.findall(_COMMAND.sub("", answer))
