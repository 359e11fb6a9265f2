"""Keyspace notifications: messages to subscribers about what was done to keys, if a setting wants them."""

from __future__ import annotations

from collections.abc import Iterable

from linepool import PubSub

SETTING = "notify-keyspace-events"
_CLASSES = {
    "g": "del expire persist rename_from rename_to copy_to move_from move_to restore",
    "$": "set pfadd setrange append incrby incrbyfloat setbit",
    "l": "lpush rpush lpop rpop linsert lset lrem ltrim sortstore",
    "s": "sadd srem spop sinterstore sunionstore sdiffstore",
    "h": "hset hincrby hincrbyfloat hdel",
    "z": "zadd zincr zrem zremrangebyscore zremrangebyrank zremrangebylex zpopmin zpopmax"
    " zrangestore zunionstore zinterstore zdiffstore",
    "t": "xadd xdel xtrim xsetid xgroup-create xgroup-createconsumer xgroup-delconsumer xgroup-destroy"
    " xgroup-setid",
    "x": "expired",
    "n": "new",
}
CLASS_OF = {name: letter for letter, names in _CLASSES.items() for name in names.split()}
"""The letter of the setting for each event."""
_IN_A = "g$lshzxetd"

Event = tuple[int, str, bytes]
"""The number of the database, the event's name, the key."""


def wanted(setting: str) -> str:
    """Return the letters of the setting; "": no notification is wanted."""
    letters = setting.replace("A", _IN_A)
    return letters if "K" in letters or "E" in letters else ""


def publish(events: Iterable[Event], letters: str, pubsub: PubSub) -> None:
    """Publish events, by key (K) and by event (E)."""
    for database, name, key in events:
        if "K" in letters:
            pubsub.publish(b"__keyspace@%d__:%b" % (database, key), name.encode())
        if "E" in letters:
            pubsub.publish(b"__keyevent@%d__:%b" % (database, name.encode()), key)
