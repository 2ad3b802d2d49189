import pytest

from email_project.emails.smtp import SmtpConnection, SmtpServer


@pytest.mark.parametrize(
    ("url", "security", "host", "port"),
    [
        ("smtp://relay.example", "none", "relay.example", 25),
        ("smtp://127.0.0.1:2525", "none", "127.0.0.1", 2525),
        ("smtp://[::1]:2525/", "none", "::1", 2525),
        ("smtp+tls://relay.example", "starttls", "relay.example", 587),
        ("smtp+ssl://relay.example", "tls", "relay.example", 465),
    ],
)
def test_the_scheme_says_how_to_encrypt_and_which_port(url: str, security: str, host: str, port: int) -> None:
    server = SmtpServer.from_url(url)
    assert (server.security, server.host, server.port) == (security, host, port)


def test_user_and_password_are_percent_decoded_and_the_password_is_never_shown() -> None:
    server = SmtpServer.from_url("smtp+tls://ada%40example.com:p%2Fw%3A%23%C3%A9@relay.example", timeout_seconds=3)
    assert (server.username, server.password, server.timeout_seconds) == ("ada@example.com", "p/w:#é", 3)
    assert "p/w" not in repr(server)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with one of smtp://"),
        ("relay.example:25", "begins with one of smtp://"),
        ("smtps://u:secret@relay.example", "begins with one of smtp://"),
        ("smtp://[u:secret@relay.example", "begins with one of smtp://"),
        ("smtp://u:secret@", "no host name"),
        ("smtp://u:secret@relay.example:99999", "no number between 1 and 65535"),
        ("smtp://u:secret@relay.example:0", "port 0 is not between"),
        ("smtp://u:secret/x@relay.example", "percent-encode"),
        ("smtp://u:secret#x@relay.example", "percent-encode"),
        ("smtp://u:secret@relay.example?tls=1", "percent-encode"),
        ("smtp://u@relay.example", "user 'u' has no password"),
        ("smtp://:secret@relay.example", "password but no user"),
        ("smtp://u:secret@a..example", "is not a host name"),
    ],
)
def test_a_bad_url_is_refused_in_words_that_hide_the_password(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        SmtpServer.from_url(url)
    assert "secret" not in str(caught.value)


def test_a_ca_file_that_cannot_be_read_is_named_at_once() -> None:
    server = SmtpServer.from_url("smtp+ssl://relay.example", ca_file="/nowhere/ca.pem")
    with pytest.raises(ValueError, match=r"'/nowhere/ca\.pem' cannot be used \(No such file"):
        SmtpConnection(server)


def test_time_outs_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0 seconds"):
        SmtpServer(host="relay.example", port=25, timeout_seconds=0)
