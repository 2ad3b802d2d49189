"""Every rule for a body, each with its JSON pointer; nothing is stored and no key is consumed."""

import json
from typing import Any

import pytest

from notification_project.notifications.models import IdempotencyKey, Notification
from shared_events.outbox.models import OutboxEvent
from tests.notification_project.conftest import Api, pointers
from tests.notification_project.factories import BodyFactory, ago, ahead

KIB_512 = 512 * 1024
STRICT_TEXTS = ("recipient", "subject", "message", "html", "reply_to", "client_reference", "send_after", "send_before")


def assert_refused(api: Api, body: Any, *expected: str) -> dict[str, str]:
    response = api.post(body, key="refused")
    assert response.status_code == 400, response.content
    problem = response.json()
    assert response["Content-Type"] == "application/problem+json"
    assert (problem["status"], problem["code"]) == (400, "validation-failed")
    assert problem["detail"] == "The request is not valid; nothing was stored. See errors."
    found = pointers(response)
    assert sorted(found) == sorted(expected)
    assert not any(model.objects.exists() for model in (Notification, OutboxEvent, IdempotencyKey))
    return found


@pytest.mark.parametrize("name", ["recipient", "subject", "message"])
def test_the_three_required_fields_may_not_be_missing_null_or_empty(api: Api, name: str) -> None:
    without = BodyFactory.build()
    del without[name]
    assert_refused(api, without, f"/{name}")
    assert_refused(api, BodyFactory.build(**{name: None}), f"/{name}")
    assert_refused(api, BodyFactory.build(**{name: ""}), f"/{name}")


@pytest.mark.parametrize("name", STRICT_TEXTS)
@pytest.mark.parametrize("value", [1, 1.5, True, False, ["x"], {"a": "b"}])
def test_a_value_of_another_type_is_no_text(api: Api, name: str, value: Any) -> None:
    assert_refused(api, BodyFactory.build(**{name: value}), f"/{name}")


@pytest.mark.parametrize("value", ["drop", "RESEND", "", 1, True, None, ["resend"], {"resend": 1}])
def test_on_uncertain_is_resend_or_hold(api: Api, value: Any) -> None:
    assert_refused(api, BodyFactory.build(on_uncertain=value), "/on_uncertain")


def test_a_word_that_is_none_of_a_few_is_answered_with_those(api: Api) -> None:
    response = api.post(BodyFactory.build(on_uncertain="drop"))
    assert [error["detail"] for error in response.json()["errors"]] == ["Must be one of: resend, hold."]


@pytest.mark.parametrize(
    ("name", "pointer"), [("cc", "/cc"), ("a/b~c", "/a~1b~0c"), ("x" * 100, "/" + "x" * 64), ("", "/")]
)
def test_an_unknown_field_is_an_error_at_its_pointer(api: Api, name: str, pointer: str) -> None:
    assert assert_refused(api, BodyFactory.build(**{name: "x"}), pointer)[pointer] == "unknown-field"


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", ["recipient", "subject", "reply_to"])
@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_line_breaks_and_nul_are_refused_in_header_fields(api: Api, name: str, character: str) -> None:
    good = "Welcome" if name == "subject" else "ada@example.com"
    assert_refused(api, BodyFactory.build(**{name: f"{good}{character}Bcc: eve@example.com"}), f"/{name}")
    assert_refused(api, BodyFactory.build(**{name: good + character}), f"/{name}")


@pytest.mark.fault(12)
@pytest.mark.parametrize("name", ["message", "html", "client_reference"])
def test_nul_is_refused_in_every_text(api: Api, name: str) -> None:
    assert_refused(api, BodyFactory.build(**{name: "a\0b"}), f"/{name}")


@pytest.mark.parametrize(
    "address",
    ["ada", "ada@", "@example.com", "ada@example", "a b@example.com", "Ada <ada@example.com>", "ada@exa_mple.com",
     "ada@example.com,eve@example.com", "ada@[127.0.0.1]", "ada@example..com", ".ada@example.com", "ada@-x.com", "ada@1"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["recipient", "reply_to"])
def test_what_is_no_address_is_refused(api: Api, name: str, address: str) -> None:
    assert_refused(api, BodyFactory.build(**{name: address}), f"/{name}")


def address_of(length: int) -> str:
    domain = ".".join(["d" * 60] * 4)
    return "a" * (length - 1 - len(domain + ".com")) + "@" + domain + ".com"


@pytest.mark.parametrize("name", ["recipient", "reply_to"])
def test_an_address_has_at_most_254_characters(api: Api, name: str) -> None:
    assert len(address_of(254)) == 254
    assert api.post(BodyFactory.build(**{name: address_of(254)})).status_code == 202
    Notification.objects.all().delete()
    OutboxEvent.objects.all().delete()
    assert_refused(api, BodyFactory.build(**{name: address_of(255)}), f"/{name}")


@pytest.mark.fault(10)
@pytest.mark.parametrize(("name", "most"), [("subject", 255), ("client_reference", 128)])
@pytest.mark.parametrize("character", ["a", "ä", "🎉"])
def test_texts_are_limited_in_characters(api: Api, name: str, most: int, character: str) -> None:
    assert_refused(api, BodyFactory.build(**{name: character * (most + 1)}), f"/{name}")
    assert api.post(BodyFactory.build(**{name: character * most})).json()[name] == character * most


@pytest.mark.fault(10)
@pytest.mark.parametrize("name", ["message", "html"])
@pytest.mark.parametrize("character", ["a", "ä"])
def test_bodies_are_limited_in_bytes_of_utf_8(api: Api, name: str, character: str) -> None:
    most = KIB_512 // len(character.encode())
    assert_refused(api, BodyFactory.build(**{name: character * most + "a"}), f"/{name}")
    assert api.post(BodyFactory.build(**{name: character * most})).status_code == 202


@pytest.mark.fault(10)
def test_the_encoded_event_has_at_most_900_000_bytes(api: Api) -> None:
    api.post(BodyFactory.build(recipient="ada@example.com", message='"', html='"'))
    frame = len(bytes(OutboxEvent.objects.get().payload)) - 4
    OutboxEvent.objects.all().delete()
    Notification.objects.all().delete()
    room = 900_000 - frame  # a quote is two bytes in JSON
    odd, quotes = room % 2, room // 2
    body = {"recipient": "ada@example.com", "message": '"' * 250_000, "html": '"' * (quotes - 250_000) + "a" * odd}
    tight = BodyFactory.build(**body)
    found = assert_refused(api, {**tight, "html": tight["html"] + "a"}, "/message")
    assert found["/message"] == "too-large"
    assert api.post(tight).status_code == 202
    assert len(bytes(OutboxEvent.objects.get().payload)) == 900_000


@pytest.mark.parametrize(
    ("metadata", "pointer"),
    [
        ([], "/metadata"), ("text", "/metadata"), (1, "/metadata"), (None, "/metadata"),
        ({"a": 1}, "/metadata/a"), ({"a": True}, "/metadata/a"), ({"a": None}, "/metadata/a"),
        ({"a": {"b": "c"}}, "/metadata/a"), ({"a": ["b"]}, "/metadata/a"), ({"a": "x" * 513}, "/metadata/a"),
        ({"a/b": 1}, "/metadata/a~1b"), ({"": "x"}, "/metadata"), ({"k" * 65: "x"}, "/metadata"), ({"a\0": "x"}, "/metadata"),
        ({"a": "x\0"}, "/metadata/a"), ({str(n): "x" for n in range(21)}, "/metadata"),
    ],
)  # fmt: skip
def test_metadata_is_flat_text_within_its_limits(api: Api, metadata: Any, pointer: str) -> None:
    assert_refused(api, BodyFactory.build(metadata=metadata), pointer)


def test_metadata_is_taken_up_to_its_limits(api: Api) -> None:
    metadata = {f"{n:064}": "ä" * 512 for n in range(19)} | {"empty": ""}
    assert api.post(BodyFactory.build(metadata=metadata)).json()["metadata"] == metadata


@pytest.mark.parametrize("name", ["send_after", "send_before"])
@pytest.mark.parametrize(
    "value", ["", "tomorrow", "2030-01-31", "2030-01-31T12:00:00", "2030-02-30T12:00:00Z", "2030-01-31T25:00:00Z",
              "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1893456000", "203\uff10-01-31T12:00:00Z"],
)  # fmt: skip
def test_a_time_needs_its_offset_and_must_exist(api: Api, name: str, value: str) -> None:
    assert_refused(api, BodyFactory.build(**{name: value}), f"/{name}")


def test_send_before_must_lie_ahead_and_after_send_after(api: Api) -> None:
    assert (
        assert_refused(api, BodyFactory.build(send_before=ago(seconds=1).isoformat()), "/send_before")["/send_before"]
        == "passed"
    )
    later, earlier = ahead(hours=2).isoformat(), ahead(hours=1).isoformat()
    assert_refused(api, BodyFactory.build(send_after=later, send_before=earlier), "/send_before")
    assert_refused(api, BodyFactory.build(send_after=later, send_before=later), "/send_before")
    assert api.post(BodyFactory.build(send_after=earlier, send_before=later)).status_code == 202


def test_send_after_lies_within_a_year(api: Api) -> None:
    assert (
        assert_refused(api, BodyFactory.build(send_after=ahead(days=367).isoformat()), "/send_after")["/send_after"]
        == "too-far"
    )
    assert api.post(BodyFactory.build(send_after=ahead(days=365).isoformat())).status_code == 202


def test_all_errors_of_a_body_are_said_at_once(api: Api) -> None:
    body = {"recipient": "ada", "subject": 1, "html": False, "cc": "x", "metadata": {"a": 1, "b": 2}}
    assert_refused(api, body, "/recipient", "/subject", "/message", "/html", "/cc", "/metadata/a", "/metadata/b")


@pytest.mark.parametrize("body", ["[]", "null", "1", '"text"', "true", "[{}]"])
def test_a_body_that_is_no_object_is_refused(api: Api, body: str) -> None:
    assert_refused(api, body, "")


MALFORMED = {
    "empty": b"", "cut off": b'{"recipient": "a', "trailing comma": b'{"a": 1,}', "nan": b'{"message": NaN}',
    "infinity": b'{"message": Infinity}', "half a surrogate": rb'{"message": "\ud83d"}',
    "the other half": rb'{"message": "\udc00"}', "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "objects too deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid utf-8": b'{"message": "\xff"}',
    "utf-16": '{"message": "x"}'.encode("utf-16"), "control character": b'{"message": "\x01"}', "two values": b"{} {}",
    "byte order mark": b'\xef\xbb\xbf{"message": "x"}', "single quotes": b"{'message': 'x'}", "huge number": b'{"a": 1e999}',
}  # fmt: skip


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in MALFORMED.items() if body])
def test_malformed_json_is_400_and_says_so(api: Api, body: bytes) -> None:
    response = api.post(body, key="malformed")
    problem = response.json()
    assert (response.status_code, problem["code"]) == (400, "malformed-json")
    assert "JSON" in problem["detail"] or "nested" in problem["detail"]
    assert not IdempotencyKey.objects.exists()


@pytest.mark.fault(11)
def test_a_refused_key_is_free_for_the_mended_body(api: Api) -> None:
    assert api.post(BodyFactory.build(subject=""), key="again").status_code == 400
    assert api.post(b"{", key="again").status_code == 400
    assert api.post(BodyFactory.build(), key="again").status_code == 202


def test_an_error_does_not_repeat_what_was_sent(api: Api) -> None:
    response = api.post(BodyFactory.build(message=["private words"], html=7))
    assert "private words" not in json.dumps(response.json())
