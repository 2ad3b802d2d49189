"""The mailbox's web page: a list of what arrived and each mail in full, server-side HTML without a script.

Mails are strangers' content: everything is escaped, and a mail's own HTML is shown in a sandboxed frame whose
Content-Security-Policy allows neither scripts nor any request.
"""

import re
import threading
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from manage_scripts.demo_parts.mailbox import Mail, Mailbox, Refusal

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; frame-src 'self'; form-action 'none'; base-uri 'none'"
)
MAIL_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
STYLE = Path(__file__).with_name("mailbox.css").read_text()
REFRESH_SECONDS = 4
ROUTE = re.compile(r"/mails/(?P<number>[0-9]{1,9})(?P<part>/html|/source)?")


def list_page(mailbox: Mailbox) -> str:
    mails = mailbox.mails()
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    counted = f"{len(mails)} {'mail' if len(mails) == 1 else 'mails'}"
    rows = "".join(list_row(mail, mailbox.copies(mail.message_id)) for mail in mails)
    if rows:
        head = (
            '<tr><th>Time</th><th>To</th><th>Subject</th><th class="from">From</th><th class="id">Message-ID</th>'
            "<th>Copies</th></tr>"
        )
        body = f'<div class="card scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    else:
        body = (
            '<div class="card empty"><p>Nothing has arrived yet.</p>'
            '<p class="quiet">This page looks again by itself.</p></div>'
        )
    body += refusals_section(mailbox.refusals())
    return page("Mailbox", f'<h1>Mailbox <span class="count">{counted}</span></h1>{body}', head=refresh)


def list_row(mail: Mail, copies: int) -> str:
    mark = "many" if copies > 1 else "one"
    subject = escape(mail.subject) or '<span class="quiet">(no subject)</span>'
    return (
        f"<tr><td>{clock(mail)}</td><td>{escape(', '.join(mail.recipients))}</td>"
        f'<td class="subject"><a href="/mails/{mail.number}">{subject}</a></td>'
        f'<td class="from">{escape(mail.header("From") or mail.sender)}</td>'
        f'<td class="id">{escape(mail.message_id)}</td>'
        f'<td><span class="badge {mark}">{copies}</span></td></tr>'
    )


def refusals_section(refusals: list[Refusal]) -> str:
    if not refusals:
        return ""
    rows = "".join(
        f'<tr><td><time datetime="{refusal.refused_at.isoformat()}">{refusal.refused_at:%H:%M:%S}</time></td>'
        f"<td>{escape(refusal.recipient)}</td><td class='reply'>{escape(refusal.reply)}</td></tr>"
        for refusal in refusals
    )
    head = "<tr><th>Time</th><th>Recipient</th><th>Answer</th></tr>"
    return (
        f'<h2>Turned away</h2><div class="card scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )


def mail_page(mail: Mail, copies: int) -> str:
    facts = {
        "From": mail.header("From") or mail.sender,
        "To": ", ".join(mail.recipients),
        "Received": f"{mail.received_at:%Y-%m-%d %H:%M:%S.%f} UTC",
        "Message-ID": mail.message_id,
        "Copies": f"{copies}" if copies == 1 else f"{copies} mails with this Message-ID have arrived",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    headers = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in mail.headers())
    source = escape(mail.raw.decode("utf-8", "replace"))
    body = (
        f'<nav><a href="/">← All mails</a></nav><h1>{escape(mail.subject) or "(no subject)"}</h1>'
        f'<dl class="card facts">{listed}</dl>{bodies(mail)}'
        f'<details class="card"><summary>Headers</summary><div class="scroll"><table class="headers"><tbody>{headers}'
        f'</tbody></table></div></details><details class="card"><summary>Source · {len(mail.raw):,} bytes</summary>'
        f'<p><a href="/mails/{mail.number}/source">As plain text</a></p><pre>{source}</pre></details>'
    )
    return page(mail.subject or "Mail", body)


def bodies(mail: Mail) -> str:
    sections = ""
    if mail.body("html") is not None:
        sections += (
            f'<section class="card"><h2>HTML</h2><iframe sandbox title="The mail\'s HTML" '
            f'src="/mails/{mail.number}/html"></iframe></section>'
        )
    text = mail.body("plain")
    if text is not None:
        sections += f'<section class="card"><h2>Text</h2><pre class="text">{escape(text)}</pre></section>'
    return sections


def clock(mail: Mail) -> str:
    return f'<time datetime="{mail.received_at.isoformat()}">{mail.received_at:%H:%M:%S}</time>'


def page(title: str, body: str, *, head: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f'<title>{escape(title)} · NotifyX demo</title><link rel="stylesheet" href="/style.css">{head}</head>'
        '<body><header><a class="brand" href="/">NotifyX <span>mailbox</span></a>'
        "<p>The demo's mail server. It takes every mail and delivers none. Times are UTC.</p></header>"
        f"<main>{body}</main></body></html>"
    )


class MailboxPage(BaseHTTPRequestHandler):
    server: "MailboxPageServer"
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        mailbox = self.server.mailbox
        path = self.path.partition("?")[0]
        if path == "/":
            return self._answer(list_page(mailbox))
        if path == "/style.css":
            return self._answer(STYLE, kind="text/css")
        route = ROUTE.fullmatch(path)
        mail = mailbox.find(int(route["number"])) if route else None
        if route is None or mail is None:
            missing = page("Not found", '<h1>Not found</h1><p><a href="/">All mails</a></p>')
            return self._answer(missing, status=HTTPStatus.NOT_FOUND)
        match route["part"]:
            case "/html":
                return self._answer(mail.body("html") or "", policy=MAIL_POLICY)
            case "/source":
                return self._answer(mail.raw.decode("utf-8", "replace"), kind="text/plain")
        return self._answer(mail_page(mail, mailbox.copies(mail.message_id)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(
        self, text: str, *, kind: str = "text/html", policy: str = PAGE_POLICY, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        content = text.encode("utf-8", "replace")  # a broken header can hold half a surrogate
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def version_string(self) -> str:
        return "NotifyX-demo"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the parent's name
        """Nothing: the terminal belongs to the demo's table."""


class MailboxPageServer(ThreadingHTTPServer):
    """Serves one mailbox on 127.0.0.1. Raises OSError where the port is in use (0: a free one)."""

    daemon_threads = True
    allow_reuse_port = False

    def __init__(self, mailbox: Mailbox, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), MailboxPage)
        self.mailbox = mailbox
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="mailbox-page", daemon=True)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for the host's full name, which can take seconds without a network.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join(timeout=2)
        self.server_close()
