from typing import ClassVar

from rest_framework import serializers
from rest_framework.pagination import CursorPagination
from rest_framework.viewsets import ReadOnlyModelViewSet

from .models import SentEmail


class SentEmailSerializer(serializers.ModelSerializer[SentEmail]):
    """A mail as the e-mail service has it, without its body."""

    class Meta:
        model = SentEmail
        fields: ClassVar = (
            "id", "status", "status_version", "recipient", "subject", "message_id", "received_at", "sent_at",
            "retry_count", "possible_duplicates",
            "due_at", "on_uncertain", "failure_class", "failure_code", "failure_detail", "attempts",
        )  # fmt: skip


class NewestFirst(CursorPagination):
    ordering = "-id"
    page_size = 50


class SentEmailViewSet(ReadOnlyModelViewSet[SentEmail]):
    """The mails of this service, newest first; for staff."""

    queryset = SentEmail.objects.defer("message", "html")
    serializer_class = SentEmailSerializer
    pagination_class = NewestFirst
    lookup_value_converter = "uuid"
