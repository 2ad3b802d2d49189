from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "notification_project.notifications"
    label = "notifications"
    verbose_name = "Notifications"

    def ready(self) -> None:
        from . import checks, schema  # noqa: F401 (register the system checks and the OpenAPI extensions)
