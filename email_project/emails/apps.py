from django.apps import AppConfig


class EmailsConfig(AppConfig):
    name = "email_project.emails"
    label = "emails"
    verbose_name = "E-mail"

    def ready(self) -> None:
        from . import checks  # noqa: F401 (registers the system checks)
