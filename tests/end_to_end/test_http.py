"""The HTTP contract against the running server: whatever comes over the wire is answered in order, and never stored by halves."""

import hashlib
import http.client
import json
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import MySQLdb
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.end_to_end.platform import Answer, Platform, wait_until

PATH = "/api/v1/notifications"
BODY = {"recipient": "ada@example.com", "subject": "Welcome", "message": "Welcome to NotifyX"}
A_MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def server(prepared: Platform) -> Iterator[Platform]:
    """The API alone: what it accepts stays in its outbox."""
    prepared.overrides = {"RATE_LIMIT_RECIPIENT": "20/d"}
    prepared.reset()
    prepared.start("notification_api")
    yield prepared
    codes = prepared.stop_all()
    prepared.kill_all()
    assert set(codes.values()) == {0}, codes


@pytest.fixture
def api(server: Platform) -> Iterator[Platform]:
    """After each test the logs hold no traceback, and each notification has its event."""
    yield server
    assert list(server.logs("traceback", '"exception"', "panicked", "internal server error")) == []
    orphans = "id NOT IN (SELECT aggregate_id FROM outbox_events)"
    assert server.count("notification", "notifications", orphans) == 0
    assert server.count("notification", "outbox_events") == server.count("notification", "notifications")


def wire(api: Platform, request: bytes) -> Answer:
    """What the server answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as channel:
        channel.sendall(request)
        response = http.client.HTTPResponse(channel)
        response.begin()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def head(api: Platform, *lines: bytes, path: str = PATH, host: str = "127.0.0.1") -> bytes:
    """The head of a POST with these further header lines."""
    first = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api.key}\r\nContent-Type: application/json\r\n"
    )
    return first.encode() + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def assert_problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (problem["code"], problem["status"]) == (code, status), problem
    assert problem["type"] == f"urn:notifyx:problem:{code}"
    assert problem["title"] and problem["detail"]  # noqa: PT018
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


def test_an_accepted_notification_is_answered_with_its_place_and_itself(api: Platform) -> None:
    answer = api.post(BODY | {"client_reference": "order 7", "metadata": {"a": "b"}}, idempotency_key="accepted")
    shown = answer.json()
    assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
    assert answer.headers["location"] == f"{PATH}/{shown['id']}" == shown["links"]["self"]
    assert answer.headers["ratelimit-policy"] == '"recipient";q=20;w=86400'
    expires = datetime.fromisoformat(answer.headers["idempotency-expires"])
    assert timedelta(hours=23) < expires - datetime.now(UTC) <= timedelta(hours=24)
    assert (shown["status"], shown["final"], shown["attempts"], shown["failure"]) == ("PENDING", False, 0, None)
    found = api.request("GET", answer.headers["location"])
    assert (found.status, found.json()) == (200, shown)
    assert api.request("GET", shown["links"]["self"], headers={"If-None-Match": found.headers["etag"]}).status == 304
    events = api.request("GET", shown["links"]["events"]).json()["events"]
    assert [entry["event"] for entry in events] == ["created"]


def test_a_batch_is_stored_as_a_whole_or_not_at_all(api: Platform) -> None:
    items = [BODY] * 3
    before = api.count("notification", "notifications")
    answer = api.request("POST", f"{PATH}/batch", {"notifications": items})
    assert (answer.status, [item["index"] for item in answer.json()["notifications"]]) == (202, [0, 1, 2])
    assert api.count("notification", "notifications") == before + 3
    wrong = [*items, BODY | {"subject": 5}, BODY | {"recipient": "nobody"}]
    problem = assert_problem(api.request("POST", f"{PATH}/batch", {"notifications": wrong}), 400, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == [
        "/notifications/3/subject",
        "/notifications/4/recipient",
    ]
    for size in (0, 1001):
        refused = api.request("POST", f"{PATH}/batch", {"notifications": [BODY] * size})
        assert assert_problem(refused, 400, "validation-failed")["errors"][0]["pointer"] == "/notifications"
    assert api.count("notification", "notifications") == before + 3


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"hello", b'{"recipient": NaN}', b"\xff\xfe\x00", b'{"subject": "\xc3\x28"}', b'{"subject": "\\ud800"}',
        b"[" * 200_000, b'{"a": 1} {"b": 2}', b"\xef\xbb\xbf{}", b'{"subject": "\x01"}', "{'recipient': 1}".encode("utf-16"),
    ],
    ids=lambda body: repr(body[:16]),
)  # fmt: skip
def test_a_body_that_is_no_json_is_malformed(api: Platform, body: bytes) -> None:
    assert_problem(api.request("POST", PATH, body), 400, "malformed-json")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"recipient": 5}, "/recipient"), ({"recipient": True}, "/recipient"), ({"recipient": None}, "/recipient"),
        ({"recipient": "nobody"}, "/recipient"), ({"recipient": "a@b"}, "/recipient"), ({"recipient": ["a@b.de"]}, "/recipient"),
        ({"recipient": "a@example.com\r\nBcc: b@example.com"}, "/recipient"), ({"recipient": f"{'a' * 64}@{'b' * 190}.de"}, "/recipient"),
        ({"reply_to": "a@b.de, c@d.de"}, "/reply_to"), ({"reply_to": {}}, "/reply_to"),
        ({"subject": 1.5}, "/subject"), ({"subject": "a\nb"}, "/subject"), ({"subject": "a\0b"}, "/subject"),
        ({"subject": "s" * 256}, "/subject"), ({"subject": ""}, "/subject"), ({"message": False}, "/message"),
        ({"message": "m" * (512 * 1024 + 1)}, "/message"), ({"message": "é" * (256 * 1024 + 1)}, "/message"),
        ({"message": "\x01" * 160_000}, "/message"), ({"html": 7}, "/html"), ({"client_reference": "c" * 129}, "/client_reference"),
        ({"metadata": []}, "/metadata"), ({"metadata": {"a": 1}}, "/metadata/a"), ({"metadata": {"a": {"b": "c"}}}, "/metadata/a"),
        ({"metadata": {f"k{n}": "" for n in range(21)}}, "/metadata"), ({"metadata": {"k" * 65: "v"}}, "/metadata"),
        ({"metadata": {"k": "v" * 513}}, "/metadata/k"), ({"send_after": "tomorrow"}, "/send_after"),
        ({"send_after": "2030-01-01T00:00:00"}, "/send_after"), ({"send_after": "9999-12-31T23:59:59-01:00"}, "/send_after"),
        ({"send_after": 1893456000}, "/send_after"), ({"send_before": "2020-01-01T00:00:00Z"}, "/send_before"),
        ({"on_uncertain": "maybe"}, "/on_uncertain"), ({"on_uncertain": True}, "/on_uncertain"), ({"colour": "red"}, "/colour"),
    ],
    ids=lambda value: str(value)[:40].encode("unicode_escape").decode() if isinstance(value, dict) else value,
)  # fmt: skip
def test_a_wrong_field_is_named_and_nothing_is_stored(api: Platform, change: dict[str, Any], pointer: str) -> None:
    before = api.count("notification", "notifications")
    body = json.dumps(BODY | change, ensure_ascii=False).encode()
    answer = api.request("POST", PATH, body, headers={"Idempotency-Key": "burns-no-key"})
    problem = assert_problem(answer, 400, "validation-failed")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert all(error["code"] and error["detail"] for error in problem["errors"])
    assert api.count("notification", "notifications") == before


@pytest.mark.parametrize("body", [b"", b"[]", b'[{"recipient": 1}]', b'"text"', b"5", b"null", b"true", b"{}"])
def test_a_body_of_another_shape_is_a_validation_error(api: Platform, body: bytes) -> None:
    for path in (PATH, f"{PATH}/batch"):
        assert_problem(api.request("POST", path, body), 400, "validation-failed")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ("recipient", "subject", "message", "html", "reply_to", "client_reference", "metadata", "send_after", "send_before",
     "on_uncertain", "notifications", "id", "status")
)  # fmt: skip
ALMOST = st.builds(lambda change: BODY | change, st.dictionaries(FIELDS, JSON | st.emails(), max_size=3))
ANY_BODY = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda body: json.dumps(body).encode(), JSON | ALMOST),
    st.builds(lambda items: json.dumps({"notifications": items}).encode(), st.lists(ALMOST, max_size=3)),
)


def test_no_body_at_all_makes_a_server_error(api: Platform) -> None:
    @settings(
        max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
    )
    @given(ANY_BODY, st.sampled_from((PATH, f"{PATH}/batch")), st.booleans())
    def send(body: bytes, path: str, with_key: bool) -> None:
        headers = {"Idempotency-Key": hashlib.sha256(body).hexdigest()} if with_key else None
        answer = api.request("POST", path, body, headers=headers)
        assert answer.status in (202, 400, 429), answer
        assert b"Traceback" not in answer.body
        if answer.status != 202:
            assert answer.headers["content-type"] == "application/problem+json"

    send()


@pytest.mark.parametrize(("path", "limit"), [(PATH, A_MEBIBYTE), (f"{PATH}/batch", 8 * A_MEBIBYTE)])
def test_a_body_over_the_limit_is_refused_without_being_read(api: Platform, path: str, limit: int) -> None:
    # Only a part of the body is ever sent: a server that read on would never answer.
    answer = wire(api, head(api, f"Content-Length: {limit + 1}".encode(), path=path) + b'{"subject": "' + b"x" * 5000)
    assert_problem(answer, 413, "body-too-large")


def test_a_chunked_body_needs_a_length(api: Platform) -> None:
    chunk = json.dumps(BODY).encode()
    body = f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n0\r\n\r\n"
    assert_problem(wire(api, head(api, b"Transfer-Encoding: chunked") + body), 411, "length-required")


@pytest.mark.parametrize(
    "length", [b"Content-Length: many", b"Content-Length: -1", b"Content-Length: 99999999999999999999"]
)
def test_a_length_that_is_none_is_refused(api: Platform, length: bytes) -> None:
    assert wire(api, head(api, length) + b"{}").status == 400


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.example.com", "a b", "_"])
def test_another_host_is_refused(api: Platform, host: str) -> None:
    answer = wire(api, f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api.key}\r\n\r\n".encode())
    assert_problem(answer, 400, "bad-request")


UNKNOWN = f"{PATH}/0190a7f0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("request_line", "header", "refusal"),
    [
        ("GET /nowhere", None, "404 not-found"), ("GET /api/v1/nowhere", None, "404 not-found"),
        (f"GET {PATH}/7", None, "404 not-found"), (f"GET {PATH}/%ff%00", None, "404 not-found"),
        (f"GET {UNKNOWN}", None, "404 not-found"), (f"POST {UNKNOWN}/cancel", None, "404 not-found"),
        (f"PUT {PATH}", None, "405 method-not-allowed"), (f"DELETE {UNKNOWN}", None, "405 method-not-allowed"),
        (f"GET {PATH}/batch", None, "405 method-not-allowed"), (f"BREW {PATH}", None, "405 method-not-allowed"),
        (f"GET {PATH}", "Accept: application/xml", "406 not-acceptable"),
        (f"POST {PATH}", "Content-Type: text/plain", "415 unsupported-media-type"),
        (f"POST {PATH}", "Content-Type: application/x-www-form-urlencoded", "415 unsupported-media-type"),
        (f"POST {PATH}", "Content-Type: no type", "415 unsupported-media-type"),
        (f"GET {PATH}?limit=0", None, "400 validation-failed"), (f"GET {PATH}?limit=1&limit=2", None, "400 validation-failed"),
        (f"GET {PATH}?status=sent", None, "400 validation-failed"), (f"GET {PATH}?recipient=%00", None, "400 validation-failed"),
        (f"GET {PATH}?cursor=%ff!", None, "400 validation-failed"), (f"GET {PATH}?colour=red", None, "400 validation-failed"),
        (f"GET {PATH}?created_from=0001-01-01T00:00:00%2B14:00", None, "400 validation-failed"),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_a_problem(api: Platform, request_line: str, header: str | None, refusal: str) -> None:
    method, path = request_line.split(" ")
    body = json.dumps(BODY).encode() if method in ("POST", "PUT") else None
    answer = api.request(method, path, body, headers=dict([header.split(": ")]) if header else None)
    status, code = refusal.split(" ")
    assert_problem(answer, int(status), code)


def test_the_ends_of_time_and_of_text_are_searched_without_an_error(api: Platform) -> None:
    for query in ("created_from=0001-01-01T00:00:00Z", "created_to=9999-12-31T23:59:59Z", "recipient=%ff"):
        assert api.request("GET", f"{PATH}?{query}").status in (200, 400)


def test_strangers_are_refused_and_other_clients_see_nothing(api: Platform) -> None:
    notification_id = api.post(idempotency_key="of-the-first-client").json()["id"]
    for wrong in (None, "nonsense", "nx_a_b", api.key + "x", api.key[:-1], f"nx_{'0' * 10}_{'a' * 43}"):
        refused = api.request("GET", PATH, key=wrong)
        assert_problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    unreadable = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ".encode() + b"\xff\r\n\r\n"
    assert wire(api, unreadable).status in (400, 401)
    reader = api.manage("notification_project", "create_api_key", f"reader{api.port}", "--scopes", "read").strip()
    assert_problem(api.request("POST", PATH, BODY, key=reader), 403, "permission-denied")
    assert_problem(api.request("GET", f"{PATH}/{notification_id}", key=reader), 404, "not-found")
    assert api.request("GET", PATH, key=reader).json() == {"results": [], "next": None}
    for path in ("/health/live", "/health/ready", "/api/v1/schema/"):
        assert api.request("GET", path, key=None).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        [b"Idempotency-Key: one", b"Idempotency-Key: two"], [b"Idempotency-Key: one", b"idempotency-key: one"],
        [b"Idempotency-Key:"], [b"Idempotency-Key:  "], [b"Idempotency-Key: a,b"], [b"Idempotency-Key: a b"],
        [b'Idempotency-Key: "a'], [b'Idempotency-Key: ""'], [b"Idempotency-Key: " + b"k" * 256], [b"Idempotency-Key: caf\xe9"],
        ["Idempotency-Key: Grüße".encode()], [b"Idempotency-Key: \x7f"],
    ],
    ids=lambda lines: repr(lines[-1][:30]),
)  # fmt: skip
def test_a_header_that_is_no_key_is_an_error(api: Platform, lines: list[bytes]) -> None:
    body = json.dumps(BODY).encode()
    answer = wire(api, head(api, *lines, f"Content-Length: {len(body)}".encode()) + body)
    if b"\x7f" in lines[0]:
        assert answer.status == 400  # the server's own: RFC 9110 5.5 has no such value
        return
    assert assert_problem(answer, 400, "validation-failed")["errors"][0]["pointer"] == "/Idempotency-Key"


def test_a_key_is_answered_byte_for_byte_and_never_with_another_body(api: Platform) -> None:
    first = api.post(BODY, idempotency_key="replayed")
    spelt = json.dumps(dict(reversed(BODY.items())), indent=2).encode()
    again = api.request("POST", PATH, spelt, headers={"Idempotency-Key": '"replayed"'})
    assert (again.status, again.body, again.headers["location"]) == (202, first.body, first.headers["location"])
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
    other = api.post(BODY | {"subject": "Other"}, idempotency_key="replayed")
    assert_problem(other, 422, "idempotency-key-reused")
    for key in ("Replayed", "replayed-"):
        assert api.post(BODY, idempotency_key=key).json()["id"] != first.json()["id"]
    batch = api.request("POST", f"{PATH}/batch", {"notifications": [BODY]}, headers={"Idempotency-Key": "replayed"})
    assert (batch.status, "idempotent-replayed" in batch.headers) == (202, False)


@pytest.mark.fault(6)
def test_a_key_that_is_being_executed_is_a_conflict_until_it_is_answered(api: Platform) -> None:
    body, url = BODY | {"recipient": "slow@example.com"}, urlsplit(api.services.databases().notification)
    client_id = api.sql("notification", "SELECT id FROM api_clients WHERE name = 'end-to-end'")[0][0]
    key_hash = hashlib.sha256(f"{client_id}\0POST\0{PATH}\0slow".encode()).digest()
    row: Any = MySQLdb.connect(
        host=url.hostname, port=url.port, user=url.username, password=unquote(url.password or ""), database=url.path[1:]
    )
    # The key's row, whose transaction stays open: whoever inserts it, too, waits.
    insert = "INSERT INTO idempotency_keys VALUES (%s, %s, 202, '', '', UTC_TIMESTAMP(), UTC_TIMESTAMP())"
    row.cursor().execute(insert, (key_hash, key_hash))
    with ThreadPoolExecutor(16) as pool, redis.Redis.from_url(api.services.redis.url()) as cache:
        first = pool.submit(api.post, body, idempotency_key="slow")
        wait_until(lambda: cache.exists(f"notifyx:idempotency:{key_hash.hex()}"), 5, "the first request has begun")
        # Some of them come to the server's other worker.
        others = [pool.submit(api.post, body, idempotency_key="slow") for _ in range(15)]
        conflict = next(as_completed(others)).result()
        row.rollback()
        row.close()
        assert_problem(conflict, 409, "in-progress")
        assert conflict.headers["retry-after"] == "1"
        assert {future.result().status for future in (first, *others)} <= {202, 409}
    assert api.post(body, idempotency_key="slow").status == 202
    assert api.count("notification", "notifications", "recipient = 'slow@example.com'") == 1


def post_at_once(api: Platform, key: str, recipient: str) -> list[Answer]:
    """50 of one key at a time; a 409 is repeated, as it asks for."""
    body = BODY | {"recipient": recipient}

    def post(_: int) -> Answer:
        while (answer := api.post(body, idempotency_key=key)).status == 409:
            pass
        return answer

    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(post, range(50)))


def assert_one_execution(api: Platform, answers: list[Answer], recipient: str) -> None:
    assert Counter(answer.status for answer in answers) == {202: 50}
    assert len({answer.body for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert api.count("notification", "notifications", f"recipient = '{recipient}'") == 1


@pytest.mark.fault(7)
def test_fifty_requests_with_one_key_make_one_notification_while_redis_forgets(api: Platform) -> None:
    with ThreadPoolExecutor(1) as pool, redis.Redis.from_url(api.services.redis.url()) as cache:
        answers = pool.submit(post_at_once, api, "forgotten", "forgotten@example.com")
        while not answers.done():
            cache.flushall()
        assert_one_execution(api, answers.result(), "forgotten@example.com")


@pytest.mark.fault(5, 7)
def test_fifty_requests_with_one_key_make_one_notification_without_redis(api: Platform) -> None:
    api.services.stop("redis")
    try:
        assert_one_execution(api, post_at_once(api, "away", "away@example.com"), "away@example.com")
    finally:
        api.services.start("redis")


@pytest.mark.fault(11)
def test_a_limit_that_is_used_up_refuses_says_until_when_and_burns_no_key(api: Platform) -> None:
    full = {"notifications": [BODY | {"recipient": "often@example.com"}] * 20}
    wait_until(lambda: "ratelimit" in api.post(BODY | {"recipient": "counted@example.com"}).headers, 30, "Redis counts")
    assert api.request("POST", f"{PATH}/batch", full).headers["ratelimit"].startswith('"recipient";r=0;t=')
    one = api.post(BODY | {"recipient": "often@example.com"}, idempotency_key="too-often")
    assert_problem(one, 429, "rate-limited")
    left_seconds = 86_400 - datetime.now(UTC).timestamp() % 86_400
    assert int(one.headers["retry-after"]) >= int(left_seconds)
    batch = {"notifications": [BODY | {"recipient": "seldom@example.com"}, BODY | {"recipient": "often@example.com"}]}
    problem = assert_problem(api.request("POST", f"{PATH}/batch", batch), 429, "rate-limited")
    assert [error["pointer"] for error in problem["errors"]] == ["/notifications/1/recipient"]
    assert api.count("notification", "notifications", "recipient = 'seldom@example.com'") == 0
    with redis.Redis.from_url(api.services.redis.url()) as cache:
        cache.flushall()  # as a window's end
    assert api.post(BODY | {"recipient": "often@example.com"}, idempotency_key="too-often").status == 202


@pytest.mark.fault(16)
def test_nothing_is_taken_while_the_outbox_is_too_old(api: Platform) -> None:
    old = api.post(BODY | {"recipient": "old@example.com"}).json()["id"]
    age = "UPDATE outbox_events SET due_at = UTC_TIMESTAMP() - INTERVAL %s DAY WHERE aggregate_id = %s"
    api.sql("notification", age, [3, old])

    def refused() -> bool:
        return api.post(BODY).status == 503

    wait_until(refused, 10, "POST is refused")
    wait_until(refused, 10, "the other worker refuses, too")
    answer = api.post(BODY, idempotency_key="refused")
    assert_problem(answer, 503, "outbox-too-old")
    assert int(answer.headers["retry-after"]) > 0
    api.sql("notification", age, [0, old])
    wait_until(lambda: not refused(), 10, "POST is taken")
    taken = api.post(BODY, idempotency_key="refused")
    assert (taken.status, "idempotent-replayed" in taken.headers) == (202, False)
