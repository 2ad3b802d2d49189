"""The refusals of this API that have a meaning of their own."""

from shared_events.service.problems import Problem


def in_progress() -> Problem:
    return Problem(
        409,
        "in-progress",
        "A request with this Idempotency-Key is being executed right now. Repeat it.",
        retry_after_seconds=1,
    )


def key_reused() -> Problem:
    return Problem(
        422,
        "idempotency-key-reused",
        "This Idempotency-Key was used with another body. Use a new key for a new request.",
    )


def busy() -> Problem:
    return Problem(
        503,
        "database-busy",
        "The database could not settle this among others; nothing was stored. Repeat it.",
        retry_after_seconds=1,
    )


def outcome_unknown(*, with_key: bool) -> Problem:
    remedy = (
        "Repeat the request with the same Idempotency-Key: it is executed at most once."
        if with_key
        else "Look for it by client_reference before you repeat it; with an Idempotency-Key you could simply repeat it."
    )
    return Problem(
        503, "outcome-unknown", f"The database went away while it stored this. {remedy}", retry_after_seconds=2
    )


def outbox_too_old(age_seconds: float) -> Problem:
    return Problem(
        503,
        "outbox-too-old",
        f"The oldest undelivered event has been waiting for {age_seconds:.0f} s: no more is taken until events are published again.",
        retry_after_seconds=30,
    )


def not_cancellable(status: str) -> Problem:
    return Problem(409, "not-cancellable", f"It is on its way already; its status is {status}.")


def not_uncertain(status: str) -> Problem:
    return Problem(409, "not-uncertain", f"Only an UNCERTAIN notification can be resolved; its status is {status}.")
