"""A systemd as process 1 of namespaces of its own, with only the units that a test gives it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tests.servers import ROOT, TIMEOUT, children_of, has_ended
from tests.service_manager import NotifyReceiver

_SYSTEMD = "/lib/systemd/systemd"
_NAMESPACES = ["--pid", "--fork", "--mount", "--cgroup", "--uts", "--ipc", "--net"]
_UNSHARE = ["unshare", *_NAMESPACES, "--kill-child=KILL", "--propagation", "private"]
# Units that others want by default.
_TARGETS = ("default", "sysinit", "basic", "shutdown", "network", "multi-user", "sockets")
_BARE = "[Unit]\nDefaultDependencies=no\n"


def why_not() -> str:
    """Return why there can be no such world here; "": there can."""
    if os.getuid() != 0:
        return "needs root"
    if not os.path.exists(_SYSTEMD):
        return "no systemd"
    if missing := [name for name in ("unshare", "nsenter", "setpriv") if not shutil.which(name)]:
        return f"no {missing[0]}"
    if _cgroups() is None:
        return "no cgroup2 that can be written"
    words = [*_UNSHARE, "true"]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        return "new namespaces are not permitted"
    return ""


def _cgroups() -> Path | None:
    """Return this process's group in the hierarchy of version 2 (cgroups(7)), if groups can be made in it."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    own = re.search(
        r"^0::(.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE
    )
    for line in mounts.splitlines():
        if " - cgroup2 " in line and own:
            place = Path(line.split()[4] + own[1])
            return place if os.access(place, os.W_OK) else None
    return None


class SystemdWorld:
    """A running systemd; as a context manager, it is killed with all its services at the end.

    Args:
        directory: An empty directory for its files.
        units: Its units, by file name.

    Attributes:
        root: Its file system, as seen from here.
    """

    def __init__(self, directory: Path, units: Mapping[str, str]) -> None:
        own, root = directory / "units", directory / "root"
        for place in (own, root):
            place.mkdir()
        for name, text in {**{f"{name}.target": _BARE for name in _TARGETS}, **units}.items():
            (own / name).parent.mkdir(exist_ok=True)
            (own / name).write_text(text)
        cgroups = _cgroups()
        assert cgroups is not None
        self._group = cgroups / f"linepool-test-{os.getpid()}"
        self._group.mkdir()
        self._log = (directory / "log").open("w+", encoding="utf-8")
        places = sorted({str(ROOT), sys.prefix, sys.base_prefix})
        boot = ["sh", str(Path(__file__).with_name("boot_systemd.sh")), str(root), str(own)]
        # What it forks is in the group, before the namespaces are made.
        end_with_tests = ["setpriv", "--pdeathsig", "KILL"]
        enter = ["sh", "-ec", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self._group)]
        with contextlib.ExitStack() as undo, NotifyReceiver(directory / "notify") as notify:
            self._process = subprocess.Popen(
                [*end_with_tests, *enter, *_UNSHARE, *boot, notify.path, *places],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
            undo.callback(self.close)
            notify.until("READY", "1")
            (self._pid,) = children_of(self._process.pid)
            undo.pop_all()
        self.root = Path(f"/proc/{self._pid}/root")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def systemctl(self, *words: str, status: int = 0) -> str:
        """Run systemctl, which must end with an exit status; return what it prints."""
        enter = ["nsenter", "-t", str(self._pid), "-m", "-p", "-r", "-w", "systemctl", *words]
        done = subprocess.run(enter, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == status, done.stderr + self.log
        return done.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit."""
        lines = self.systemctl("show", unit, "--property", ",".join(names)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, unit: str, name: str, holds: Callable[[str], bool]) -> None:
        """Ask for a property of a unit until a condition holds."""
        give_up_at = time.monotonic() + TIMEOUT
        while not holds(found := self.show(unit, name)[name]):
            assert time.monotonic() < give_up_at, f"{name} stays {found!r}\n{self.log}"

    def until_active(self, unit: str, restarts: int = 0) -> None:
        """Wait until a unit is active, after at least this many restarts by systemd itself."""
        self.until(unit, "NRestarts", lambda count: int(count) >= restarts)
        self.until(unit, "ActiveState", lambda state: state == "active")

    @property
    def log(self) -> str:
        """What systemd has logged so far, and what the services have written to /run/log."""
        self._log.seek(0)
        services = self.root / "run" / "log"
        with contextlib.suppress(OSError):
            return self._log.read() + services.read_text(encoding="utf-8")
        return self._log.read()

    def close(self) -> None:
        """Kill it, and all that it has started."""
        pidfds = [os.pidfd_open(pid) for pid in children_of(self._process.pid)]
        self._process.kill()  # which kills process 1, and so all of its namespace
        self._process.wait()
        for pidfd in pidfds:
            assert has_ended(pidfd)
            os.close(pidfd)
        for place, _, _ in os.walk(self._group, topdown=False):
            os.rmdir(place)
        self._log.close()
