"""The front door: fills in what was left open, then runs a `Campaign`."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ensemblerl.calling import check_call
from ensemblerl.campaign import Campaign
from ensemblerl.executors.serial import ByHand
from ensemblerl.goals.minimize import Minimize
from ensemblerl.loop.stopping import StopRule
from ensemblerl.progress import Progress
from ensemblerl.protocols import Executor, Goal, Sampler, Simulation
from ensemblerl.provenance import Mismatch, check_same, provenance
from ensemblerl.resolve import as_executor, as_sampler, whole
from ensemblerl.simulations.function import as_simulation
from ensemblerl.space import Space
from ensemblerl.store.directory import DirectoryStore
from ensemblerl.store.learning import in_memory
from ensemblerl.store.reading import is_store
from ensemblerl.store.running import own
from ensemblerl.warm.starting import WarmStart, hand_over, starting

if TYPE_CHECKING:
    import xarray as xr


class Given(NamedTuple):
    """What somebody asked for at the front door, checked, before anything is opened or run."""

    simulation: Simulation
    space: Space
    goal: Goal
    sampler: Sampler
    executor: Executor
    store: Path
    n_members: int
    n_pending: int | None
    stop: StopRule | Sequence[StopRule] | None
    max_failures: float | None
    bundle: int | str
    seed: int | None


WATCHING: ContextVar[Callable[[Given], NoReturn] | None] = ContextVar("WATCHING", default=None)
"""When set, `prepare` hands over what it was given and does nothing else: this is how the command
line looks at a workflow. What is called here raises, and closes the executor."""


def explore(
    simulation: Callable[..., Any],
    space: Space,
    goal: Goal,
    *,
    n_members: int,
    sampler: Any = None,
    warm_start: Any = None,
    cluster: Any = None,
    store: str | Path | None = None,
    n_pending: int | None = None,
    stop: StopRule | Sequence[StopRule] | None = None,
    max_failures: float | None = None,
    bundle: int | str = "auto",
    seed: int | None = None,
    accept_version: bool = False,
    tags: Mapping[str, str] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run a campaign, or go on with the one in ``store``, and return it as one Dataset.

    Parameters
    ----------
    simulation : a function of the parameters, called as ``simulation(**point)`` (also with
        ``seed`` and ``member`` if it names them), or as ``simulation(point, seed)``; returns a
        float, a mapping of arrays or an `xarray.Dataset`. `Function` carries cores, timeout,
        retries, version, isolation.
    space : the parameters
    goal : the question
    n_members : total number of members, those already in the store included
    sampler : a `Sampler`, or a callable of the cube such as ``samplers.Sobol``; when None the
        agent `MaxEnt`, with some points from a Sobol' sequence and from a plain search
    warm_start : what is known beforehand: the path of an earlier store or its Dataset,
        `Earlier` for a table, or `Guess`. It steers where the agent begins and enters no answer; a
        campaign that goes on needs it no more
    cluster : None (local Dask workers, one for each core), an executor such as ``Serial()``, any
        ``concurrent.futures.Executor``, a ``distributed.Client``, or a Dask cluster object
    store : directory; a temporary one, removed in the end, when None
    n_pending : members in flight at most; the workers plus a tenth when None
    stop : rules such as ``"best_reward >= 0.9 or elapsed > 3600"``, callables of the ledger, or
        a list
    max_failures : consecutive failures, or share of failures, that stop the campaign
    bundle : members to a task; "auto" lets short ones travel together
    seed : drawn and recorded when None
    accept_version : go on although the simulation's code changed
    tags : kept with the provenance
    progress : show a bar where the error stream is a terminal, and elsewhere a line when workers
        are missing

    Returns
    -------
    xarray.Dataset
        dim ``member``; parameters as coordinates; results, ``reward``, ``fate``, ...

    Raises
    ------
    Mismatch
        when the store holds a campaign with another space, goal, seed or warm start
    CampaignFailed
        when ``max_failures`` is exceeded
    """
    with tempfile.TemporaryDirectory(prefix="ensemblerl-") as scratch, Progress(progress) as watch:
        own(Path(scratch))
        campaign = prepare(
            simulation,
            space,
            goal,
            n_members=n_members,
            sampler=sampler,
            warm_start=warm_start,
            cluster=cluster,
            store=Path(scratch) / "store" if store is None else store,
            n_pending=n_pending,
            stop=stop,
            max_failures=max_failures,
            bundle=bundle,
            seed=seed,
            accept_version=accept_version,
            tags=tags,
            watch=watch,
        )
        watch.begin(campaign)
        campaign.run()
        ds = campaign.store.open()
        return in_memory(ds) if store is None else ds


def prepare(
    simulation: Callable[..., Any] | None,
    space: Space,
    goal: Goal,
    *,
    n_members: int,
    store: str | Path,
    sampler: Any = None,
    warm_start: Any = None,
    cluster: Any = None,
    n_pending: int | None = None,
    stop: StopRule | Sequence[StopRule] | None = None,
    max_failures: float | None = None,
    bundle: int | str = "auto",
    seed: int | None = None,
    accept_version: bool = False,
    tags: Mapping[str, str] | None = None,
    watch: Callable[[Campaign], None] | None = None,
) -> Campaign:
    """A `Campaign` that is ready, for people who drive the loop themselves.

    Arguments as for `explore`; ``watch`` is called with the campaign after each turn. With
    ``simulation=None`` members are run by hand:

    >>> import tempfile
    >>> import ensemblerl as erl
    >>> space = erl.Space(x=erl.Real(-1, 1))
    >>> path = tempfile.mkdtemp() + "/by-hand"
    >>> with erl.prepare(None, space, erl.Minimize(), n_members=4, store=path, seed=1) as campaign:
    ...     members = campaign.ask(4)
    ...     campaign.tell(members, [x**2 for x in members.points["x"]])
    ['ok', 'ok', 'ok', 'ok']
    """
    path = _check(space, goal, store, tags)
    by_hand = simulation is None
    run = as_simulation(_by_hand if simulation is None else simulation)
    check_call(run, space)
    n_members = whole("n_members", n_members)
    n_pending = None if n_pending is None else whole("n_pending", n_pending)
    chosen = as_sampler(sampler, space, n_members)
    start = starting(warm_start, chosen, space, goal)
    if start is not None and not is_store(path):
        start.read()  # what does not fit is said before anything is opened
    if (watching := WATCHING.get()) is not None:
        executor = ByHand() if by_hand else as_executor(cluster)
        parts = (run, space, goal, chosen, executor, path, n_members, n_pending)
        watching(Given(*parts, stop, max_failures, bundle, seed))
    kept = _opened(path, space, goal, seed, start)
    number = kept.provenance["seed"] if kept else _drawn(seed)
    if kept is None:
        hints, about = (None, None) if start is None else start.read()
        made = provenance(run, space, goal, chosen, seed=number, tags=tags, warm_start=about)
        kept = DirectoryStore.create(path, made, hints)
    try:
        hand_over(chosen, kept.warm)
        campaign = Campaign(
            run,
            space,
            goal,
            sampler=chosen,
            executor=ByHand() if by_hand else as_executor(cluster),
            store=kept,
            n_members=n_members,
            seed=number,
            n_pending=n_pending,
            stop=stop,
            max_failures=max_failures,
            bundle=bundle,
            watch=watch,
        )
        campaign.load()
        if not (accept_version or by_hand):
            _check_version(campaign)
    except BaseException:
        kept.close()
        raise
    return campaign


def _by_hand(**point: Any) -> float:
    raise RuntimeError("this campaign is driven by hand: run the members and tell the results")


def _check(space: Any, goal: Any, store: Any, tags: Any) -> Path:
    """The store's path, when all these are what they should be."""
    if not isinstance(space, Space):
        raise TypeError(f"space: wanted an ensemblerl.Space, got {type(space).__name__}")
    if isinstance(goal, type) or not isinstance(goal, Goal):
        came = f"the class {goal.__name__}" if isinstance(goal, type) else type(goal).__name__
        raise TypeError(f"goal: wanted a goal such as {Minimize('value')!r}, got {came}")
    if not isinstance(store, (str, Path)) or not str(store):
        raise TypeError(f"store: wanted a path, got {store!r}")
    texts = isinstance(tags, Mapping) and all(isinstance(t, str) for kv in tags.items() for t in kv)
    if tags is not None and not texts:
        raise TypeError(f"tags: wanted a dict of text to text, got {tags!r}")
    return Path(store).expanduser()


def _drawn(seed: int | None) -> int:
    """The seed given, or one from the system; small enough to be typed in again."""
    if seed is None:
        return secrets.randbelow(2**31 - 1)
    if whole("seed", seed, least=0) >= 2**63:
        raise ValueError(f"seed: wanted a whole number below 2**63, got {seed}")
    return int(seed)


def _opened(
    path: Path, space: Space, goal: Goal, seed: int | None, start: WarmStart | None
) -> DirectoryStore | None:
    """The store at this path if there is one, refused if it is another campaign's."""
    if not is_store(path):
        return None
    store = DirectoryStore.resume(path)
    try:
        check_same(str(path), store.provenance, space, goal)
        if seed is not None and seed != store.provenance["seed"]:
            raise Mismatch(
                f"seed: {path} was begun with seed {store.provenance['seed']}, got {seed}; "
                "leave seed out to go on"
            )
        if start is not None:
            start.check_same(str(path), store.provenance.get("warm_start"))
    except BaseException:
        store.close()
        raise
    return store


def _check_version(campaign: Campaign) -> None:
    """Ask for a word when the simulation's code changed since the last session."""
    sessions, now = campaign.ledger.sessions, campaign.simulation.version or ""
    over = campaign.ledger.n_settled >= campaign.n_members
    if sessions and sessions[-1].version != now and not over:
        raise Mismatch(
            f"simulation: its code changed: version {sessions[-1].version!r} in the store, "
            f"{now!r} now. Members keep the version they were run with; accept_version=True "
            "goes on with the new one."
        )
