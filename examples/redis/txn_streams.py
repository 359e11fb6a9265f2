"""Parts of streams in a transaction."""

from __future__ import annotations

from collections.abc import Iterator

from layout import Header
from txn_base import BaseTxn


class StreamsTxn(BaseTxn):
    """Reads and changes of the parts of streams."""

    def part(self, header: Header, name: bytes) -> bytes | None:
        """Return a part of a stream, which has entries, groups and others, each with a name; or None."""
        blob = self._get(header.prefix + name, None, self._db.elements)
        return None if blob is None else bytes(blob)

    def set_part(self, header: Header, name: bytes, value: bytes) -> None:
        """Store a part of a stream."""
        self._is_changed = True
        self._raw.put(header.prefix + name, value, db=self._db.elements)

    def drop_part(self, header: Header, name: bytes) -> bool:
        """Delete a part of a stream; return whether it existed."""
        self._is_changed = True
        return bool(self._raw.delete(header.prefix + name, db=self._db.elements))

    def parts(
        self, header: Header, first: bytes, last: bytes, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the parts of a stream from one name to another, both included; with ``reverse`` backwards."""
        start = len(header.prefix)
        names = header.prefix + first, header.prefix + last
        for key, value in self._range(self._db.elements, *names, reverse=reverse):
            yield key[start:], value
