"""The text of systemd units for a server: a service, and a socket that may start it (systemd.unit(5)).

Pure: what is in them is found elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from linepool.address import parse_address
from linepool.errors import SetupError
from linepool.settings import Settings

_MARGIN = 10  # seconds beyond the settings that a start or a stop may take
_WATCHDOG = 30  # seconds; the loop of the master never takes so long, a machine that swaps may
_FIRST_FREE_PORT = 1024
_HOMES = ("/home/", "/root/", "/run/user/")
TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 - they are only compared
_PLAIN = re.compile(r"[\w/:@.,+=~-]+", re.ASCII)


@frozen(kw_only=True)
class Service:
    """What the units are made from.

    Attributes:
        name: Of the units, without suffix; also of the directories below /run and /var/lib.
        command: The program and its arguments.
        reload: The command that reloads it; empty: it has no control socket.
        directory: The working directory.
        user: The user; "": one that systemd makes up while the service runs.
        group: The group; "": that of the user.
        settings: All of them; the paths in them are absolute.
        open_files: How many descriptors a process may need.
        reads: Absolute paths that it reads, beside those of the system.
        writes: Absolute paths of directories in which it writes, except those that systemd makes for it.
        has_socket: systemd opens its sockets.
    """

    name: str
    command: Sequence[str]
    reload: Sequence[str]
    directory: str
    user: str
    group: str
    settings: Settings
    open_files: int
    reads: Sequence[str]
    writes: Sequence[str]
    has_socket: bool


def service_unit(service: Service) -> str:
    """Return the text of a service unit."""
    settings = service.settings
    stop_s = settings.graceful_timeout + max(_MARGIN, _MARGIN / 2 + settings.observer_timeout)
    sections = {
        "Unit": [
            f"Description=linepool: {service.name}",
            "After=network.target",
            *([f"Requires={service.name}.socket"] if service.has_socket else []),
            "# It is started again however often it fails.",
            "StartLimitIntervalSec=0",
        ],
        "Service": [
            "# Up as soon as the first workers are.",
            "Type=notify",
            "NotifyAccess=main",
            *_identity(service),
            f"WorkingDirectory={_escaped(service.directory)}",
            f"ExecStart={_command(service.command)}",
            *([f"ExecReload={_command(service.reload)}"] if service.reload else []),
            "Restart=on-failure",
            "RestartSec=2",
            "# 2: wrong settings, which another start does not mend.",
            "RestartPreventExitStatus=2",
            f"TimeoutStartSec={round(settings.load_timeout + settings.spawn_timeout + _MARGIN)}",
            f"WatchdogSec={_WATCHDOG}",
            "# A stop is told to the master, which stops the workers within graceful_timeout.",
            "KillMode=mixed",
            f"TimeoutStopSec={round(stop_s)}",
            "# A worker that the kernel kills for its memory is replaced.",
            "OOMPolicy=continue",
            f"LimitNOFILE={service.open_files}",
            f"LimitCORE={settings.max_core_mb}M" if settings.max_core_mb > 0 else "LimitCORE=0",
            f"RuntimeDirectory={service.name}",
            f"StateDirectory={service.name}",
            "UMask=0077",
            "",
            *_hardening(service),
        ],
        "Install": [
            "WantedBy=multi-user.target",
            *([f"Also={service.name}.socket"] if service.has_socket else []),
        ],
    }
    return _text(sections)


def socket_unit(service: Service) -> str:
    """Return the text of the socket unit, with the addresses in ``bind``.

    Raises:
        SetupError: systemd cannot listen on one of them.
    """
    settings = service.settings
    listen = [f"ListenStream={_stream(text)}" for text in settings.bind]
    lines = [
        *listen,
        f"FileDescriptorName={service.name}",
        f"Backlog={settings.backlog}",
    ]
    hosts = [parse_address(text).host for text in settings.bind]
    if any(":" in host for host in hosts) and any("." in host for host in hosts):
        lines.append("BindIPv6Only=ipv6-only")
    if any(parse_address(text).path for text in settings.bind):
        lines.append(f"SocketMode={settings.unix_mode:04o}")
        if service.user:
            lines.append(f"SocketUser={service.user}")
        if service.group:
            lines.append(f"SocketGroup={service.group}")
    return _text(
        {
            "Unit": [f"Description=Sockets of linepool: {service.name}"],
            "Socket": lines,
            "Install": ["WantedBy=sockets.target"],
        }
    )


def _identity(service: Service) -> list[str]:
    if not service.user:
        return [
            "# A user that exists only while the service runs; it owns /var/lib/"
            + service.name
            + ".",
            "DynamicUser=yes",
        ]
    lines = [f"User={service.user}"]
    return [*lines, f"Group={service.group}"] if service.group else lines


def _hardening(service: Service) -> list[str]:
    used = [service.directory, *service.reads, *service.writes]
    ports = [parse_address(text).port for text in service.settings.bind]
    low = not service.has_socket and any(0 < port < _FIRST_FREE_PORT for port in ports)
    capabilities = "CAP_NET_BIND_SERVICE" if low else ""
    return [
        "# Read-only, except /run/NAME and /var/lib/NAME, and what ReadWritePaths= names.",
        "ProtectSystem=strict",
        *[f"ReadWritePaths=-{_escaped(path)}" for path in service.writes],
        f"ProtectHome={'read-only' if in_any(_HOMES, used) else 'yes'}",
        # A user that systemd makes up has its own /tmp in any case.
        f"PrivateTmp={'no' if service.user and in_any(TEMPORARY, used) else 'yes'}",
        "PrivateDevices=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={capabilities}",
        f"AmbientCapabilities={capabilities}",
        "LockPersonality=yes",
        "RemoveIPC=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "# Netlink tells how many clients wait at a unix socket.",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "# pidfd_getfd: the client of a worker that is killed gets an error.",
        "SystemCallFilter=@system-service pidfd_getfd",
        "SystemCallErrorNumber=EPERM",
    ]


def in_any(places: Iterable[str], paths: Iterable[str]) -> bool:
    """Whether one of some paths is, or is below, one of some directories."""
    return any(f"{path}/".startswith(place) for path in paths for place in places)


def _stream(text: str) -> str:
    """Return an address as ListenStream= takes it (systemd.socket(5)).

    Raises:
        SetupError: It cannot be given there.
    """
    address = parse_address(text)
    if address.path:
        if address.path[0] in "/@":
            return _escaped(address.path)
        why = "give an absolute path"
    elif address.descriptor >= 0 or address.name:
        why = "it is open already"
    elif not address.port:
        why = "give a port"
    elif ":" not in address.host and not re.fullmatch(r"[\d.]+", address.host, re.ASCII):
        why = "give a number in place of the host's name"
    else:
        return text
    raise SetupError(f"systemd cannot listen on {text}: {why}")


def _command(words: Iterable[str]) -> str:
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Return a word of a command (systemd.service(5), "Command lines")."""
    if _PLAIN.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{_escaped(escaped)}"'


def _escaped(text: str) -> str:
    """Return a value in which ``%`` is not a specifier.

    Raises:
        SetupError: It has a character that a unit cannot have.
    """
    if not text.isprintable():
        raise SetupError(f"a unit cannot have the characters of {text!r}")
    return text.replace("%", "%%")


def _text(sections: dict[str, list[str]]) -> str:
    return "\n".join(
        f"[{section}]\n" + "".join(f"{line}\n" for line in lines)
        for section, lines in sections.items()
    )
