"""The upgrade in place of the simulated master: what is handed over is real; dry run and exec are models."""

from __future__ import annotations

import json
import math
import selectors
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from linepool.kernel.way_back import VARIABLE
from linepool.master.takeover import Inherited, check
from tests.simulation.epolls import File
from tests.simulation.files import Counter
from tests.simulation.machine import here, machine

if TYPE_CHECKING:
    from tests.simulation.processes import SimulatedMaster
    from tests.simulation.world import World

_TRIES_S, _STARTS_S = 0.03, (0.01, 0.05, 0.2)
_ODDS = 8
"""One of so many dry runs, and of so many execs, fails."""


class Executed(BaseException):
    """The process has become another program, which has kept some of its files."""

    def __init__(self, state: int, files: dict[int, File]) -> None:
        super().__init__("the process is another program")
        self.state, self.files = state, files


class SimulatedProgram:
    """The program that the server was started as."""

    arguments = ("linepool",)

    def as_json(self) -> dict[str, Any]:
        """Return nothing: it need not be started."""
        return {}

    def replace(
        self, variables: Mapping[str, str], descriptors: Sequence[int], prepare: Callable[[], None]
    ) -> NoReturn:
        """Become this program."""
        prepare()
        if machine.kernel.choices.below(_ODDS) == 1:
            raise FileNotFoundError(2, "not found", "linepool")
        machine.kernel.trace("becomes another program")
        process = here()
        files = {number: process.file(number) for number in descriptors}
        for file in files.values():
            file.refs += 1  # what is on the way up from here may close them
        raise Executed(json.loads(variables[VARIABLE])["state"], files)


class SimulatedDryRun:
    """A program that tries whether it could take over: it says so after a while."""

    def __init__(
        self,
        _program: SimulatedProgram,
        _told: Mapping[str, Any],
        _state: int,
        selector: selectors.BaseSelector,
        on_end: Callable[[str, str], None],
    ) -> None:
        kernel = machine.kernel
        self.give_up_at = math.inf
        self._selector, self._on_end = selector, on_end
        self._said = Counter(kernel)
        self._number = here().install(self._said)
        selector.register(self._number, selectors.EVENT_READ, self._ended)
        kernel.start(kernel.processes[1], self._try, "dry-run")

    def _try(self) -> None:
        machine.kernel.sleep(_TRIES_S)
        self._said.value = 1
        self._said.changed()

    def _ended(self) -> None:
        self.close()
        is_well = machine.kernel.choices.below(_ODDS) != 1
        self._on_end(*(("the next", "") if is_well else ("", "it fails")))

    def close(self) -> None:
        """End it."""
        self._selector.unregister(self._number)
        here().close(self._number)


def inherited_by(world: World, executed: Executed) -> Inherited:
    """Have the master be the program that it has become; return what that has inherited."""
    process, files = here(), executed.files
    for number in [*process.fds]:
        if process.fds[number] is not files.get(number):
            process.close(number)
    for number, file in files.items():
        if number in process.fds:
            file.refs -= 1
        else:
            process.fds[number] = file
    process.pending.clear()
    world.kernel.sleep(_STARTS_S[world.kernel.choices.below(len(_STARTS_S))])
    inherited = Inherited(executed.state)
    check(inherited.state)
    return inherited


def settle(inherited: Inherited, master: SimulatedMaster) -> None:
    """End a takeover, as the program does."""
    inherited.settle()
    master.reload.begin()
