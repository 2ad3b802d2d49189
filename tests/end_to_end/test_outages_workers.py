"""Workers start and end in order while what they need is away."""

import time
from pathlib import Path

import pytest

from tests.end_to_end.platform import WORKERS, Platform, wait_until
from tests.end_to_end.traffic import Traffic

STOP_SECONDS = 40  # stop_grace_period in docker-compose.yml


def start_with_liveness(platform: Platform, folder: Path) -> dict[str, Path]:
    """Starts all workers, and returns the file of each that its loop touches about once a second."""
    files = {name: folder / name for name in WORKERS}
    for name, path in files.items():
        platform.start(name, LIVENESS_FILE=str(path))
    return files


@pytest.mark.parametrize("away", [("kafka", "smtp_sink"), ("mariadb", "redis")])
def test_a_worker_waits_for_what_is_away_at_its_start(
    platform: Platform, away: tuple[str, ...], tmp_path: Path
) -> None:
    platform.overrides = {"RECONCILE_AFTER_SECONDS": "1", "RECONCILE_POLL_SECONDS": "1"}
    platform.services.stop(*away)
    files = start_with_liveness(platform, tmp_path)
    wait_until(lambda: all(path.exists() for path in files.values()), 60, "each worker is in its loop")
    first = {name: path.stat().st_mtime for name, path in files.items()}
    wait_until(lambda: all(files[name].stat().st_mtime > first[name] + 2 for name in files), 30, "each goes on")
    platform.assert_all_live()
    platform.services.start(*away)
    platform.start("notification_api")
    notification_id = platform.post().json()["id"]
    platform.wait_final(notification_id, 90)
    # one that was heard of is made silent: only a working reconciler finds it
    silent = "UPDATE notifications SET status = 'PENDING', status_version = 0, reconcile_at = created_at"
    platform.sql("notification", silent)
    platform.wait_final(notification_id, 30)
    platform.assert_one_mail_each([notification_id])
    platform.assert_no_budget_was_spent()
    platform.assert_all_live()


def test_sigterm_ends_each_process_with_0_while_all_it_needs_is_away(platform: Platform) -> None:
    leases = {"KAFKA_MESSAGE_TIMEOUT_SECONDS": "5", "OUTBOX_LEASE_SECONDS": "8", "EMAIL_LEASE_SECONDS": "8"}
    platform.overrides = {**leases, "EMAIL_RETRY_BASE_SECONDS": "1"}
    platform.start_all()
    with Traffic(platform) as traffic:
        traffic.wait_until_flowing()
        traffic.wait_for_more(20)
        platform.services.stop()
        began = time.monotonic()
        codes = platform.stop_all()
        took_seconds = time.monotonic() - began
        platform.services.start()
        platform.start_all()
    assert set(codes.values()) == {0}, codes
    assert took_seconds < STOP_SECONDS
    traffic.assert_each_is_sent(90)
    assert platform.count("email", "dead_letters") + platform.count("notification", "dead_letters") == 0
