"""Elements of hashes and sets in a transaction."""

from __future__ import annotations

from layout import Header, element_key, pack_value, unpack_element, unpack_value
from txn_base import BaseTxn


class HashesTxn(BaseTxn):
    """Reads and changes of the elements of hashes and sets."""

    def get(self, header: Header, field: bytes) -> bytes | None:
        """Return the value of an element of a hash or a set, or None."""
        blob = self._get(element_key(header, field), db=self._db.elements)
        return None if blob is None else unpack_value(field, bytes(blob))

    def put(self, header: Header, field: bytes, value: bytes = b"") -> bool:
        """Store an element of a hash or a set (``value`` b""); return whether it is new."""
        self._is_changed = True
        key = element_key(header, field)
        value = pack_value(field, value)
        new = self._raw.put(key, value, db=self._db.elements, overwrite=False)
        if new:
            header.count += 1
        else:
            self._raw.put(key, value, db=self._db.elements)
        return bool(new)

    def pop(self, header: Header, field: bytes) -> bool:
        """Delete an element of a hash or a set; return whether it existed."""
        self._is_changed = True
        existed = bool(self._raw.delete(element_key(header, field), db=self._db.elements))
        header.count -= existed
        return existed

    def items(self, header: Header | None) -> list[tuple[bytes, bytes]]:
        """Return all elements of a hash or a set, with their values."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.elements) as cursor:
            more = cursor.set_range(header.prefix)
            while more and (key := bytes(cursor.key())).startswith(header.prefix):
                found.append(unpack_element(key, bytes(cursor.value())))
                more = cursor.next()
        return found

    def members(self, header: Header | None) -> set[bytes]:
        """Return the members of a set."""
        return {field for field, _ in self.items(header)}
