"""What a process becomes before the app is loaded: directory, umask, limit of core dumps; then the user."""

from __future__ import annotations

import logging
import os

from linepool import errors
from linepool.errors import SetupError
from linepool.kernel import features
from linepool.kernel.privileges import (
    Identity,
    forbid_new_privileges,
    identity_of,
    is_root,
    limit_core,
)
from linepool.operate.config import ConfigError
from linepool.operate.log_file import LogFile
from linepool.settings import INHERIT, ProcessSettings

log = logging.getLogger("linepool")


def enter(settings: ProcessSettings) -> Identity | None:
    """Set up this process, whose children inherit it; return the user that it is to become, if any.

    Raises:
        ConfigError: A setting cannot be put into effect.
    """
    if not features.PRCTL and settings.user:
        raise ConfigError("user needs Linux; start the server as that user")
    if not features.PRCTL and settings.no_new_privileges == "on":
        raise ConfigError("no_new_privileges needs Linux; auto and off are possible here")
    try:
        identity = identity_of(settings.user, settings.group)
        if settings.max_core_mb != INHERIT:
            limit_core(settings.max_core_mb)
    except SetupError as error:
        raise ConfigError(str(error)) from None
    if settings.umask != INHERIT:
        os.umask(settings.umask)
    if settings.chdir:
        try:
            os.chdir(settings.chdir)
        except OSError as error:
            raise ConfigError(f"chdir: cannot enter {settings.chdir}: {error.strerror}") from None
    return identity


def become(identity: Identity | None, settings: ProcessSettings) -> None:
    """Have this process become the user that loads the app; call it before anything of the app's runs.

    Raises:
        SetupError: It cannot, or the user could not load anything.
    """
    if identity is not None:
        identity.drop()
        for file in (os.__file__, errors.__file__):
            if not os.access(file, os.R_OK):
                raise SetupError(
                    f"the user {identity.name} cannot read {file}: install Python, linepool and what the app"
                    " needs where that user can read them"
                )
    if settings.no_new_privileges == "on" or (
        settings.no_new_privileges == "auto" and settings.user
    ):
        forbid_new_privileges()


def make_log_file(path: str, identity: Identity | None, setting: str = "log_file") -> None:
    """Make a log file, if the user that is to write it may be unable to.

    Raises:
        SetupError: It cannot be opened.
    """
    if path not in ("", "off", "-") and identity is not None:
        LogFile(path, (identity.uid, identity.gid), setting).close()


def warn_of_root(settings: ProcessSettings) -> None:
    """Log a warning if the app's code is to run as root, and that is not said to be meant."""
    if not settings.user and is_root():
        remedy = "start the server as another user"
        if features.PRCTL:
            remedy = f"give --user NAME, or {remedy}; --user root says that it is meant"
        log.warning("handlers run as root: %s", remedy)
