from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from shared_events.outbox.admin import ID_ONLY, ReadOnlyAdmin

from .models import AuditEntry, DeadLetter
from .replay import Order, Verdict, dismiss, judge, replay, replayer_from_settings

SHOWN_CHARACTERS = 20_000
AT_ONCE = 500
"""Each row has a hidden field, and Django refuses forms of more than a thousand."""


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    """Shows the original; the actions ask first, and say of each letter what would happen to it."""

    list_display = (
        "id",
        "letter_class",
        "cause",
        "notification_id",
        "source_topic",
        "source_partition",
        "source_offset",
        "created_at",
        "replayed_at",
        "dismissed_at",
    )
    list_filter = (
        "letter_class",
        "source_topic",
        ("replayed_at", admin.EmptyFieldListFilter),
        ("dismissed_at", admin.EmptyFieldListFilter),
    )
    search_fields = ID_ONLY
    id_fields = ("pk", "notification_id")
    search_help_text = "The whole id of a dead letter or of a notification"
    ordering = ("-id",)
    actions = ("replay_letters", "dismiss_letters")
    fieldsets: ClassVar = (
        (
            None,
            {
                "fields": (
                    "id",
                    "letter_class",
                    "cause",
                    "notification_id",
                    "generation",
                    "identity_hex",
                    "created_at",
                    "replayed_at",
                    "dismissed_at",
                )
            },
        ),
        (
            "Source",
            {
                "fields": (
                    "source_topic",
                    "source_partition",
                    "source_offset",
                    "source_timestamp_ms",
                    "source_headers",
                    "key_text",
                )
            },
        ),
        ("Original", {"fields": ("original_size", "original_text")}),
    )

    @admin.display(description="identity")
    def identity_hex(self, letter: DeadLetter) -> str:
        return bytes(letter.identity).hex()

    @admin.display(description="source key")
    def key_text(self, letter: DeadLetter) -> str:
        return bytes(letter.source_key or b"").decode(errors="backslashreplace")

    @admin.display(description="size in bytes")
    def original_size(self, letter: DeadLetter) -> int:
        return len(letter.original or b"")

    @admin.display(description="original")
    def original_text(self, letter: DeadLetter) -> str:
        return bytes(letter.original or b"")[:SHOWN_CHARACTERS].decode(errors="backslashreplace")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("dead_letters.change_deadletter")

    @admin.action(description="Replay…", permissions=["operate"])
    def replay_letters(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        def act(letters: Sequence[DeadLetter], order: Order) -> str:
            counts = Counter(verdict for _, verdict in replay(letters, replayer_from_settings(), order))
            return ", ".join(f"{counts[verdict]} {verdict.outcome}" for verdict in Verdict if counts[verdict])

        return self._confirmed(
            request, queryset, act, action="replay_letters", question="Replay these dead letters?", verb="Replay"
        )

    @admin.action(description="Dismiss…", permissions=["operate"])
    def dismiss_letters(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse | None:
        def act(letters: Sequence[DeadLetter], order: Order) -> str:
            return f"{dismiss(letters, order)} dismissed"

        question = "Dismiss these dead letters? They are kept, and nothing is done with them any more."
        return self._confirmed(request, queryset, act, action="dismiss_letters", question=question, verb="Dismiss")

    def _confirmed(
        self,
        request: HttpRequest,
        queryset: QuerySet[DeadLetter],
        act: Callable[[Sequence[DeadLetter], Order], str],
        *,
        action: str,
        question: str,
        verb: str,
    ) -> HttpResponse | None:
        letters = list(queryset.order_by("pk")[:AT_ONCE])
        reason = request.POST.get("reason", "").strip()
        if request.POST.get("confirmed") and reason:
            order = Order(f"staff:{request.user.get_username()}", reason)
            self.message_user(request, f"{act(letters, order)}.", messages.SUCCESS)
            return None
        verdicts = judge(letters, replayer_from_settings())
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": verb,
            "opts": self.opts,
            "judged": [(letter, verdicts[letter.pk].label) for letter in letters],
            "not_shown": queryset.count() - len(letters),
            "question": question,
            "verb": verb,
            "action": action,
        }
        return TemplateResponse(request, "admin/dead_letters/confirm.html", context)


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "operator", "action", "subject_id", "detail", "reason")
    list_filter = ("action",)
    search_fields = ("subject_id__exact", "operator")
    ordering = ("-id",)
    fields = ("at", "operator", "action", "subject_id", "detail", "reason")
