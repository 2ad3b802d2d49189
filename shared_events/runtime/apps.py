from django.apps import AppConfig


class RuntimeConfig(AppConfig):
    name = "shared_events.runtime"
    label = "runtime"
    verbose_name = "Processes"
