"""Settings of the e-mail service: shared ones, and what only it has."""

from typing import Any

from shared_events.contracts import topics
from shared_events.runtime import logs
from shared_events.service import environment
from shared_events.service.settings import *  # noqa: F403
from shared_events.service.settings import LOG_LEVEL, ROOT, SHARED_APPS, SPECTACULAR_SETTINGS

PRODUCER = "email-service"
CONSUMER_GROUP = "email-service"
DEAD_LETTER_TOPIC = topics.EMAIL_DEAD_LETTERS
INVARIANTS = "email_project.emails.invariants.INVARIANTS"
STEPS = "email_project.emails.invariants.STEPS"
PRUNE_RULES = "email_project.emails.retention.PRUNE_RULES"
DEAD_LETTER_REPLAYER = "email_project.emails.replay.MailReplayer"
OUTBOX_UNPUBLISHABLE = "email_project.emails.unpublishable.report_events"

INSTALLED_APPS = ["email_project.emails", *SHARED_APPS]
ROOT_URLCONF = "email_project.urls"
WSGI_APPLICATION = "email_project.wsgi.application"
STATIC_ROOT = ROOT / "static" / "email_project"
LOGGING = logs.configure(LOG_LEVEL, PRODUCER)

EMAIL_URL = environment.optional("EMAIL_URL")
EMAIL_SSL_CA = environment.optional("EMAIL_SSL_CA")
DEFAULT_FROM_EMAIL = environment.optional("DEFAULT_FROM_EMAIL")
EMAIL_MAX_ATTEMPTS = environment.integer("EMAIL_MAX_ATTEMPTS", 12, unit="attempts")
EMAIL_RETRY_BASE_SECONDS = environment.number("EMAIL_RETRY_BASE_SECONDS", 5)
EMAIL_RETRY_MAX_SECONDS = environment.number("EMAIL_RETRY_MAX_SECONDS", 3600)
EMAIL_MAX_RESENDS = environment.integer("EMAIL_MAX_RESENDS", 10, minimum=0, unit="copies")
RETRY_POLL_SECONDS = environment.number("RETRY_POLL_SECONDS", 1, minimum=0.001)
EMAIL_LEASE_SECONDS = environment.number("EMAIL_LEASE_SECONDS", 60, minimum=1)
SMTP_CONNECTIONS = environment.integer("SMTP_CONNECTIONS", 8, unit="connections")
SMTP_TIMEOUT_SECONDS = environment.number("SMTP_TIMEOUT_SECONDS", 30, minimum=0.1)
SMTP_REPLY_TIMEOUT_SECONDS = environment.number("SMTP_REPLY_TIMEOUT_SECONDS", 600, minimum=0.1)

BODY_LIMIT = 1024 * 1024
BODY_LIMITS: dict[str, int] = {}

SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "NotifyX e-mail service",
    "VERSION": "1.0.0",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
}
UNFOLD: dict[str, Any] = {"SITE_TITLE": "NotifyX", "SITE_HEADER": "NotifyX · e-mail", "SITE_URL": "/api/v1/sent-emails"}
