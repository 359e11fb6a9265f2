"""What has happened on a server since its start, in numbers. Runs in the master."""

from __future__ import annotations

from attrs import asdict, define

from linepool.ipc.board import SlotSnapshot


@define
class Counters:
    """What has happened since the start."""

    requests: int = 0
    errors: int = 0
    connections: int = 0
    timeouts: int = 0
    kills: int = 0
    crashes: int = 0
    recycled: int = 0
    spawned: int = 0
    retired: int = 0
    refused: int = 0
    braked: int = 0
    dropped: int = 0
    denied: int = 0
    limited: int = 0
    handshakes_failed: int = 0

    def add(self, snapshot: SlotSnapshot) -> None:
        """Add the work of one worker."""
        self.requests += snapshot.requests
        self.errors += snapshot.errors
        self.timeouts += snapshot.timeouts
        self.connections += snapshot.connections
        self.refused += snapshot.refused
        self.dropped += snapshot.dropped
        self.braked += snapshot.braked
        self.denied += snapshot.denied
        self.limited += snapshot.limited
        self.handshakes_failed += snapshot.handshakes_failed

    def plus(self, snapshots: list[SlotSnapshot]) -> dict[str, int]:
        """Return all counts, with the work of the workers that are alive."""
        total = Counters(**asdict(self))
        for snapshot in snapshots:
            total.add(snapshot)
        return asdict(total)
