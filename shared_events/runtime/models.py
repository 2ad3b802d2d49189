from datetime import timedelta
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models.functions import Now

FRESH_SECONDS = 60


class ProcessStateQuerySet(models.QuerySet["ProcessState"]):
    def alive(self) -> Self:
        """Those that wrote within the last minute."""
        return self.filter(updated_at__gte=Now() - timedelta(seconds=FRESH_SECONDS))


class ProcessState(models.Model):
    """What a worker says of itself: the circuits and pauses that are open. `/health/ready` reads it."""

    id = models.CharField(max_length=150, primary_key=True, help_text="host:pid:command")
    command = models.CharField(max_length=50)
    started_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    open_circuits = models.JSONField(default=list, help_text="name, reason and since of each")

    objects: ClassVar[Any] = ProcessStateQuerySet.as_manager()

    class Meta:
        db_table = "process_state"

    def __str__(self) -> str:
        return self.id
