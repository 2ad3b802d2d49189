"""docker-compose.yml as tests read it: with its anchors merged and its variables not yet filled in."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@cache
def services() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return loaded


def command_of(service: str) -> list[str]:
    """The command line of a service, word by word, as a list that the caller may change. Unknown service: KeyError."""
    return list(services()[service]["command"])
