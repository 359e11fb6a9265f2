"""Privileges: the user that runs the app's code, and how a process of root becomes that user for good.

The order matters: the groups go first, while the process still may change them, and the user last; see
setgroups(2), setresgid(2), setresuid(2), credentials(7).
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from linepool.digits import is_whole
from linepool.errors import SetupError

_ROOT = 0
_PR_SET_PDEATHSIG = 1
_PR_GET_PDEATHSIG = 2
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MOST_ID = 2**32 - 2  # the next one means "unchanged" to the system calls
_MIB = 2**20
_UID_MAP = Path("/proc/self/uid_map")

_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Identity:
    """A user with its groups.

    Attributes:
        name: Of the user; its number, if the system has no name for it.
        uid: Of the user.
        gid: Of the primary group.
        groups: The ids of all groups, the primary one included.
        home: The user's home directory.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables that name the user (environ(7))."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def drop(self) -> None:
        """Have this process run as the user, for good; its environment variables then name the user.

        Pre-condition: it runs as root, in one thread.

        Raises:
            SetupError: The kernel refuses; this process must not go on then.
        """
        at_parents_end = ctypes.c_int()
        _libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(at_parents_end), 0, 0, 0)
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise SetupError(
                f"cannot become the user {self.name}: {error.strerror}; root needs the capabilities SETUID"
                " and SETGID for it"
            ) from None
        self._check()
        # The kernel has changed both with the user. A process that is not dumpable has /proc/self of root's.
        _control(_PR_SET_DUMPABLE, 1)
        _control(_PR_SET_PDEATHSIG, at_parents_end.value)
        os.environ.update(self.variables)

    def _check(self) -> None:
        """Raise SetupError if this process is not the user, or could be root again."""
        ids = (os.getresuid(), os.getresgid(), sorted(os.getgroups()))
        if ids != ((self.uid,) * 3, (self.gid,) * 3, sorted(self.groups)):
            raise SetupError(f"cannot become the user {self.name}: the process has the ids {ids}")
        if self.uid == _ROOT:
            return
        try:
            os.setresuid(_ROOT, _ROOT, _ROOT)
        except PermissionError:
            return
        raise SetupError(f"cannot become the user {self.name}: the process could be root again")


def identity_of(user: str, group: str) -> Identity | None:
    """Return the user that a process of root is to become; None: nothing is to change.

    Args:
        user: A name or a number; "": the one that this process has.
        group: The primary group, a name or a number; "": that of the user.

    Raises:
        SetupError: The system has no such user or group, or this process cannot change to it.
    """
    if not user:
        if group:
            raise SetupError(f"group is given ({group}), and user is not: give both")
        return None
    account, gid = _account(user, group)
    if (os.geteuid(), os.getegid()) == (account.pw_uid, gid):
        return None
    if os.geteuid() != _ROOT:
        raise SetupError(
            f"cannot become the user {user}: only root can; start the server as root, or as that user"
            " without the settings user and group"
        )
    groups = sorted({gid, *os.getgrouplist(account.pw_name, gid)})
    return Identity(account.pw_name, account.pw_uid, gid, tuple(groups), account.pw_dir)


def owner_of(user: str, group: str) -> tuple[int, int] | None:
    """Return the uid and gid for files that root makes for a user; None: they stay those of this process.

    For the arguments and errors, see ``identity_of``.
    """
    identity = identity_of(user, group)
    return (identity.uid, identity.gid) if identity is not None else None


def is_root() -> bool:
    """Whether this process is root, and not the root of a user namespace (user_namespaces(7)) only."""
    if os.geteuid() != _ROOT:
        return False
    try:
        mapped = (
            _UID_MAP.read_text().split()
        )  # the first id inside, what it is outside, their number
    except OSError:
        return True
    return mapped[:2] == ["0", "0"]


def _account(user: str, group: str) -> tuple[pwd.struct_passwd, int]:
    """Return the entry of a user, and the id of its primary group."""
    gid = _gid(group) if group else None
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):  # the latter: it contains NUL
        uid = _number(user)
        if uid is None:
            raise SetupError(f"the user {user!r} does not exist") from None
        try:
            account = pwd.getpwuid(uid)
        except KeyError:  # it needs none: containers may have numbers only
            if gid is None:
                raise SetupError(
                    f"the user {user} has no name here, so give its group too"
                ) from None
            account = pwd.struct_passwd((user, "", uid, gid, "", "/", ""))
    return account, account.pw_gid if gid is None else gid


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):  # as for a user
        gid = _number(group)
    if gid is None:
        raise SetupError(f"the group {group!r} does not exist")
    return gid


def _number(text: str) -> int | None:
    """Return an id; None: the text is not one."""
    return int(text) if is_whole(text) and int(text) <= _MOST_ID else None


def forbid_new_privileges() -> None:
    """Have no program that this process starts gain privileges (prctl(2), PR_SET_NO_NEW_PRIVS).

    The bits set-user-ID and set-group-ID and the capabilities of files then have no effect. Children
    inherit it.

    Raises:
        SetupError: The kernel refuses it.
    """
    if not _control(_PR_SET_NO_NEW_PRIVS, 1):
        raise SetupError("no_new_privileges: the kernel refuses it")


def limit_core(mib: int) -> None:
    """Set the largest size of core dumps, in MiB, of this process and its children (core(5)).

    Raises:
        SetupError: It is more than this process may have.
    """
    wanted = mib * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard != resource.RLIM_INFINITY:
        hard = max(hard, wanted)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (wanted, hard))
    except (OSError, ValueError):
        raise SetupError(
            f"max_core_mb ({mib}) is more than the hard limit; only root may raise that (ulimit -Hc)"
        ) from None


def _control(option: int, value: int) -> bool:
    """Change an attribute of this process (prctl(2)); return whether that worked."""
    return bool(_libc.prctl(option, value, 0, 0, 0) == 0)
