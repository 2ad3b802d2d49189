import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from manage_scripts.services import Services
from tests.end_to_end.platform import Platform


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform with its schema and topics, on the services of NOTIFYX_SERVICES_DIR."""
    services = Services(Path(os.environ["NOTIFYX_SERVICES_DIR"]))
    services.start()
    with Platform(services, tmp_path_factory.mktemp("logs")) as platform:
        platform.prepare()
        yield platform


@pytest.fixture
def platform(prepared: Platform) -> Iterator[Platform]:
    """A platform of which nothing runs yet, with empty tables; whatever a test left running is ended."""
    prepared.overrides = {}
    prepared.reset()
    yield prepared
    prepared.kill_all()
