from django.apps import AppConfig


class ServiceConfig(AppConfig):
    name = "shared_events.service"
    label = "service"

    def ready(self) -> None:
        from django.db.backends.signals import connection_created

        from shared_events.runtime.database import assert_session

        from . import checks  # noqa: F401 (registers the system checks)

        connection_created.connect(assert_session)
