"""Elements of lists in a transaction."""

from __future__ import annotations

from layout import Header, index_key
from txn_keys import KeysTxn


class ListsTxn(KeysTxn):
    """Reads and changes of the elements of lists."""

    def at(self, header: Header, index: int) -> bytes:
        """Return the element of a list at an index from 0."""
        return bytes(self._get(index_key(header, index), db=self._db.elements))

    def set_at(self, header: Header, index: int, value: bytes) -> None:
        """Replace the element of a list at an index."""
        self._is_changed = True
        self._raw.put(index_key(header, index), value, db=self._db.elements)

    def push(self, header: Header, value: bytes, *, left: bool) -> None:
        """Add an element at an end of a list."""
        if left:
            header.first -= 1
        header.count += 1
        self.set_at(header, 0 if left else header.count - 1, value)

    def pop_end(self, header: Header, *, left: bool) -> bytes:
        """Remove and return the element at an end of a list, which must not be empty."""
        self._is_changed = True
        key = index_key(header, 0 if left else header.count - 1)
        value = bytes(self._raw.pop(key, db=self._db.elements))
        header.first += left
        header.count -= 1
        return value

    def slice(self, header: Header | None, first: int, last: int) -> list[bytes]:
        """Return the elements of a list from one index to another, both included."""
        if header is None or last < first:
            return []
        with self._raw.cursor(self._db.elements) as cursor:
            cursor.set_key(index_key(header, first))
            values = cursor.iternext(keys=False, values=True)
            return [bytes(value) for value, _ in zip(values, range(first, last + 1), strict=False)]

    def replace_list(self, header: Header, values: list[bytes]) -> None:
        """Replace all elements of a list."""
        self.clear(header)
        for value in values:
            self.push(header, value, left=False)
