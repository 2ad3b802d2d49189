"""The outbox's hook: what becomes of a status event that can never be published."""

from collections.abc import Sequence
from uuid import UUID

from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.dead_letters.unpublishable import record_unpublishable


def report_events(given_up: Sequence[tuple[UUID, str]]) -> None:
    """A dead letter each; the reconciler will ask for the state again."""
    record_unpublishable(given_up, topic=NOTIFICATION_STATUS)
