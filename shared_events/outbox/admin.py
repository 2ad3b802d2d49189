from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from .models import OutboxEvent


class ReadOnlyAdmin(ModelAdmin):  # type: ignore[misc]
    """Shows rows and changes none: every change is a transition of the model's own."""

    show_full_result_count = False
    list_per_page = 50
    sortable_by = ()  # by anything but the key the database would sort the whole table

    @display(  # type: ignore[untyped-decorator]
        description="status",
        label={
            "SENT": "success",
            "PUBLISHED": "success",
            "PENDING": "info",
            "PROCESSING": "info",
            "RETRY_PENDING": "warning",
            "UNCERTAIN": "warning",
            "FAILED": "danger",
            "DEAD_LETTERED": "danger",
        },
    )
    def status_badge(self, row: Any) -> str:
        return str(row.status)

    def has_add_permission(self, _request: HttpRequest, *_: Any) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        return False


def attempts_as_table(attempts: list[dict[str, Any]]) -> SafeString:
    if not attempts:
        return format_html("{}", "none yet")
    columns = ("n", "at", "phase", "outcome", "code", "enhanced_code", "reply", "host")
    head = format_html_join("", "<th>{}</th>", ((name.replace("_", " "),) for name in columns))
    rows = format_html_join(
        "",
        "<tr>{}</tr>",
        (
            (format_html_join("", "<td>{}</td>", ((attempt.get(name) or "",) for name in columns)),)
            for attempt in attempts
        ),
    )
    return format_html(
        '<table style="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>',
        "border-spacing: 12px 4px; border-collapse: separate; text-align: left",
        head,
        rows,
    )


@admin.register(OutboxEvent)
class OutboxEventAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "event_type",
        "status_badge",
        "aggregate_id",
        "publication",
        "retry_count",
        "due_at",
        "created_at",
        "published_at",
    )
    list_filter = ("status", "event_type", "topic")
    search_fields = ("id__exact", "aggregate_id__exact")
    search_help_text = "The whole id of an event or of a notification"
    ordering = ("-id",)
    fieldsets: ClassVar = (
        (None, {"fields": ("id", "event_type", "aggregate_id", "topic", "status")}),
        (
            "Publishing",
            {"fields": ("publication", "retry_count", "last_error", "due_at", "created_at", "published_at")},
        ),
        ("Claims", {"fields": ("claims", "crashes", "lease_token")}),
    )
