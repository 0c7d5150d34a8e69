"""Tries a cluster with one small job before a campaign counts on it."""

from __future__ import annotations

import contextlib
import math
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ensemblerl.cluster import verdicts
from ensemblerl.cluster.batch import place
from ensemblerl.cluster.finding import BAD, Finding, Report
from ensemblerl.cluster.interfaces import Interface, Listener, interfaces, network
from ensemblerl.cluster.opening import opened
from ensemblerl.cluster.probe import environment
from ensemblerl.cluster.probing import Probing, interface_of, script_of
from ensemblerl.cluster.queues.base import NoQueue, Queue, queue_of, require
from ensemblerl.cluster.scratch import marked, scratch
from ensemblerl.cluster.script import job_text
from ensemblerl.cluster.settings import Settings
from ensemblerl.cluster.submission import start, submission
from ensemblerl.cluster.verdicts import Asked
from ensemblerl.cluster.walltime import duration
from ensemblerl.simulations import limits

__all__ = ["Report", "preflight"]

PROBE = "ensemblerl.cluster.probe"


def preflight(
    settings: Settings,
    *,
    member_cores: int = 1,
    expected_runtime: str | float | None = None,
    timeout: float | None = 300.0,
    segments: str = "",
    queue: Queue | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Submit one small job as the jobs of a campaign are, and say what would fail.

    It is ended, and its files are taken away, whatever happens.

    Parameters
    ----------
    settings : of the jobs
    member_cores : processor cores of one member
    expected_runtime : of one member: seconds, or text such as ``"20 min"``
    timeout : seconds that the job may wait in the queue, and as many for its first word; None: no
        limit
    segments : directory of that name in the store, where there is one
    queue : another way to the queue than its commands
    say : is told what is being waited for

    Raises
    ------
    ValueError
        naming the argument, what was wanted and what came
    """
    limits.whole("member_cores", member_cores, least=1)
    runtime = duration("expected_runtime", expected_runtime)
    patience = limits.seconds("timeout", timeout)
    queue = queue_of(settings.scheduler) if queue is None else queue
    try:
        require(*queue.commands)
    except NoQueue as error:
        return Report((Finding(BAD, "submit", str(error)),))
    if (unfit := verdicts.unfit(settings, member_cores)) is not None:
        return Report((unfit,))
    root, _ = place(settings, segments)
    store = Path(segments).parent.absolute() if segments else None
    if store is not None and root.is_relative_to(store.resolve()):
        store = None  # what goes for the directory goes for the store
    asked = Asked(settings, member_cores, runtime, str(root), str(store or ""))
    found: list[Finding] = []
    title = f"{settings.name}-probe-{secrets.token_hex(3)}"
    try:
        with scratch(root, title) as directory, marked(store, title) as mark:
            found += _tried(asked, queue, title, directory, mark, patience or math.inf, say)
    except OSError as error:
        why = f"{error.filename or root}: {error.strerror or error}"
        remedy = "give directory= and store= on a disk that all nodes share and where you may write"
        found.append(Finding(BAD, "directory", f"not to be used from here: {why}", remedy))
    return Report(tuple(found))


def _tried(
    asked: Asked,
    queue: Queue,
    title: str,
    directory: Path,
    mark: Path | None,
    timeout: float,
    say: Callable[[str], None],
) -> list[Finding]:
    try:
        text, used = _prepared(asked, directory, title)
    except ValueError as error:  # says itself what to do
        return [Finding(BAD, "scheduler", f"it does not start here: {error}")]
    except (RuntimeError, OSError) as error:
        why = str(error.__cause__ or error)
        remedy = "mend interface= or host=, which are of this machine too"
        return [Finding(BAD, "scheduler", f"it does not start here: {why}", remedy)]
    here = interfaces()
    addresses = list(dict.fromkeys([used, *(interface.address for interface in here)]))
    with Listener() as listener:
        probing = Probing(queue, title, directory, listener, timeout, say)
        command = [PROBE, str(probing.file), "--key", listener.key, "--port", str(listener.port)]
        command += ["--mark", str(mark)] if mark else []
        command += ["--at", *addresses]
        probing.run(script_of(text, title, asked.settings.scheduler, command))
        return list(_judged(probing, asked, here, used, listener.word, interface_of(text)))


def _prepared(asked: Asked, directory: Path, title: str) -> tuple[str, str]:
    """The script of a job with a worker, and the address of the scheduler that it would go to."""
    settings = asked.settings
    slots = settings.slots(asked.member_cores)
    pool = opened(settings, (slots, asked.member_cores, 1), directory, alone=False, commands=())
    try:
        name = pool.jobqueue.add()
        text = job_text(pool.jobqueue.script(name, title), settings)
        pool.jobqueue.drop(name)
        host = urlsplit(pool.cluster.scheduler_address).hostname or ""
    finally:
        pool.close()
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    return text, host


def _judged(
    probing: Probing, asked: Asked, here: list[Interface], used: str, word: str, interface: str
) -> Iterator[Finding]:
    yield submission(probing, asked.settings.scheduler)
    if probing.id:
        yield start(probing, asked.directory)
    report = probing.report
    if report is not None:
        yield from network(report, here, used, word, interface)
        yield from verdicts.same_environment(report, environment())
        yield from verdicts.directory(report, probing.shared, asked)
        yield from verdicts.processors(report, asked)
        yield from verdicts.gpus(report, asked)
        yield from verdicts.walltime(report, probing.seen.left, asked)
        yield from verdicts.clocks(report, probing.heard)
        yield from verdicts.room(report, asked)
    if probing.stuck:
        what = f"job {probing.id or probing.title} could not be ended: {probing.stuck}"
        yield Finding(BAD, "clean-up", what, "look for it in the queue, and end it by hand")
