from typing import ClassVar

from django.contrib import admin

from shared_events.outbox.admin import ID_ONLY, ReadOnlyAdmin

from .models import DeadLetter

SHOWN_CHARACTERS = 20_000


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
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
    )
    list_filter = ("letter_class", "source_topic", ("replayed_at", admin.EmptyFieldListFilter))
    search_fields = ID_ONLY
    id_fields = ("pk", "notification_id")
    search_help_text = "The whole id of a dead letter or of a notification"
    ordering = ("-id",)
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
