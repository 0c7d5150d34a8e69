"""One private Slurm for all tests of this folder; where it cannot be had they are skipped, loudly.

A test that asks for the fixture `slurm` gets the marker ``slurm``; afterwards the queue is emptied.
"""

import os
from collections.abc import Iterator

import pytest
import slurm_install
from slurm import PrivateSlurm

OBSTACLE = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need Slurm, so that nobody can forget to."""
    for item in items:
        if {"slurm", "slurm_session"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("slurm")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install Slurm if a test that was chosen needs it: here, where no test's clock is running."""
    wanted = any(item.get_closest_marker("slurm") for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    try:
        slurm_install.install()
    except slurm_install.CannotInstall as error:
        session.config.stash[OBSTACLE] = str(error)


@pytest.fixture(scope="session")
def slurm_session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateSlurm]:
    """The Slurm that all tests share; ask for `slurm` instead."""
    obstacle = request.config.stash.get(OBSTACLE, None)
    if obstacle:
        pytest.skip(obstacle)
    with PrivateSlurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def slurm(slurm_session: PrivateSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateSlurm]:
    """A Slurm with an empty queue; the commands of this process talk to it."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    for name, value in slurm_session.variables.items():
        monkeypatch.setenv(name, value)
    yield slurm_session
    slurm_session.reset()
