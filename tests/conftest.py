"""What every test gets: reproducible hypothesis runs, quiet threads, a place for a store."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code; in CI the examples are the same at every run.
settings.register_profile("local", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture
def store_path(tmp_path: Path) -> str:
    """Where a store can be made: a path that does not exist yet."""
    return str(tmp_path / "campaign")


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in an empty directory, so that relative paths land there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
