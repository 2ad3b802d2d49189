from django.apps import AppConfig


class ServiceConfig(AppConfig):
    name = "shared_events.service"
    label = "service"

    def ready(self) -> None:
        from . import checks  # noqa: F401 (registers the system checks)
