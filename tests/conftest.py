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


def skipped_cluster_tests(reporter: pytest.TerminalReporter) -> list[str]:
    """Why tests with the marker ``slurm`` were skipped, each reason once."""
    reasons = {}
    for report in reporter.stats.get("skipped", ()):
        if "slurm" in report.keywords:
            said = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            reasons[str(said).removeprefix("Skipped: ")] = None
    return list(reasons)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a run without the cluster tests has not passed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and skipped_cluster_tests(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it so loudly that nobody takes a run without a cluster for a complete one."""
    for reason in skipped_cluster_tests(terminalreporter):
        terminalreporter.section("CLUSTER TESTS WERE SKIPPED", sep="!", red=True, bold=True)
        terminalreporter.line(f"CLUSTER TESTS WERE SKIPPED: {reason}", red=True, bold=True)
