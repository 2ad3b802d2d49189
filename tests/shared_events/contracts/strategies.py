"""Any event of each type, as hypothesis makes them."""

from datetime import UTC

from hypothesis import strategies as st

from shared_events.contracts.events import (
    AnyEvent,
    Attempt,
    DeadLetterRecorded,
    EmailDeferred,
    EmailFailed,
    EmailNotificationCreated,
    EmailReplayed,
    EmailResolutionRequested,
    EmailSent,
    EmailStatusKnown,
    EmailUncertain,
    Failure,
    Uncertain,
)

INTEGERS = st.integers(0, 2**31)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]), max_size=40
)  # lone surrogates are no text: the API refuses them
INSTANTS = st.datetimes(timezones=st.just(UTC))
MAYBE_TEXT = st.none() | TEXT
MAYBE_INSTANT = st.none() | INSTANTS
ATTEMPTS = st.builds(
    Attempt,
    n=INTEGERS,
    at=INSTANTS,
    phase=TEXT,
    outcome=TEXT,
    code=st.none() | INTEGERS,
    enhanced_code=MAYBE_TEXT,
    reply=TEXT,
    host=TEXT,
)
ENVELOPE = {
    "event_id": st.uuids(),
    "notification_id": st.uuids(),
    "status_version": INTEGERS,
    "occurred_at": INSTANTS,
    "producer": TEXT,
}
STATUS = ENVELOPE | {
    "attempts": st.lists(ATTEMPTS, max_size=3),
    "possible_duplicates": INTEGERS,
    "generation": INTEGERS,
}

EVENTS: dict[type[AnyEvent], st.SearchStrategy[AnyEvent]] = {
    EmailResolutionRequested: st.builds(
        EmailResolutionRequested,
        **ENVELOPE,
        resolution=st.sampled_from(["delivered", "not_delivered", "resend"]),
        reason=TEXT,
        operator=TEXT,
        generation=INTEGERS,
    ),
    EmailStatusKnown: st.builds(
        EmailStatusKnown,
        **STATUS,
        status=st.sampled_from(["PENDING", "SENT", "FAILED", "UNCERTAIN"]),
        sent_at=MAYBE_INSTANT,
    ),
    EmailNotificationCreated: st.builds(
        EmailNotificationCreated,
        **ENVELOPE,
        recipient=TEXT,
        subject=TEXT,
        message=TEXT,
        html=MAYBE_TEXT,
        reply_to=MAYBE_TEXT,
        created_at=INSTANTS,
        send_after=MAYBE_INSTANT,
        send_before=MAYBE_INSTANT,
        on_uncertain=st.sampled_from(["resend", "hold"]),
    ),
    EmailSent: st.builds(EmailSent, **STATUS, sent_at=INSTANTS),
    EmailFailed: st.builds(
        EmailFailed, **STATUS, failure=st.builds(Failure, failure_class=TEXT, code=TEXT, detail=TEXT)
    ),
    EmailDeferred: st.builds(EmailDeferred, **STATUS, next_attempt_at=MAYBE_INSTANT),
    EmailUncertain: st.builds(
        EmailUncertain,
        **STATUS,
        uncertain=st.builds(Uncertain, phase=TEXT, since=INSTANTS, host=TEXT, message_id=TEXT, next=TEXT),
    ),
    EmailReplayed: st.builds(EmailReplayed, **STATUS),
}

DEAD_LETTERS = st.builds(
    DeadLetterRecorded,
    event_id=st.uuids(),
    notification_id=st.none() | st.uuids(),
    occurred_at=INSTANTS,
    producer=TEXT,
    identity=TEXT,
    letter_class=TEXT,
    cause=TEXT,
    source_topic=MAYBE_TEXT,
    source_partition=st.none() | INTEGERS,
    source_offset=st.none() | INTEGERS,
    original=st.binary(max_size=200),
    original_size=INTEGERS,
    original_sha256=TEXT,
    truncated=st.booleans(),
)
