"""Members of sorted sets in a transaction."""

from __future__ import annotations

from layout import Header, pack_score, score_in, score_key, unpack_score
from txn_hashes import HashesTxn


class SortedSetsTxn(HashesTxn):
    """Reads and changes of the members of sorted sets, which are elements with an order by score."""

    def score(self, header: Header, member: bytes) -> float | None:
        """Return the score of a sorted set's member, or None."""
        blob = self.get(header, member)
        return None if blob is None else unpack_score(blob)

    def set_score(self, header: Header, member: bytes, score: float) -> bool:
        """Store a member of a sorted set; return whether it is new."""
        self._is_changed = True
        score += 0.0  # -0.0 becomes 0.0, as in the order
        old = self.score(header, member)
        if old is not None:
            self._raw.delete(score_key(header, member, old), db=self._db.scores)
        self._raw.put(score_key(header, member, score), member, db=self._db.scores)
        return self.put(header, member, pack_score(score))

    def pop_score(self, header: Header, member: bytes) -> bool:
        """Remove a member of a sorted set; return whether it existed."""
        score = self.score(header, member)
        if score is None:
            return False
        self._is_changed = True
        self._raw.delete(score_key(header, member, score), db=self._db.scores)
        return self.pop(header, member)

    def ranked(self, header: Header | None) -> list[tuple[bytes, float]]:
        """Return all members of a sorted set with their scores, lowest first."""
        if header is None:
            return []
        found = []
        with self._raw.cursor(self._db.scores) as cursor:
            more = cursor.set_range(header.prefix)
            while more and (key := bytes(cursor.key())).startswith(header.prefix):
                found.append((bytes(cursor.value()), score_in(key)))
                more = cursor.next()
        return found
