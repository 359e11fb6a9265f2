"""A consumer group of the Redis example while workers are killed; ``--seconds`` says for about how long."""

from __future__ import annotations

from tests.clients.harness import Killer
from tests.clients.stream_load import run_group
from tests.servers import EXAMPLES, run_server
from tests.torture.table import show_table

_REDIS = EXAMPLES / "redis" / "redis_server.py"


def test_a_consumer_group_loses_nothing_while_workers_are_killed(tmp_path, seconds):
    kills = max(10, round(5 * seconds))
    with (
        run_server(_REDIS, tmp_path, "--workers", "8", "--poison-deaths", "0") as server,
        Killer(server, kills) as killer,
    ):
        done = run_group(server, killer, kills, producers=4, consumers=12)
    assert "handler failed" not in server.text
    rows = [[kills, done.added, done.got, done.acknowledged, done.pending]]
    show_table(["kills", "added", "got", "acknowledged", "pending"], rows)
