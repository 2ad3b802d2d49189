"""The admin action "Resolve…" of both consoles: what is uncertain gets an operator's word, shown first, audited, once a generation."""

from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.db import models, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from shared_events.contracts.events import now
from shared_events.outbox.admin import ReadOnlyAdmin

from .replay import Order

AT_ONCE = 200
"""Each row has two hidden fields, and Django refuses forms of more than a thousand."""


class Resolution(models.TextChoices):
    DELIVERED = "delivered", "It was delivered"
    NOT_DELIVERED = "not_delivered", "It was not delivered"
    RESEND = "resend", "Send it again"


class ResolvingAdmin(ReadOnlyAdmin):
    """A console of rows with `status`, `generation`, `possible_duplicates` and `send_before`.

    The form carries what its reader saw of each row, and only a row that is still so is resolved: of two operators the second is told.
    """

    actions: ClassVar[Any] = ("resolve_rows",)
    change_permission: ClassVar[str]
    resolved_word: ClassVar[str]
    """What happened to a row, in the message that follows."""

    def uncertain_since(self, row: Any) -> object:
        raise NotImplementedError

    def last_attempt(self, row: Any) -> dict[str, str]:
        """Of an uncertain row `phase`, `host` and `message_id`, by which the relay host's log is searched."""
        raise NotImplementedError

    def what_is_seen(self, row: Any) -> str:
        """What must not have changed between the question and its answer."""
        return str(row.generation)

    def already_said(self, row: Any) -> str:
        """An earlier word that is still on its way; empty for none."""
        return ""

    def resolve_row(self, row: Any, resolution: Resolution, order: Order) -> None:
        """Called inside a transaction that holds the row's lock, for an uncertain row alone."""
        raise NotImplementedError

    def done(self) -> None:
        """Called after the commits: wakes who has work now."""

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.change_permission)

    @admin.action(description="Resolve…", permissions=["resolve"])
    def resolve_rows(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse | None:
        rows = list(queryset.order_by("pk")[:AT_ONCE])
        reason = request.POST.get("reason", "").strip()
        chosen = request.POST.get("resolution", "")
        if request.POST.get("confirmed") and reason and chosen in Resolution.values:
            order = Order(f"staff:{request.user.get_username()}", reason)
            self._resolve(request, [row.pk for row in rows], Resolution(chosen), order)
            return None
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Resolve",
            "opts": self.opts,
            "rows": [self._prospect(row) for row in rows],
            "not_shown": max(0, queryset.count() - len(rows)),
            "resolutions": Resolution.choices,
            "chosen": chosen,
            "reason": reason,
            "incomplete": bool(request.POST.get("confirmed")),
        }
        return TemplateResponse(request, "admin/dead_letters/resolve.html", context)

    def _resolve(self, request: HttpRequest, keys: list[UUID], resolution: Resolution, order: Order) -> None:
        resolved = sum(self._resolve_one(key, request.POST.get(f"seen_{key}", ""), resolution, order) for key in keys)
        self.done()
        skipped = len(keys) - resolved
        if resolved:
            self.message_user(request, f"{resolved} {self.resolved_word} ({resolution.value}).", messages.SUCCESS)
        if skipped:
            words = f"{skipped} skipped: not uncertain any more, or somebody was faster. Look again."
            self.message_user(request, words, messages.WARNING)

    def _resolve_one(self, key: UUID, seen: str, resolution: Resolution, order: Order) -> bool:
        with transaction.atomic():
            row = self.model.objects.select_for_update().get(pk=key)
            if row.status != "UNCERTAIN" or self.what_is_seen(row) != seen:
                return False
            self.resolve_row(row, resolution, order)
            return True

    def _prospect(self, row: Any) -> dict[str, Any]:
        """What each answer would do to a row."""
        is_late = row.send_before is not None and row.send_before <= now()
        return {
            "row": row,
            "is_uncertain": row.status == "UNCERTAIN",
            "since": self.uncertain_since(row),
            "last_attempt": self.last_attempt(row) if row.status == "UNCERTAIN" else {},
            "seen": self.what_is_seen(row),
            "already_said": self.already_said(row),
            "resend": "uncertain again: its send_before has passed"
            if is_late
            else f"sent again; copies beyond one: {row.possible_duplicates} → {row.possible_duplicates + 1}",
        }
