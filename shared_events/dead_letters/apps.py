from django.apps import AppConfig


class DeadLettersConfig(AppConfig):
    name = "shared_events.dead_letters"
    label = "dead_letters"
    verbose_name = "Dead letters"
