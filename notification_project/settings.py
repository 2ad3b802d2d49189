"""Settings of the notification service: shared ones, and what only it has."""

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from shared_events.contracts import topics
from shared_events.runtime import logs
from shared_events.service import environment
from shared_events.service.settings import *  # noqa: F403
from shared_events.service.settings import LOG_LEVEL, REDIS_URL, REST_FRAMEWORK, ROOT, SHARED_APPS, SPECTACULAR_SETTINGS

PRODUCER = "notification-service"
CONSUMER_GROUP = "notification-service"
DEAD_LETTER_TOPIC = topics.NOTIFICATION_DEAD_LETTERS
INVARIANTS = "notification_project.notifications.invariants.INVARIANTS"
STEPS = "notification_project.notifications.invariants.STEPS"
PRUNE_RULES = "notification_project.notifications.retention.PRUNE_RULES"
DEAD_LETTER_REPLAYER = "notification_project.notifications.replay.NotificationReplayer"
OUTBOX_UNPUBLISHABLE = "notification_project.notifications.unpublishable.fail_notifications"

INSTALLED_APPS = ["notification_project.notifications", *SHARED_APPS]
ROOT_URLCONF = "notification_project.urls"
WSGI_APPLICATION = "notification_project.wsgi.application"
STATIC_ROOT = ROOT / "static" / "notification_project"
LOGGING = logs.configure(LOG_LEVEL, PRODUCER)

RATE_LIMIT_CLIENT = environment.text("RATE_LIMIT_CLIENT", "600/m")
RATE_LIMIT_RECIPIENT = environment.text("RATE_LIMIT_RECIPIENT", "10/m")
IDEMPOTENCY_TTL_SECONDS = environment.integer("IDEMPOTENCY_TTL_SECONDS", 86_400, unit="seconds")
NOTIFICATIONS_RETENTION_DAYS = environment.number("NOTIFICATIONS_RETENTION_DAYS", 90, unit="days")
OUTBOX_MAX_AGE_SECONDS = environment.number("OUTBOX_MAX_AGE_SECONDS", 172_800)
RECONCILE_AFTER_SECONDS = environment.number("RECONCILE_AFTER_SECONDS", 900)
RECONCILE_POLL_SECONDS = environment.number("RECONCILE_POLL_SECONDS", 30, minimum=0.001)

BODY_LIMIT = 1024 * 1024
BODY_LIMITS = {"/api/v1/notifications/batch": 8 * 1024 * 1024}

# Without time-outs a silent Redis hangs a request for ever; without `retry` redis-py tries three times more, with seconds between.
_REDIS_POOL: dict[str, Any] = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, "retry": Retry(NoBackoff(), 0)}
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "notifyx",
        "OPTIONS": {"CONNECTION_POOL_KWARGS": _REDIS_POOL},
    },
    # django-ratelimit answers 500 when Redis is away unless its cache swallows the errors.
    "ratelimit": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "notifyx-limit",
        "OPTIONS": {"CONNECTION_POOL_KWARGS": _REDIS_POOL, "IGNORE_EXCEPTIONS": True},
    },
}
RATELIMIT_USE_CACHE = "ratelimit"
RATELIMIT_FAIL_OPEN = True

REST_FRAMEWORK = {
    **REST_FRAMEWORK,
    # Bearer stands first, so that strangers get 401.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "notification_project.notifications.authentication.BearerAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["notification_project.notifications.authentication.HasScope"],
}
SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "NotifyX",
    "DESCRIPTION": "Accepts notifications, delivers each by e-mail, and says at any moment where it is.",
    "VERSION": "1.0.0",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
}
UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "NotifyX",
    "SITE_HEADER": "NotifyX · notifications",
    "SITE_URL": "/api/v1/notifications",
}
