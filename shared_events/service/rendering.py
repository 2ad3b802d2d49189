from collections.abc import Mapping
from typing import Any

import msgspec
from rest_framework.renderers import JSONRenderer as BaseJSONRenderer

PROBLEM_MEDIA_TYPE = "application/problem+json"

_encoder = msgspec.json.Encoder(enc_hook=str)


class JSONRenderer(BaseJSONRenderer):
    """JSON by msgspec; bytes are an answer that was rendered before, and go out as they are. Errors are `application/problem+json`."""

    charset = None

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> Any:
        response = (renderer_context or {}).get("response")
        if response is not None and response.exception:
            response["Content-Type"] = PROBLEM_MEDIA_TYPE
        if data is None:
            return b""
        encoded = data if isinstance(data, bytes) else _encoder.encode(data)
        indent = self.get_indent(accepted_media_type or "", renderer_context or {})
        return msgspec.json.format(encoded, indent=indent) if indent else encoded
