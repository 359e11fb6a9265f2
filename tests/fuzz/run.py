"""Fuzz a protocol, guided by the code that its input reaches: ./dev fuzz PROTOCOL SECONDS.

Each input is a stream. It is replayed whole, in parts, and in parts with a dump and a load after each; see
``targets``. What fails is saved, and the run continues. Ends with 1 if there was a crash or a hang.
"core" is the line protocol in the compiled core beside the one in pure Python; see ``core``.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import mmap
import os
import struct
import sys
import tempfile
import time
import traceback
from pathlib import Path

_CORPUS = Path(__file__).parent / "corpus"
_COUNTS = struct.Struct("=QQQQd")  # inputs, bytes, crashes, hangs, seconds of the slowest input
_HANG = 5.0  # seconds of CPU; a thousand times what an input of this length takes
_LONGEST = 4096  # bytes of an input
_MOST_SAVED = 20  # failures of each kind


class Record:
    """What a run has found, in memory that two processes share, and in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._page = mmap.mmap(-1, _COUNTS.size)

    @property
    def counts(self) -> tuple[int, int, int, int, float]:
        """Inputs, bytes, crashes, hangs, and the seconds of the slowest input."""
        return _COUNTS.unpack(self._page)

    def add(self, data: bytes, seconds: float, failure: str) -> None:
        """Record an input; ``failure`` is "" if there was none."""
        inputs, size, crashes, hangs, slowest = self.counts
        if failure:
            crashes += 1
            self._save("crash", crashes, data, failure)
        if seconds > _HANG:
            hangs += 1
            self._save("hang", hangs, data, f"{seconds:.1f} s")
        if seconds > slowest:
            slowest = seconds
            (self.folder / "slowest").write_bytes(data)
        _COUNTS.pack_into(self._page, 0, inputs + 1, size + len(data), crashes, hangs, slowest)

    def _save(self, kind: str, number: int, data: bytes, text: str) -> None:
        if number > _MOST_SAVED:
            return
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
        (self.folder / name).write_bytes(data)
        (self.folder / f"{name}.txt").write_text(text)


def _fuzz(name: str, seconds: int, record: Record) -> None:
    """Run atheris in this process, which it ends. Pre-condition: linepool is not imported yet."""
    import atheris

    with atheris.instrument_imports(include=["linepool.protocols", "linepool.handlers"]):
        from tests.fuzz.targets import TARGETS, check
    target = TARGETS[name]()
    corpus = record.folder / "corpus"
    corpus.mkdir()
    dictionary = record.folder / "tokens"
    dictionary.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))

    def one_input(data: bytes) -> None:
        began = time.process_time()
        failure = ""
        try:
            check(target, data)
        except Exception:  # noqa: BLE001 - this is what is looked for
            failure = traceback.format_exc()
        record.add(data, time.process_time() - began, failure)

    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST}", f"-dict={dictionary}"]
    logging.disable(logging.CRITICAL)
    atheris.Setup(
        [sys.argv[0], *options, "-verbosity=0", str(corpus), str(_CORPUS / name)], one_input
    )
    atheris.Fuzz()


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token[:64])


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="./dev fuzz", description=(__doc__ or "").split("\n")[0])
    names = sorted(path.name for path in _CORPUS.iterdir())
    parser.add_argument("protocol", choices=["core", *names])
    parser.add_argument("seconds", type=int)
    given = parser.parse_args()
    if given.protocol == "core":
        from tests.fuzz.core import run

        return int(bool(run(given.seconds)))
    record = Record(Path(tempfile.mkdtemp(prefix=f"linepool-fuzz-{given.protocol}-")))
    pid = os.fork()
    if pid == 0:
        with open(record.folder / "log", "wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        _fuzz(given.protocol, given.seconds, record)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    inputs, size, crashes, hangs, slowest = record.counts
    print(f"protocol  {given.protocol}")
    print(f"inputs    {inputs}")
    print(f"bytes     {size}")
    print(f"crashes   {crashes}")
    print(f"hangs     {hangs}")
    print(f"slowest   {slowest:.3f} s: {record.folder / 'slowest'}")
    for failure in sorted(record.folder.glob("*.txt")):
        print(f"{failure.with_suffix('')}: {failure.read_text().strip().splitlines()[-1]}")
    if status:
        print(f"the fuzzer itself ended with {status}: {record.folder / 'log'}")
    return int(bool(crashes or hangs or status))


if __name__ == "__main__":
    sys.exit(main())
