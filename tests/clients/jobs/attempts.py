"""How often a job was tried, counted in Redis itself."""

import os

import redis

connection = redis.Redis.from_url(os.environ["REDIS_URL"])


def tried(name: str) -> int:
    """Count one more attempt."""
    return connection.incr(f"tried:{name}")
