import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from django.conf import settings
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.wakeup import WakeUp
from shared_events.service.rendering import PROBLEM_MEDIA_TYPE

from . import idempotency
from .authentication import ClientUser, client_of, operator_of
from .cancellation import CREATED, cancel
from .idempotency import KeyStore
from .limits import Count
from .listing import LIMIT_DEFAULT, LIMIT_MAXIMUM, page
from .models import ApiKey, Notification
from .representation import BASE_PATH, representation, timeline
from .resolution import request_resolution
from .serializers import (
    BatchAcceptedSerializer,
    BatchRequestSerializer,
    NotificationListSerializer,
    NotificationRequestSerializer,
    NotificationSerializer,
    ProblemSerializer,
    ResolutionRequestSerializer,
    TimelineSerializer,
)
from .submission import Acceptance, Submission

_wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)
_acceptance = Acceptance(KeyStore(_wake_up))


def problems(*statuses: int) -> dict[tuple[int, str], OpenApiResponse]:
    """The errors of an operation, for the OpenAPI document."""
    return {(status, PROBLEM_MEDIA_TYPE): OpenApiResponse(ProblemSerializer, "RFC 9457") for status in statuses}


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="Makes the request safe to repeat"
)


class NotificationViewSet(GenericViewSet[Notification]):
    """Send a notification with recipient, subject and message; its id tells at any moment where it is."""

    queryset = Notification.objects.none()
    serializer_class = NotificationRequestSerializer
    lookup_value_converter = "uuid"
    scopes: ClassVar[dict[str, str]] = {
        "create": ApiKey.Scope.SEND,
        "batch": ApiKey.Scope.SEND,
        "cancel": ApiKey.Scope.SEND,
        "resolve": ApiKey.Scope.OPERATE,
    }

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        responses={202: NotificationSerializer, **problems(400, 401, 403, 409, 413, 415, 422, 429, 503)},
    )
    def create(self, request: Request) -> Response:
        """Accept one notification: 202 says that it is stored and will be delivered."""
        serializer = NotificationRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        return self._submit(request, serializer.validated_data, [serializer.validated_data], is_batch=False)

    @extend_schema(
        parameters=[IDEMPOTENCY_KEY],
        request=BatchRequestSerializer,
        responses={202: BatchAcceptedSerializer, **problems(400, 401, 403, 409, 413, 415, 422, 429, 503)},
    )
    @action(detail=False, methods=["post"], serializer_class=BatchRequestSerializer)
    def batch(self, request: Request) -> Response:
        """Accept 1 to 1,000 notifications, all or none, under one key."""
        serializer = BatchRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        items = serializer.validated_data["notifications"]
        return self._submit(request, items, items, is_batch=True)

    @extend_schema(
        parameters=[
            OpenApiParameter("status", str, enum=Notification.Status.values),
            OpenApiParameter("recipient", str),
            OpenApiParameter("client_reference", str),
            OpenApiParameter("created_from", str, description="RFC 3339, inclusive"),
            OpenApiParameter("created_to", str, description="RFC 3339, exclusive"),
            OpenApiParameter("limit", int, description=f"1 to {LIMIT_MAXIMUM}, default {LIMIT_DEFAULT}"),
            OpenApiParameter("cursor", str, description="`next` of the page before"),
        ],
        responses={200: NotificationListSerializer, **problems(400, 401, 403)},
    )
    def list(self, request: Request) -> Response:
        """The client's notifications, newest first."""
        client = request.user.client if isinstance(request.user, ClientUser) else None
        found = page(request.query_params, client)
        return Response({"results": [representation(row) for row in found.results], "next": found.next})

    @extend_schema(responses={200: NotificationSerializer, 304: None, **problems(401, 403, 404)})
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """One notification, and where it is."""
        body = msgspec.json.encode(representation(self._find(request, pk)))
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        if etag in request.headers.get("If-None-Match", ""):
            return Response(status=304, headers={"ETag": etag})
        return Response(body, headers={"ETag": etag})

    @extend_schema(responses={200: TimelineSerializer, **problems(401, 403, 404)})
    @action(detail=True, methods=["get"])
    def events(self, request: Request, pk: UUID) -> Response:
        """The timeline over both services."""
        notification = self._find(request, pk)
        event = OutboxEvent.objects.filter(aggregate_id=pk, event_type=CREATED).defer("payload").first()
        return Response({"events": timeline(notification, event)})

    @extend_schema(request=None, responses={200: NotificationSerializer, **problems(401, 403, 404, 409)})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: UUID) -> Response:
        """Cancel what has not left yet. 200 is a promise that it never will."""
        return Response(representation(cancel(self._find(request, pk))))

    @extend_schema(
        request=ResolutionRequestSerializer,
        responses={202: NotificationSerializer, **problems(400, 401, 403, 404, 409)},
    )
    @action(detail=True, methods=["post"], serializer_class=ResolutionRequestSerializer)
    def resolve(self, request: Request, pk: UUID) -> Response:
        """Say of an UNCERTAIN notification that it was delivered, was not, or is to be sent again. UNCERTAIN stands until that is done."""
        serializer = ResolutionRequestSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        found = self._find(request, pk)
        notification = request_resolution(found, **serializer.validated_data, operator=operator_of(request))
        _wake_up.ring()
        return Response(representation(notification), status=202)

    def _find(self, request: Request, pk: UUID) -> Notification:
        """Another client's notification is not found. Http404."""
        query = Notification.objects.filter(pk=pk)
        if isinstance(request.user, ClientUser):
            query = query.filter(client=request.user.client)
        notification: Notification | None = query.first()
        if notification is None:
            raise Http404
        return notification

    def _submit(self, request: Request, body: Any, items: Sequence[dict[str, Any]], *, is_batch: bool) -> Response:
        client = client_of(request)
        path = f"{BASE_PATH}/batch" if is_batch else BASE_PATH
        header = request.META.get("HTTP_IDEMPOTENCY_KEY")
        key = idempotency.key_of(header, client, "POST", path)
        accepted = _acceptance.submit(
            Submission(
                client=client,
                items=items,
                is_batch=is_batch,
                key=key,
                fingerprint=idempotency.fingerprint_of(body) if key else b"",
                render=_render_batch if is_batch else _render_one,
                count=Count(request._request, client, [item["recipient"] for item in items], is_batch=is_batch),  # noqa: SLF001 (django-ratelimit takes Django's)
            )
        )
        answer = accepted.answer
        headers = accepted.usage.headers() if accepted.usage else {}
        if answer.location:
            headers["Location"] = answer.location
        if key is not None:
            headers["Idempotency-Expires"] = idempotency.expires_header(answer)
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        return Response(answer.body, status=answer.status_code, headers=headers)


def _render_one(notifications: Sequence[Notification]) -> tuple[str, bytes]:
    shown = representation(notifications[0])
    return shown["links"]["self"], msgspec.json.encode(shown)


def _render_batch(notifications: Sequence[Notification]) -> tuple[str, bytes]:
    items = [{"index": index, "id": str(row.pk), "status": str(row.status)} for index, row in enumerate(notifications)]
    return "", msgspec.json.encode({"notifications": items})
