"""CLIENT PAUSE: transactions of all workers are held until the pause is over."""

from __future__ import annotations

import mmap
import os
import time

_BYTES = 16
_UNTIL, _READS_TOO = range(2)
_STEP_S = 0.005


class Pause:
    """A pause, in two words of a file that each worker maps: until when (Unix time in ms), and of what.

    Args:
        directory: That of the store.

    Attributes:
        words: The first is 0 if there is no pause.
    """

    def __init__(self, directory: str) -> None:
        file = os.open(
            os.path.join(directory, "pause"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        os.ftruncate(file, _BYTES)
        self._map = mmap.mmap(file, _BYTES)
        os.close(file)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Let go of the file."""
        self.words.release()
        self._map.close()

    def begin(self, milliseconds: int, *, reads_too: bool) -> None:
        """Begin a pause; one that lasts longer goes on."""
        now = time.time_ns() // 1_000_000
        is_on = self.words[_UNTIL] > now
        self.words[_READS_TOO] = int(reads_too or (is_on and self.words[_READS_TOO]))
        self.words[_UNTIL] = max(self.words[_UNTIL], now + milliseconds)

    def end(self) -> None:
        """End the pause."""
        self.words[_UNTIL] = 0

    def hold(self, *, write: bool) -> None:
        """Return when the pause is over, or at once if it is not for such a transaction."""
        words = self.words
        while words[_UNTIL] and (write or words[_READS_TOO]):
            if time.time_ns() // 1_000_000 >= words[_UNTIL]:
                return
            time.sleep(_STEP_S)
