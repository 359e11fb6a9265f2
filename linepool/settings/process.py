"""Settings: the processes of a server, before the app is loaded into them. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class ProcessSettings:
    """What the processes are before the app is loaded, so that the app cannot set it."""

    user: str = setting(
        "",
        syntax.name,
        "name or number",
        "user that loads the app and runs its handlers, with the user's groups; only root can change it;"
        " empty: the one that starts the server",
        is_early=True,
    )
    group: str = setting(
        "",
        syntax.name,
        "name or number",
        "primary group of user; empty: the one that the system has for the user",
        is_early=True,
    )
    no_new_privileges: str = setting(
        "auto",
        syntax.one_of("auto", "on", "off"),
        "",
        "whether programs that handlers start cannot gain privileges (set-user-ID programs such as sudo);"
        " auto: on if user is given",
        is_early=True,
    )
    umask: int = setting(
        syntax.INHERIT,
        syntax.or_inherit(syntax.umask),
        "octal",
        "permissions that files made by handlers do not have; inherit: those of the process that starts the"
        " server",
        is_early=True,
    )
    chdir: str = setting(
        "",
        syntax.path,
        "path",
        "working directory, to which the target and the paths in other settings are relative; empty: where"
        " the server is started",
        is_early=True,
    )
    load_timeout: float = setting(
        60.0, syntax.seconds(0.1), "s", "how long the app may take to load", is_early=True
    )
    pid_file: str = setting(
        "",
        syntax.path,
        "path",
        "file for the pid of the master, which removes it at its end; empty: none",
        is_early=True,
    )
    max_core_mb: int = setting(
        syntax.INHERIT,
        syntax.or_inherit(syntax.whole(0, 2**40)),
        "MiB",
        "maximum size of a core dump; 0: none; inherit: as the process that starts the server",
        is_early=True,
    )
