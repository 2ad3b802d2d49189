"""The faults that NotifyX is built for: a number that tests name (`@pytest.mark.fault(13)`), and what must come of it.

Numbers are stable and have gaps: what is not built yet (34 and 35, 45, 54 and 55) keeps its number until it is.
"""

FAULTS: dict[int, str] = {
    1: (
        "The API process ends before COMMIT: nothing of the request exists, and the client's retry is executed afresh "
        "within 30 seconds at the latest."
    ),
    2: "The API process ends after COMMIT and before the answer left: the retry gets the stored 202, byte for byte.",
    3: "The API process ends after COMMIT and before Redis has the answer: the row answers, and Redis is filled again.",
    4: (
        "The connection is lost during COMMIT: 503 `outcome-unknown`; the same key settles it, and without a key the "
        "client is told to look by `client_reference`."
    ),
    5: (
        "Two equal requests come at once, without Redis: the row's key lets one through, the other replays it or is "
        "told to repeat; there is one notification."
    ),
    6: "A key comes with another body, also while the first is executed: 409 or 422, never an execution.",
    7: "Redis is emptied, evicts a key, is silent or away: no duplicate and no 5xx; the limits are open meanwhile.",
    8: "The mark in Redis expires while its request is still executed: the row lets only one through.",
    9: (
        "A deadlock (1213) runs the whole transaction again, three times at most; a lock wait time-out (1205) rolls "
        "all of it back, and a POST answers 409."
    ),
    10: "A body that a column or a Kafka record could not hold is refused by the API, never found out by the relay.",
    11: "A request that is limited, invalid or not authenticated leaves its key unused.",
    12: (
        "CR, LF or NUL in a header field is refused; hosts beyond ASCII are IDNA-encoded, local parts beyond ASCII "
        "need a server with SMTPUTF8."
    ),
    13: (
        "A relay ends between claim and publish: the lease runs out and another publishes; a row that keeps ending "
        "its workers is found out alone and given up."
    ),
    14: (
        "A relay ends between publish and acknowledgement: the same event is published again, and the consumer knows "
        "it."
    ),
    15: (
        "A relay ends between acknowledgement and its settlement: the same event is published again, and the consumer "
        "knows it."
    ),
    16: (
        "Kafka is away for hours: events stay as they are and cost nothing; POST is accepted until the outbox is too "
        "old, then answered 503."
    ),
    17: (
        "Only a delivery report without an error makes an event published; no report, a time-out or a purge leaves it "
        "due."
    ),
    18: (
        "The producer is idempotent with acks=all and its time-out is shorter than the lease; after a fatal error it "
        "is made anew."
    ),
    19: (
        "A record that the broker refuses for its own sake costs that event alone; an unknown topic or a missing "
        "permission pauses and costs nothing."
    ),
    20: "A relay that lost its lease wakes up: it changes nothing, and says how many rows it lost.",
    21: "Reports of a notification come in any order: the highest version stays, and SENT always wins.",
    22: (
        "An event with an older id is committed after newer ones were published: it is published, as rows are found "
        "by being due."
    ),
    23: (
        "Claims run at READ COMMITTED, which is asserted at start, walk one index, and neither wait for one another "
        "nor share a row."
    ),
    24: "A wake-up is lost: polling finds the row all the same.",
    25: (
        "SIGTERM in the midst of a batch: nothing new is claimed, what was acknowledged is settled, the rest is due "
        "again at once."
    ),
    26: "A consumer ends before its transaction is committed: the records come again.",
    27: "A consumer ends between its transaction and the offsets: the records come again and change nothing.",
    28: (
        "Partitions move in the midst of a batch: what went is left to its new owner, and no offset is committed out "
        "of order."
    ),
    29: (
        "A record that cannot be read is kept whole as a dead letter before its offset is committed; its neighbours "
        "go on."
    ),
    30: (
        "The consumer's database is away: partitions are paused, nothing is committed or made a dead letter, and it "
        "goes on by itself."
    ),
    31: (
        "A notification arrives once more, as the same event or another: it is known by its id, and no second mail is "
        "sent."
    ),
    32: "The whole topic is read again: nothing is sent again; the retention that makes this safe is checked at start.",
    33: (
        "Kafka's records are gone before they were consumed: the reconciler publishes again, from events that are "
        "kept until their notification is final."
    ),
    36: (
        "A sender ends after its claim and before the mark of DATA: provably not sent, so it is sent, and no copy is "
        "counted."
    ),
    37: "A sender ends with the mark set and no outcome: uncertain, and `on_uncertain` decides.",
    38: (
        "The answer to the final dot does not come, with 600 seconds of patience for that one: uncertain, never "
        "failed; the same mail again, as a counted copy, or held."
    ),
    39: "The database is away after a 250: the outcome is written as soon as it is back, and nothing is sent again.",
    40: "The server answers QUIT oddly or not at all after a 250: the mail is SENT.",
    41: (
        "The server is away, gives up (421), fails a handshake or a name look-up: its circuit opens, and no mail is "
        "charged; a kept connection that died is opened again once."
    ),
    42: (
        "The server refuses the login: sending pauses with the reason shown, no mail fails, and it goes on when that "
        "is mended."
    ),
    43: (
        "A transient refusal (4xx) is tried again after a growing, jittered wait that honours hints and greylisting, "
        "until the budget or `send_before` ends it."
    ),
    44: (
        "A permanent refusal (5xx) fails the mail with its class and the server's words; an enhanced code outweighs "
        "the basic one."
    ),
    46: (
        "All attempts of a mail are the same bytes but for a header that marks copies, so that receivers can collapse "
        "them."
    ),
    47: (
        "A sender loses its lease while a mail is on its way: a 250 is written all the same and further copies are "
        "counted; any other outcome is not written."
    ),
    48: (
        "A server comes back to many waiting mails: one probe first, then bounded claims and jittered times, never "
        "all at once."
    ),
    49: (
        "`send_before` passes on the way: FAILED as `expired`, judged last before DATA; a mail that may have arrived "
        "stays uncertain."
    ),
    50: "A mail that keeps ending its workers becomes a dead letter after 20 claims without an outcome.",
    51: (
        "An outcome and its report are one transaction; a report that is not newer changes nothing, and SENT always "
        "wins."
    ),
    52: "A report about an unknown notification is kept as the dead letter `orphan_status` and can be replayed.",
    53: "A report arrives twice or late: nothing changes, and its offset is committed.",
    56: "A dead letter's event cannot be published: the dead letter is a row, which stays, and makes no further one.",
    57: "Two operators replay or resolve the same thing: the second changes nothing.",
    58: "A replay of what was meanwhile sent, cancelled, expired or is uncertain is left out and said.",
    59: "A replay of what is older than the retention that would know a second copy is refused.",
    60: (
        "The clocks of machines differ or jump: leases, due times and deadlines go by the database's clock, time-outs "
        "by a monotonic one."
    ),
    61: "A database is restored to an older state: both sides agree again, and nothing is sent again by itself.",
    62: (
        "Versions run side by side: unknown fields are ignored, newer schemas and types are parked and released by "
        "the version that can read them."
    ),
    63: (
        "`prune` deletes only what is final and past its retention, in small batches; a failure stays until it was "
        "replayed or dismissed."
    ),
    64: (
        "The database's disk is full: POST answers 503 and leaves nothing half written, workers wait, and their "
        "logs name the cause."
    ),
}
