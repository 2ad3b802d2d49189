from functools import reduce
from operator import or_
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from .models import OutboxEvent

ID_ONLY = ("id",)
"""Search fields of a console that is searched by whole ids alone."""


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

    id_fields: ClassVar[tuple[str, ...]] = ("pk",)
    """What a whole id is looked for in, by its index."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A whole id goes by its index: `id__exact` would compare texts, of every row, and with hyphens on one database only."""
        try:
            wanted = UUID(search_term.strip())
        except ValueError:
            found: tuple[QuerySet[Any], bool] = super().get_search_results(request, queryset, search_term)
            return found if not search_term or self.search_fields != ID_ONLY else (queryset.none(), False)
        return queryset.filter(reduce(or_, (Q(**{name: wanted}) for name in self.id_fields))), False

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
    search_fields = ID_ONLY
    id_fields = ("pk", "aggregate_id")
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
