"""One UPDATE for many rows whose values differ."""

from collections.abc import Mapping
from typing import Any

from django.db import models
from django.db.models import Case, Value, When


def per_row(field: "models.Field[Any, Any]", values: Mapping[Any, Any]) -> Case:
    """An expression that gives each row (by primary key) its value; plain values and expressions may be mixed."""
    whens = (
        When(pk=key, then=value if hasattr(value, "resolve_expression") else Value(value, output_field=field))
        for key, value in values.items()
    )
    return Case(*whens, output_field=field)
