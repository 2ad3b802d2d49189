from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from shared_events.dead_letters.replay import Order
from shared_events.dead_letters.resolving import Resolution, ResolvingAdmin
from shared_events.outbox.admin import ReadOnlyAdmin, attempts_as_table
from shared_events.outbox.wakeup import WakeUp

from .authentication import TooManyKeysError, create_key
from .models import ApiClient, ApiKey, Notification
from .resolution import request_on_its_way, request_resolution

_wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)


@admin.register(Notification)
class NotificationAdmin(ResolvingAdmin):
    change_permission = "notifications.change_notification"
    resolved_word = "requested of the e-mail service"
    list_display = (
        "id",
        "status_badge",
        "recipient",
        "subject",
        "client",
        "created_at",
        "sent_at",
        "possible_duplicates",
    )
    list_filter = ("status", "failure_class", "client")
    list_select_related = ("client",)
    search_fields = ("recipient__exact", "client_reference__exact")
    search_help_text = "A whole id, recipient or client reference"
    ordering = ("-id",)
    fieldsets: ClassVar = (
        (None, {"fields": ("id", "status", "client", "recipient", "subject", "client_reference", "metadata")}),
        ("Times", {"fields": ("created_at", "send_after", "send_before", "sent_at", "ended_at", "next_attempt_at")}),
        (
            "Outcome",
            {
                "fields": (
                    "failure_class",
                    "failure_code",
                    "failure_detail",
                    "uncertain",
                    "possible_duplicates",
                    "attempts_table",
                )
            },
        ),
        ("Agreement of the two services", {"fields": ("on_uncertain", "status_version", "reconcile_at", "reconciled")}),
    )

    @admin.display(description="attempts")
    def attempts_table(self, notification: Notification) -> SafeString:
        return attempts_as_table(notification.attempts)

    def uncertain_since(self, notification: Notification) -> datetime | None:
        since = (notification.uncertain or {}).get("since")
        return datetime.fromisoformat(since) if since else None

    def last_attempt(self, notification: Notification) -> dict[str, str]:
        return notification.uncertain or {}

    def what_is_seen(self, notification: Notification) -> str:
        return f"{notification.generation} {self.already_said(notification)}"

    def already_said(self, notification: Notification) -> str:
        return request_on_its_way(notification)

    def resolve_row(self, notification: Notification, resolution: Resolution, order: Order) -> None:
        request_resolution(notification, resolution.value, reason=order.reason, operator=order.operator)

    def done(self) -> None:
        _wake_up.ring()


@admin.register(ApiClient)
class ApiClientAdmin(ModelAdmin):  # type: ignore[misc]
    """Making a key: the action shows it once, in the message that follows."""

    list_display = ("name", "created_at")
    search_fields = ("name",)
    fields = ("name",)
    actions = ("make_key",)

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    @admin.action(description="Make an API key (send, read)", permissions=["add"])
    def make_key(self, request: HttpRequest, queryset: QuerySet[ApiClient]) -> None:
        for client in queryset:
            try:
                key = create_key(client, [ApiKey.Scope.SEND, ApiKey.Scope.READ])
            except TooManyKeysError:
                self.message_user(request, f"{client} has two live keys already: revoke one first.", messages.ERROR)
            else:
                self.message_user(request, f"The key of {client}, shown this once: {key}", messages.SUCCESS)


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("prefix", "client", "scopes", "created_at", "expires_at", "revoked_at")
    list_filter = ("client", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("client",)
    search_fields = ("prefix__exact", "client__name")
    fields = ("prefix", "client", "scopes", "created_at", "expires_at", "revoked_at")
    actions = ("revoke",)

    @admin.action(description="Revoke at once")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        if not request.user.has_perm("notifications.change_apikey"):
            self.message_user(request, "You may not revoke keys.", messages.ERROR)
            return
        revoked = queryset.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"{revoked} revoked.", messages.SUCCESS)
