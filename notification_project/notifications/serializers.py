"""What a client may send, strictly typed, and what it is shown."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from email_validator import EmailNotValidError, validate_email
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail

from shared_events.service.problems import escape_pointer

from .models import Notification

BODY_BYTES = 512 * 1024
METADATA_PAIRS = 20
UNKNOWN_NAMED = 20
_LINE_BREAK = re.compile(r"[\r\n\0\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


class TextField(serializers.CharField):
    """Text and nothing else: a number or a boolean is an error. Kept as it came, white space too."""

    def __init__(self, *, in_header: bool = False, max_bytes: int | None = None, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)
        self._in_header = in_header
        self._max_bytes = max_bytes

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self._in_header and _LINE_BREAK.search(data):
            raise serializers.ValidationError("Must not contain line breaks.", code="line-break")
        if self._max_bytes is not None and len(data.encode()) > self._max_bytes:
            raise serializers.ValidationError(f"Must have at most {self._max_bytes} bytes as UTF-8.", code="too-large")
        return data


class AddressField(TextField):
    """An e-mail address by its syntax (RFC 5321, RFC 6531), without a display name; no DNS is asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(in_header=True, max_length=254, **options)

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        if len(text) > 254:  # noqa: PLR2004 (the validator of max_length would come after the parser)
            raise serializers.ValidationError("Must have at most 254 characters.", code="max-length")
        try:
            found = validate_email(text, check_deliverability=False, globally_deliverable=False)
        except EmailNotValidError as error:
            raise serializers.ValidationError(
                f"Must be an e-mail address such as ada@example.com: {error}", code="invalid"
            ) from error
        if "." not in found.domain:
            raise serializers.ValidationError("Must have a domain with a dot, such as ada@example.com.", code="invalid")
        return found.normalized


@extend_schema_field(OpenApiTypes.DATETIME)
class InstantField(serializers.Field[datetime, Any, str, Any]):
    """An RFC 3339 time with its offset."""

    default_error_messages: ClassVar[Any] = {"invalid": "Must be a time with its offset, such as 2030-01-31T12:00:00Z."}

    def to_internal_value(self, data: Any) -> datetime:
        if not isinstance(data, str) or len(data) < 20:  # noqa: PLR2004 (the shortest: date, T, time to the second, Z)
            self.fail("invalid")
        try:
            instant = datetime.fromisoformat(data)
            if instant.tzinfo is None:
                self.fail("invalid")
            return instant.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: datetime) -> str:
        return value.isoformat()


class MetadataField(serializers.DictField):
    """Flat: at most 20 pairs of texts."""

    child = TextField(max_length=512, allow_blank=True)

    def to_internal_value(self, data: Any) -> dict[Any, Any]:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        if len(data) > METADATA_PAIRS:
            raise serializers.ValidationError(f"Must have at most {METADATA_PAIRS} pairs.", code="max-length")
        for name in data:
            if not 0 < len(name) <= 64 or "\0" in name:  # noqa: PLR2004 (the contract's number)
                raise serializers.ValidationError("Each key must have 1 to 64 characters.", code="invalid-key")
        errors: dict[str, Any] = {}
        for name, value in data.items():
            try:
                self.child.run_validation(value)
            except serializers.ValidationError as error:
                errors[escape_pointer(name)] = error.detail
        if errors:
            raise serializers.ValidationError(errors)
        return dict(data)


class StrictSerializer(serializers.Serializer[Any]):
    """Unknown fields are an error."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = [name for name in data if name not in self.fields] if isinstance(data, dict) else []
        errors: dict[str, Any] = {
            escape_pointer(name): [ErrorDetail("There is no such field.", code="unknown-field")]
            for name in unknown[:UNKNOWN_NAMED]
        }
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**error.detail, **errors}) from error  # type: ignore[dict-item]
        if errors:
            raise serializers.ValidationError(errors)
        return value


class WordField(serializers.ChoiceField):
    """One of a few words; the error names them."""

    def __init__(self, choices: Sequence[str], **options: Any) -> None:
        named = f"Must be one of: {', '.join(choices)}."
        super().__init__(choices, error_messages={"invalid_choice": named}, **options)


class NotificationRequestSerializer(StrictSerializer):
    """One notification as it is sent in."""

    recipient = AddressField()
    subject = TextField(in_header=True, max_length=255)
    message = TextField(max_bytes=BODY_BYTES, style={"base_template": "textarea.html"})
    html = TextField(max_bytes=BODY_BYTES, required=False, allow_null=True, default=None)
    reply_to = AddressField(required=False, allow_null=True, default=None)
    client_reference = TextField(max_length=128, required=False, allow_null=True, default=None)
    metadata = MetadataField(required=False, default=dict)
    send_after = InstantField(required=False, allow_null=True, default=None)
    send_before = InstantField(required=False, allow_null=True, default=None)
    on_uncertain = WordField(
        choices=Notification.OnUncertain.values, required=False, default=str(Notification.OnUncertain.RESEND)
    )

    def validate(self, attrs: Any) -> Any:
        if attrs["send_after"] and attrs["send_before"] and attrs["send_before"] <= attrs["send_after"]:
            raise serializers.ValidationError(
                {"send_before": [ErrorDetail("Must be after send_after.", code="invalid")]}
            )
        return attrs


class BatchRequestSerializer(StrictSerializer):
    """1 to 1,000 notifications, all or none."""

    notifications = NotificationRequestSerializer(many=True, min_length=1, max_length=1000)  # type: ignore[call-arg]


class ResolutionRequestSerializer(StrictSerializer):
    """An operator's word on an UNCERTAIN notification."""

    resolution = WordField(choices=["delivered", "not_delivered", "resend"])
    reason = TextField(max_length=500)

    def validate_reason(self, value: str) -> str:
        if not value.strip():
            raise serializers.ValidationError("Must say why, for the audit.", code="blank")
        return value


class FailureSerializer(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="The server's enhanced code, else its basic code, else our word")
    detail = serializers.CharField(help_text="The server's words")

    def get_fields(self) -> Any:
        return {"class": serializers.CharField(), **super().get_fields()}


class UncertainSerializer(serializers.Serializer[Any]):
    phase = serializers.CharField()
    since = serializers.DateTimeField()
    host = serializers.CharField()
    message_id = serializers.CharField()
    next = serializers.CharField()


class LinksSerializer(serializers.Serializer[Any]):
    self = serializers.CharField()
    events = serializers.CharField()
    cancel = serializers.CharField()
    resolve = serializers.CharField()


class NotificationSerializer(serializers.Serializer[Any]):
    """A notification as GET shows it."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Notification.Status.choices)
    final = serializers.BooleanField()
    recipient = serializers.CharField()
    subject = serializers.CharField()
    client_reference = serializers.CharField(allow_null=True)
    metadata = serializers.DictField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    send_after = serializers.DateTimeField(allow_null=True)
    send_before = serializers.DateTimeField(allow_null=True)
    sent_at = serializers.DateTimeField(allow_null=True)
    failure = FailureSerializer(allow_null=True)
    uncertain = UncertainSerializer(allow_null=True)
    attempts = serializers.IntegerField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    possible_duplicates = serializers.IntegerField()
    links = LinksSerializer()


class NotificationListSerializer(serializers.Serializer[Any]):
    results = NotificationSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="The cursor of the next page")


class BatchAcceptedItemSerializer(serializers.Serializer[Any]):
    index = serializers.IntegerField()
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Notification.Status.choices)


class BatchAcceptedSerializer(serializers.Serializer[Any]):
    notifications = BatchAcceptedItemSerializer(many=True)


class TimelineEntrySerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField(allow_null=True)
    event = serializers.CharField()
    detail = serializers.DictField()


class TimelineSerializer(serializers.Serializer[Any]):
    events = TimelineEntrySerializer(many=True)


class ProblemItemSerializer(serializers.Serializer[Any]):
    pointer = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    instance = serializers.CharField()
    request_id = serializers.CharField()
    errors = ProblemItemSerializer(many=True, required=False)  # type: ignore[assignment]
