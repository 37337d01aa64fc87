"""Which snapshots there are, in memory: the best, the order by score, who has to go."""

from __future__ import annotations

from dataclasses import dataclass, field

from optix_core.checkpoints._records import Record


@dataclass
class SnapshotIndex:
    """The snapshots of a run by number.

    Attributes:
        records: what is known of each.
        marked: the one that somebody called the best, or None.
    """

    records: dict[int, Record] = field(default_factory=dict)
    marked: int | None = None

    def ids(self) -> list[int]:
        """Return the numbers in the order of saving."""
        return sorted(self.records)

    def ranking(self) -> list[int]:
        """Return the numbers, the best first: the marked one, then by score, the earlier of equals first."""
        return sorted(self.records, key=lambda i: (i != self.marked, -self.records[i].score, i))

    def best(self) -> int | None:
        """Return the first of the ranking, or None."""
        return next(iter(self.ranking()), None)

    def prune(self, limit: int, *, newest: int) -> list[Record]:
        """Take out the lowest scores until ``limit`` are left; never the best nor the newest."""
        victims = []
        while len(self.records) > limit:
            candidates = self.records.keys() - {newest, self.best()}
            worst = min(candidates, key=lambda i: (self.records[i].score, i))
            victims.append(self.records.pop(worst))
        return victims
