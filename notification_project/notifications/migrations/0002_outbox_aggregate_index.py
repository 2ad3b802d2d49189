"""Cancel, the timeline and the reconciler find an outbox event by its notification; the e-mail service never does, so the index is made here."""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

INDEX = models.Index(fields=["aggregate_id"], name="outbox_aggregate")


def add_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    schema_editor.add_index(apps.get_model("outbox", "OutboxEvent"), INDEX)


def remove_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    schema_editor.remove_index(apps.get_model("outbox", "OutboxEvent"), INDEX)


class Migration(migrations.Migration):
    atomic = False  # MySQL cannot roll an index back
    dependencies = [("notifications", "0001_initial"), ("outbox", "0001_initial")]
    operations = [migrations.RunPython(add_index, remove_index)]
