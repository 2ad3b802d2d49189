from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.http.request import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

_decoder = msgspec.json.Decoder()


class StrictJSONParser(BaseParser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, no half a surrogate, no nesting too deep to parse."""

    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return _decoder.decode(stream.read())
        except UnreadablePostError as error:
            raise ParseError("The body ended early.") from error
        except RecursionError as error:
            raise ParseError("The body is nested too deeply.") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ParseError(f"The body is no valid JSON: {error}") from error
