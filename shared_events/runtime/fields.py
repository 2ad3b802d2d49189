"""Column types that Django lacks."""

from typing import Any

from django.db import models


class DigestField(models.BinaryField):  # type: ignore[type-arg]  # it takes no subscript at run time
    """32 bytes of a hash, as BINARY(32) on MySQL, where a BinaryField would be a LONGBLOB that no index can hold whole."""

    def db_type(self, connection: Any) -> str | None:
        return "binary(32)" if connection.vendor == "mysql" else super().db_type(connection)
