"""32 producers and 32 consumers of queues in the Redis example, while its workers are killed."""

from __future__ import annotations

from pathlib import Path

from tests.clients.test_redis_blocking import REDIS, Storm
from tests.servers import run_server


def test_each_of_many_items_is_popped_once_while_workers_are_killed(
    tmp_path: Path, items: int
) -> None:
    with run_server(REDIS, tmp_path, "--workers", "4", "--poison-pause", "0.1") as server:
        storm = Storm(server, items, 32)
        storm.run(kills=items // 1000)
        storm.check()
        assert server.converse(b"EXISTS queue0 queue1 queue2\r\n") == b":0\r\n"
