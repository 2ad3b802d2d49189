from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib import admin
from django.utils.safestring import SafeString

from shared_events.dead_letters.replay import Order
from shared_events.dead_letters.resolving import Resolution, ResolvingAdmin
from shared_events.outbox.admin import attempts_as_table
from shared_events.outbox.wakeup import WakeUp

from .models import SentEmail
from .resolution import resolve_at_once

_wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)


@admin.register(SentEmail)
class SentEmailAdmin(ResolvingAdmin):
    change_permission = "emails.change_sentemail"
    resolved_word = "resolved"
    list_display = (
        "id",
        "status_badge",
        "recipient",
        "subject",
        "retry_count",
        "possible_duplicates",
        "due_at",
        "received_at",
        "sent_at",
    )
    list_filter = ("status", "failure_class", "on_uncertain")
    search_fields = ("recipient__exact",)
    search_help_text = "The whole id of a notification, or a whole recipient"
    ordering = ("-id",)
    fieldsets: ClassVar = (
        (None, {"fields": ("id", "status", "recipient", "subject", "message_id", "sender", "reply_to")}),
        (
            "Times",
            {
                "fields": (
                    "created_at",
                    "received_at",
                    "send_after",
                    "send_before",
                    "dated_at",
                    "sent_at",
                    "settled_at",
                    "due_at",
                )
            },
        ),
        (
            "Outcome",
            {
                "fields": (
                    "retry_count",
                    "possible_duplicates",
                    "failure_class",
                    "failure_code",
                    "failure_detail",
                    "attempts_table",
                )
            },
        ),
        ("Uncertain", {"fields": ("on_uncertain", "uncertain_phase", "uncertain_since", "uncertain_host")}),
        ("Claim", {"fields": ("status_version", "generation", "crashes", "lease_token", "data_started_at")}),
        ("Body", {"classes": ("collapse",), "fields": ("message", "html")}),
    )

    @admin.display(description="attempts")
    def attempts_table(self, mail: SentEmail) -> SafeString:
        return attempts_as_table(mail.attempts)

    def uncertain_since(self, mail: SentEmail) -> datetime | None:
        return mail.uncertain_since

    def last_attempt(self, mail: SentEmail) -> dict[str, str]:
        return {"phase": mail.uncertain_phase, "host": mail.uncertain_host, "message_id": mail.message_id}

    def resolve_row(self, mail: SentEmail, resolution: Resolution, order: Order) -> None:
        resolve_at_once(mail, resolution.value, reason=order.reason, operator=order.operator)

    def done(self) -> None:
        _wake_up.ring()
