"""What a fault leaves behind that nothing else does: a row without its traces has not shown it."""

from __future__ import annotations

import re
from typing import Any

from fault_tools import wait_for
from slurm import PrivateSlurm


class NoFault(AssertionError):
    """The fault was not injected, or nobody felt it: the row shows nothing."""


def ended_as(slurm: PrivateSlurm, job: str, *states: str, timeout: float = 12.0) -> None:
    """The queue says that the job ended so, now: at its end a campaign cancels all jobs.

    Raises
    ------
    NoFault
        naming the state that it is in
    """
    try:
        wait_for(lambda: slurm.job(job)["JobState"] in states, "the end of the job", timeout)
    except TimeoutError:
        state = slurm.job(job)["JobState"]
        raise NoFault(f"job {job} is {state}, wanted {' or '.join(states)}") from None


def started_again(slurm: PrivateSlurm, job: str, timeout: float = 60.0) -> None:
    """The queue took the job from its node, to start it again or to give it up.

    Raises
    ------
    NoFault
        when it did not
    """

    def taken() -> bool:
        about = slurm.job(job)
        return int(about["Restarts"]) >= 1 or about["JobState"] == "NODE_FAIL"

    try:
        wait_for(taken, "the queue takes the job back", timeout)
    except TimeoutError:
        raise NoFault(f"job {job} was not taken from its node") from None


def cancelled_waiting(slurm: PrivateSlurm, job: str) -> None:
    """Somebody cancelled the job while it waited: it never came to a node."""
    about = slurm.job(job)
    assert about["JobState"] == "CANCELLED", about["JobState"]
    assert about["NodeList"] in ("", "(null)"), f"job {job} has run on {about['NodeList']}"


def losses(handle: Any) -> list[Any]:
    """Attempts that the infrastructure lost."""
    ended = handle.campaign.ledger.attempts.values()
    return [outcome for outcomes in ended for outcome in outcomes if outcome.fate == "lost"]


def lost_attempts(handle: Any, cause: str) -> str:
    """A remark: attempts were lost, at least one by this cause (a pattern), none charged.

    Raises
    ------
    NoFault
        when none was lost by that
    """
    found = losses(handle)
    causes = sorted({outcome.cause for outcome in found})
    if not any(re.search(cause, text) for text in causes):
        raise NoFault(f"no attempt was lost by {cause!r}, but {causes or 'none at all'}")
    charged = [outcome for outcome in found if not outcome.blameless]
    assert not charged, f"charged to members: {charged}"
    return f"{len(found)} attempts lost"


def went_on(handle: Any, numbers: list[int]) -> str:
    """A remark: these members, whose worker was killed, came to the end of that same attempt."""
    if not numbers:
        raise NoFault("no member ran there")
    attempts = {i: int(handle.campaign.ledger["attempt"][i]) for i in numbers}
    assert set(attempts.values()) == {1}, f"attempts of members that were running: {attempts}"
    # a member that its worker was just about to begin may be lost; none of these
    assert not any(outcome.number in attempts for outcome in losses(handle)), losses(handle)
    return f"{len(numbers)} members went on without their worker"
