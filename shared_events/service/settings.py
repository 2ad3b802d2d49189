"""What the settings of both services have in common. Each project's settings module takes all of it and adds its own.

Every variable is described in `.env.example`.
"""

import warnings
from pathlib import Path
from typing import Any

from shared_events.runtime.crash_points import arm
from shared_events.service import environment

ROOT = Path(__file__).resolve().parents[2]

SECRET_KEY = environment.text(
    "SECRET_KEY", remedy="set it to at least 50 random characters, another one for each service"
)
DEBUG = environment.flag("DEBUG")
ALLOWED_HOSTS = environment.names("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = environment.names("CSRF_TRUSTED_ORIGINS")

TLS_ONLY = environment.flag("TLS_ONLY")
SECURE_SSL_REDIRECT = TLS_ONLY
SECURE_REDIRECT_EXEMPT = [r"^health/"]  # a container's check speaks plain HTTP from inside
SECURE_HSTS_SECONDS = 31_536_000 if TLS_ONLY else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = TLS_ONLY
SECURE_HSTS_PRELOAD = TLS_ONLY
SESSION_COOKIE_SECURE = TLS_ONLY
CSRF_COOKIE_SECURE = TLS_ONLY
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS_ONLY else None
X_FRAME_OPTIONS = "DENY"

DATABASES = {"default": environment.database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = environment.redis_url()
KAFKA = environment.kafka()
KAFKA_MESSAGE_TIMEOUT_SECONDS = environment.number("KAFKA_MESSAGE_TIMEOUT_SECONDS", 30, minimum=1)
CONSUMER_FUSE_RECORDS = environment.integer("CONSUMER_FUSE_RECORDS", 20, minimum=0, unit="records")

OUTBOX_POLL_SECONDS = environment.number("OUTBOX_POLL_SECONDS", 1, minimum=0.001)
OUTBOX_BATCH = environment.integer("OUTBOX_BATCH", 500, unit="rows")
OUTBOX_LEASE_SECONDS = environment.number("OUTBOX_LEASE_SECONDS", 60)
OUTBOX_MAX_ATTEMPTS = environment.integer("OUTBOX_MAX_ATTEMPTS", 10, unit="attempts")
OUTBOX_RETRY_BASE_SECONDS = environment.number("OUTBOX_RETRY_BASE_SECONDS", 1)
OUTBOX_RETRY_MAX_SECONDS = environment.number("OUTBOX_RETRY_MAX_SECONDS", 300)
OUTBOX_RETENTION_DAYS = environment.number("OUTBOX_RETENTION_DAYS", 7, unit="days")
DEAD_LETTERS_RETENTION_DAYS = environment.number("DEAD_LETTERS_RETENTION_DAYS", 90, unit="days")
TOPIC_RETENTION_DAYS = environment.number("TOPIC_RETENTION_DAYS", 7, unit="days")
SENT_EMAILS_RETENTION_DAYS = environment.number("SENT_EMAILS_RETENTION_DAYS", 90, minimum=1, unit="days")

SHUTDOWN_GRACE_SECONDS = environment.number("SHUTDOWN_GRACE_SECONDS", 25)
LIVENESS_FILE = environment.optional("LIVENESS_FILE")
LOG_LEVEL = environment.log_level()
CRASH_POINT = environment.optional("CRASH_POINT")  # for proofs alone: the process ends itself there
arm(CRASH_POINT)

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
FORMAT_MODULE_PATH = ["shared_events.service.formats"]
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # a cookie would show a new API key
STATIC_URL = "/static/"

SHARED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "shared_events.service",  # its templates come before those of rest_framework
    "rest_framework",
    "drf_standardized_errors",
    "shared_events.runtime",
    "shared_events.outbox",
    "shared_events.dead_letters",
]

MIDDLEWARE = [
    "shared_events.service.middleware.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True  # a fresh clone serves its consoles without collectstatic
WHITENOISE_AUTOREFRESH = False
warnings.filterwarnings("ignore", message="No directory at", module="django.core.handlers.base")

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
    "DEFAULT_RENDERER_CLASSES": [
        "shared_events.service.rendering.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": ["shared_events.service.parsing.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "COERCE_DECIMAL_TO_STRING": False,
}
DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_HANDLER_CLASS": "shared_events.service.problems.ProblemHandler",
    "EXCEPTION_FORMATTER_CLASS": "shared_events.service.problems.ProblemFormatter",
    "NESTED_FIELD_SEPARATOR": "/",
    "ENABLE_IN_DEBUG_FOR_UNHANDLED_EXCEPTIONS": True,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}
