"""What a run tells afterwards: its story, its decisions replayed, its curve judged and drawn."""

from optix_core.reporting.replay import Mismatch, Replay, replay_decisions
from optix_core.reporting.story import Section, Table, render_story

__all__ = ["Mismatch", "Replay", "Section", "Table", "render_story", "replay_decisions"]
