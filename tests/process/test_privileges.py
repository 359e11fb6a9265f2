"""Privileges: a process of root becomes a user for good, with the user's groups and no others."""

from __future__ import annotations

import ctypes
import grp
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from linepool import SetupError
from linepool.kernel import privileges
from linepool.kernel.privileges import Identity, identity_of
from linepool.kernel.signals import signal_at_parents_end
from tests.conftest import OTHER_USER

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
NOBODY = pwd.getpwnam("nobody")


def in_child(work: Callable[[], Any]) -> Any:
    """Return what a function returns in a forked child, which ends then; an error as its text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - told to the parent
            result = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(data)


def state() -> dict[str, str]:
    """Return what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (x.partition(":") for x in lines)}


def refusal(user: str, group: str = "") -> str:
    with pytest.raises(SetupError) as error:
        identity_of(user, group)
    return str(error.value)


@as_root
def test_after_the_drop_nothing_of_root_is_left():
    identity = identity_of("nobody", "")
    assert identity is not None

    def work():
        os.setgroups([0, 4, 27])
        signal_at_parents_end(signal.SIGHUP)
        identity.drop()
        privileges.forbid_new_privileges()
        answers = {}
        for call in ("setuid", "seteuid", "setgid", "setegid"):
            try:
                getattr(os, call)(0)
            except PermissionError:
                answers[call] = "refused"
        Path("/proc/self/comm").write_text(
            "x"
        )  # it would be root's if the process was not dumpable
        keep = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "NoNewPrivs")
        names = {name: os.environ[name] for name in ("HOME", "USER", "LOGNAME")}
        at_parents_end = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(at_parents_end), 0, 0, 0)  # PR_GET_PDEATHSIG
        assert at_parents_end.value == signal.SIGHUP
        return answers, {name: state()[name] for name in keep}, names

    assert in_child(work) == [
        dict.fromkeys(["setuid", "seteuid", "setgid", "setegid"], "refused"),
        {
            "Uid": " ".join([str(NOBODY.pw_uid)] * 4),
            "Gid": " ".join([str(NOBODY.pw_gid)] * 4),
            "Groups": str(NOBODY.pw_gid),
            "CapEff": "0" * 16,
            "CapPrm": "0" * 16,
            "NoNewPrivs": "1",
        },
        {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"},
    ]


@as_root
def test_the_supplementary_groups_are_the_users(monkeypatch):
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 4, 27])

    identity = identity_of("nobody", "daemon")

    assert identity is not None
    gid = grp.getgrnam("daemon").gr_gid
    assert (identity.uid, identity.gid, identity.groups) == (
        NOBODY.pw_uid,
        gid,
        tuple(sorted({gid, 4, 27})),
    )

    def work():
        identity.drop()
        return os.getresgid(), sorted(os.getgroups())

    assert in_child(work) == [[gid] * 3, sorted({gid, 4, 27})]


@as_root
def test_numbers_do_for_users_without_a_name():
    assert identity_of(str(OTHER_USER), "7") == Identity(str(OTHER_USER), OTHER_USER, 7, (7,), "/")
    assert refusal(str(OTHER_USER)) == (
        f"the user {OTHER_USER} has no name here, so give its group too"
    )
    assert identity_of(str(NOBODY.pw_uid), "") == identity_of("nobody", "")


@as_root
def test_root_may_stay_root_if_that_is_said():
    assert identity_of("root", "") is None
    assert identity_of("0", "root") is None


@as_root
def test_a_drop_that_root_could_take_back_is_an_error(monkeypatch):
    identity = Identity("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,), "/")

    def work():
        real, calls = os.setresuid, []

        def setresuid(*ids):
            calls.append(ids)
            if len(calls) == 1:
                real(ids[0], ids[1], 0)
                monkeypatch.setattr(os, "getresuid", lambda: ids)
            else:
                real(*ids)

        monkeypatch.setattr(os, "setresuid", setresuid)
        identity.drop()

    assert in_child(work) == (
        "SetupError: cannot become the user nobody: the process could be root again"
    )


@as_root
def test_root_without_the_capabilities_is_told_which():
    identity = identity_of("nobody", "")
    assert identity is not None
    program = """
from linepool.kernel.privileges import identity_of
try:
    identity_of("nobody", "").drop()
except Exception as error:
    print(error)
"""
    wrapper = ["setpriv", "--bounding-set", "-setuid,-setgid", "--inh-caps", "-setuid,-setgid"]
    result = subprocess.run(
        [*wrapper, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == (
        "cannot become the user nobody: Operation not permitted; root needs the capabilities SETUID and"
        " SETGID for it\n"
    )


def test_a_user_or_group_that_does_not_exist_is_named():
    assert refusal("nosuchuser") == "the user 'nosuchuser' does not exist"
    assert refusal("4294967295") == "the user '4294967295' does not exist"
    assert refusal("-1") == "the user '-1' does not exist"
    assert refusal("nobody", "nosuchgroup") == "the group 'nosuchgroup' does not exist"
    assert refusal("", "daemon") == "group is given (daemon), and user is not: give both"


def test_only_root_can_change_the_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    monkeypatch.setattr(os, "getegid", lambda: 7)

    assert identity_of("", "") is None
    assert identity_of(str(OTHER_USER), "7") is None
    assert refusal("nobody") == (
        "cannot become the user nobody: only root can; start the server as root, or as that user without"
        " the settings user and group"
    )
    assert not privileges.is_root()


def test_root_of_a_user_namespace_is_not_root(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(privileges, "_UID_MAP", tmp_path / "uid_map")

    (tmp_path / "uid_map").write_text("         0          0 4294967295\n")
    assert privileges.is_root()
    (tmp_path / "uid_map").write_text("         0     100000      65536\n")
    assert not privileges.is_root()


def test_the_size_of_core_dumps_is_limited():
    def limits(mib):
        privileges.limit_core(mib)
        return state_of_core()

    def state_of_core():
        lines = Path("/proc/self/limits").read_text().splitlines()
        return next(x.split()[4] for x in lines if x.startswith("Max core file size"))

    assert in_child(lambda: limits(0)) == "0"
    assert in_child(lambda: limits(3)) == str(3 * 2**20)
