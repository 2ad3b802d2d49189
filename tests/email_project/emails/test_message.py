"""Rendered mails, parsed back by the standard library's own parser."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from email_project.emails.message import Mail, message_id_for, render

ID = UUID("0199a3f0-1111-7222-8333-444455556666")
SENDER = "NotifyX <no-reply@example.com>"
MAIL = Mail(
    id=ID,
    message_id=message_id_for(ID, SENDER),
    dated_at=datetime(2026, 11, 22, 12, 30, 5, tzinfo=UTC),
    sender=SENDER,
    recipient="ada@example.org",
    subject="Welcome",
    message="Welcome to NotifyX",
    html=None,
    reply_to=None,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
LINES = TEXT | st.lists(st.sampled_from([".", "..", "a" * 999, "é" * 60, "From me", " ", "\t", "=", "--"])).map(
    "\n".join
)
READABLE = st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), max_size=255)
UNREADABLE = st.text(st.sampled_from("ab  =?_\t\x01\x0b\x1f\x7f\x85\u2028é"), max_size=255)


def changed(field: str, value: str) -> Mail:
    fields: dict[str, Any] = {field: value}
    return replace(MAIL, **fields)


def parsed(mail: Mail) -> EmailMessage:
    message = BytesParser(policy=policy.default).parsebytes(render(mail).data)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def body_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part
    assert not part.defects
    return str(part.get_content()).replace("\r\n", "\n")


def normalised(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") else f"{text}\n"


def test_a_plain_mail_holds_exactly_these_bytes() -> None:
    assert render(replace(MAIL, reply_to="help@example.com")).data.decode("ascii").split("\r\n") == [
        "Date: Sun, 22 Nov 2026 12:30:05 +0000",
        'From: "NotifyX" <no-reply@example.com>',
        "To: ada@example.org",
        "Subject: Welcome",
        "Message-ID: <0199a3f0-1111-7222-8333-444455556666@example.com>",
        "Reply-To: help@example.com",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 7bit",
        "",
        "Welcome to NotifyX",
        "",
    ]


def test_the_envelope_holds_bare_addresses() -> None:
    rendered = render(MAIL)
    assert (rendered.envelope_from, rendered.envelope_to) == ("no-reply@example.com", "ada@example.org")
    assert not rendered.needs_smtputf8


@pytest.mark.fault(46)
def test_attempts_differ_only_in_the_copy_header() -> None:
    mail = replace(MAIL, html="<p>Grüße</p>", subject="Grüße")
    first = render(mail).data
    assert render(replace(mail)).data == first
    second = render(replace(mail, copy=2)).data
    assert second.replace(b"X-NotifyX-Copy: 2\r\n", b"") == first
    assert second != first


@given(subject=READABLE)
@example("=?utf-8?q?no?=")
@example(" leading and trailing ")
@example("word " * 40 + "x")
@example("two  spaces " * 20 + "x")
@example("x" * 255)
@example("ü" * 255)
@example("")
def test_every_subject_survives(subject: str) -> None:
    mail = replace(MAIL, subject=subject)
    assert parsed(mail)["Subject"] == subject
    head = render(mail).data.partition(b"\r\n\r\n")[0]
    assert all(len(line) <= 78 for line in head.split(b"\r\n"))


@given(
    subject=UNREADABLE | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=255)
)
def test_control_characters_in_a_subject_survive(subject: str) -> None:
    # the modern parser splits at white space within encoded words, the older one takes them as they are
    message = BytesParser(policy=policy.compat32).parsebytes(render(replace(MAIL, subject=subject)).data)
    assert str(make_header(decode_header(message["Subject"]))) == subject


@given(text=LINES, html=st.none() | LINES)
@example("no line end", None)
@example("a\rb\r\nc\n", "\0")
@example("x" * 998, "x" * 999)
@example("trailing space \n\ttab\t\n.\n..\n", "")
@example("--=_0199a3f0111172228333444455556666--\n", "--=_0199a3f0111172228333444455556666\n")
def test_every_body_survives_within_the_limits_of_smtp(text: str, html: str | None) -> None:
    mail = replace(MAIL, message=text, html=html)
    message = parsed(mail)
    assert body_of(message, "plain") == normalised(text)
    if html:
        assert body_of(message, "html") == normalised(html)
    data = render(mail).data
    assert data.isascii()
    assert data.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", data)
    assert all(len(line) <= 998 for line in data.split(b"\r\n"))


def test_text_comes_before_html() -> None:
    message = parsed(replace(MAIL, html="<p>Welcome</p>"))
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.fault(12)
@pytest.mark.parametrize("break_", ["\r", "\n", "\r\n", "\0"])
@pytest.mark.parametrize("field", ["subject", "recipient", "sender", "reply_to", "message_id"])
@pytest.mark.parametrize("place", ["{}{}Bcc: eve@example.net", "{1}{0}", "{0}{1}"])
def test_a_line_break_in_a_header_is_refused(field: str, break_: str, place: str) -> None:
    value = place.format(getattr(MAIL, field) or "help@example.com", break_)
    with pytest.raises(ValueError, match=field):
        render(changed(field, value))


@pytest.mark.fault(12)
@given(field=st.sampled_from(["subject", "recipient", "sender", "reply_to"]), value=TEXT)
def test_no_field_can_add_a_header(field: str, value: str) -> None:
    try:
        message = parsed(changed(field, value))
    except ValueError:
        return
    added = {"Reply-To"} if field == "reply_to" and value else set()
    assert set(message.keys()) - added == set(parsed(MAIL).keys())


@pytest.mark.parametrize(
    "address", ["", "ada", "@example.org", "ada@", "a b@example.org", "ada@exa mple.org", "<ada@example.org>", "a@b@c"]
)
def test_what_is_no_address_is_refused_without_being_shown(address: str) -> None:
    with pytest.raises(ValueError, match=r"^recipient is not a mail address of the form name@host$"):
        render(replace(MAIL, recipient=address))


@pytest.mark.parametrize("address", ['"a b"@example.org', "a.b+c@[127.0.0.1]", "o'neil@example.org", "a_b@x_y.example"])
def test_unusual_addresses_pass_unchanged(address: str) -> None:
    assert render(replace(MAIL, recipient=address)).envelope_to == address


@pytest.mark.fault(12)
def test_a_host_name_beyond_ascii_is_idna_encoded_everywhere() -> None:
    sender = "no-reply@straße.example"
    mail = replace(MAIL, recipient="ada@bücher.example", sender=sender, message_id=message_id_for(ID, sender))
    rendered = render(mail)
    assert rendered.envelope_to == "ada@xn--bcher-kva.example"
    assert rendered.envelope_from == "no-reply@xn--strae-oqa.example"
    assert rendered.data.isascii()
    assert not rendered.needs_smtputf8
    assert parsed(mail)["To"] == "ada@xn--bcher-kva.example"
    assert parsed(mail)["Message-ID"] == f"<{ID}@xn--strae-oqa.example>"


@pytest.mark.fault(12)
@pytest.mark.parametrize("field", ["recipient", "sender", "reply_to"])
def test_a_local_part_beyond_ascii_needs_smtputf8(field: str) -> None:
    mail = changed(field, "jürgen@bücher.example")
    assert render(mail).needs_smtputf8
    header = {"recipient": "To", "sender": "From", "reply_to": "Reply-To"}[field]
    assert parsed(mail)[header] == "jürgen@xn--bcher-kva.example"


@pytest.mark.parametrize("name", ['Ann "Q" O\\Neil', "Müller, Söhne & Co", "a =?utf-8?q?b?=", "n" * 200])
def test_a_sender_keeps_its_name(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    sender = parsed(replace(MAIL, sender=f'"{quoted}" <no-reply@example.com>'))["From"].addresses[0]
    assert (sender.display_name, sender.addr_spec) == (name, "no-reply@example.com")


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="dated_at has no time zone"):
        render(replace(MAIL, dated_at=datetime(2026, 11, 22)))  # noqa: DTZ001 - the fault under test


def test_half_a_surrogate_is_refused() -> None:
    for field in ("subject", "message", "html"):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            render(changed(field, "\ud800"))


def test_a_message_id_carries_the_senders_host() -> None:
    assert message_id_for(ID, "Ada <ada@mail.example>") == f"<{ID}@mail.example>"
    assert parseaddr(message_id_for(ID, SENDER))[1] == f"{ID}@example.com"
