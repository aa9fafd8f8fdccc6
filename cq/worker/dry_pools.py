"""
Dry pools: those for which a long look found nothing more.

The due rows of all pools stand in one index, so a pool without tasks of its own learns it by
reading those of the others: 40 ms with 80,000 rows before it, at every claim. While another
pool has more than it can take, such a look is not repeated before twenty times its length has
passed. Meanwhile the bells say which rows may be new, and those are tried by their ids, which
costs a probe each.
"""

from collections.abc import Collection, Sequence
from uuid import UUID

from cq.models.transitions import Want

LONG_SECONDS = 0.01
"""A look that took longer, and a little per row that it brought, has read past many rows."""
_PER_ROW_SECONDS = 0.0002
_SHARE = 20
_LONGEST_REST = 30.0
_MOST_IDS = 500


class DryPools:
    """Which pools rest until when, and the ids that were rung meanwhile; used on one loop."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, ...], float] = {}
        self._rung: dict[UUID, None] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def hear(self, ids: Sequence[UUID]) -> None:
        """Keep the ids of a bell for the pools that rest; the oldest go when they are many."""
        if self._until:
            self._rung |= dict.fromkeys(ids)
            for id in list(self._rung)[:-_MOST_IDS]:
                del self._rung[id]

    def split(self, wants: Sequence[Want], now: float) -> tuple[list[Want], list[Want]]:
        """The wants to look for in the table, and those whose pools still rest."""
        self._until = {names: until for names, until in self._until.items() if until > now}
        asked = [want for want in wants if want.names not in self._until]
        return asked, [want for want in wants if want.names in self._until]

    def take_ids(self, resting: Collection[Want]) -> list[UUID]:
        """What was rung; forgotten when no pool that rests is without room for it now."""
        ids = list(self._rung)
        if len(resting) == len(self._until):
            self._rung.clear()
        return ids

    def note(
        self, short: Sequence[Want], seconds: float, brought: int, now: float, *, is_crowded: bool
    ) -> bool:
        """
        After a look: the pools it came back short for, how long it took, what it brought.

        `is_crowded` tells whether another pool has left some of its rows; without them a long
        look was slow for another reason. Says whether pools that rested are awake again, and
        want a look themselves.
        """
        if is_crowded and seconds > LONG_SECONDS + _PER_ROW_SECONDS * brought:
            rest = min(_SHARE * seconds, _LONGEST_REST)
            self._until |= {want.names: now + rest for want in short}
            return False
        woken = bool(short and self._until)
        if woken:
            # It has read all due rows, and they are few again: nobody need rest.
            self._until.clear()
            self._rung.clear()
        return woken

    def seconds_left(self, now: float) -> float | None:
        """Until the first pool has rested."""
        return max(0.0, min(self._until.values()) - now) if self._until else None
