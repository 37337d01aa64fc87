"""What a run tells afterwards: its story, its decisions replayed, its curve judged and drawn."""

from optix_core.reporting.replay import Mismatch, Replay, replay_decisions
from optix_core.reporting.story import Section, Table, tell

__all__ = ["Mismatch", "Replay", "Section", "Table", "replay_decisions", "tell"]
