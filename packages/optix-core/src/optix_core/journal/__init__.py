"""What happened in a run, event by event: append-only, a checksum per line, read by reports, replay and resume."""

from optix_core.journal import events
from optix_core.journal.journal import Entry, Journal, read_events, read_journal

__all__ = ["Entry", "Journal", "events", "read_events", "read_journal"]
