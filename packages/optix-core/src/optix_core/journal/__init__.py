"""What happened in a run, event by event: append-only, a checksum per line, read by reports, replay and resume."""

from optix_core.journal.journal import Journal, read_events

__all__ = ["Journal", "read_events"]
