from django.apps import AppConfig


class OutboxConfig(AppConfig):
    name = "shared_events.outbox"
    label = "outbox"
    verbose_name = "Outbox"
