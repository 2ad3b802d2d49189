from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from notification_project.notifications.reconciler import Reconciler
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import run_until_stopped
from shared_events.runtime.process_state import StateReport
from shared_events.runtime.stop import StopSignal


class Command(BaseCommand):
    help = (
        "Publishes again what was published and never heard of, until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by RECONCILE_AFTER_SECONDS and RECONCILE_POLL_SECONDS."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        reconciler = Reconciler(
            after_seconds=settings.RECONCILE_AFTER_SECONDS, wake_up=WakeUp(settings.REDIS_URL, settings.PRODUCER)
        )
        liveness = Liveness(settings.LIVENESS_FILE)
        state = StateReport("reconcile_notifications", [])

        def beat() -> None:  # also while it waits, which may be longer than a row of process_state is fresh
            liveness.touch()
            state.write()

        with StopSignal() as stop:
            try:
                run_until_stopped(
                    reconciler.run_once,
                    idle=lambda: stop.wait(settings.RECONCILE_POLL_SECONDS, each_slice=beat),
                    stop=stop,
                    liveness=liveness,
                    report=state.write,
                )
            finally:
                state.end()
