"""``ds.erl``: what a campaign's Dataset knows of its campaign beyond its own variables.

Imports nothing of ours before it is used: `ensemblerl.store.backend` imports it, so that every
Dataset that comes from a store has it, however it was opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ensemblerl.protocols import Goal


@xr.register_dataset_accessor("erl")  # type: ignore[no-untyped-call]
class Erl:
    """The campaign that a Dataset comes from.

    What it says is about the members that the Dataset holds: all of them, or those picked with
    ``isel``. ``best``, ``failures``, ``to_dataframe``, ``importance``, ``plot.history`` and
    ``plot.parameters`` need nothing but the Dataset; ``answer``, ``reread``, ``hours``,
    ``learning`` and ``plot.learning`` want the store, or a Dataset as `ensemblerl.explore`
    returned it; ``plot.policy`` wants the store.

    Parameters
    ----------
    ds : from `ensemblerl.explore`, `ensemblerl.open`, or ``xr.open_dataset`` on a store
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        from ensemblerl.report.abilities import listed

        return "\n".join(["ds.erl: the campaign that this Dataset comes from", *listed(self)])

    def answer(self) -> xr.Dataset:
        """The goal's answer from the members that the Dataset holds.

        Returns
        -------
        xarray.Dataset
            what the goal estimates; ``attrs["verdict"]`` says it in words. Of `Minimize` and
            `Maximize`: ``best_member``, ``best_value``, ``n_ok``, ``n_failed``, ``incumbent``; with
            constraints also ``n_violating`` and ``n_missed``, of a noisy goal ``best_mean``,
            ``best_sd`` and ``n_draws``.

        Raises
        ------
        ValueError
            for a goal of somebody else: ``ds.erl.reread(goal).erl.answer()`` gives its answer;
            and when the Dataset does not know its store
        """
        from ensemblerl.report.answers import answer

        return answer(self._ds)

    def best(self, n: int = 1) -> xr.Dataset:
        """The n members with the largest rewards, best first; they keep their numbers.

        Of a noisy goal those with the largest posterior means, one a point: its lowest number.

        Returns
        -------
        xarray.Dataset
            like this one, with fewer than n members where fewer are ok

        Raises
        ------
        ValueError
            where no member is ok, and for an ``n`` below 1
        """
        from ensemblerl.report.tables import best

        return best(self._ds, n)

    def failures(self) -> pd.DataFrame:
        """The members that are settled and not ok.

        Returns
        -------
        pandas.DataFrame
            index ``member``; columns ``fate``, ``cause``, ``attempts``, then the parameters.
            ``attrs["units"]``: column -> units. `ensemblerl.report.causes.grouped` groups them.
        """
        from ensemblerl.report.tables import failures

        return failures(self._ds)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a member, one column for everything that is one number or text a member.

        Returns
        -------
        pandas.DataFrame
            index ``member``; columns: parameters, results, ``reward``, ``fate``, times and the
            rest. ``attrs["units"]``: column -> units; ``attrs["left_out"]``: name of each array
            that has no place here -> its dimensions.
        """
        from ensemblerl.report.tables import to_dataframe

        return to_dataframe(self._ds)

    def reread(self, goal: Goal) -> xr.Dataset:
        """The campaign under another goal, from the results that were kept; nothing is run.

        The goal's ``reduce`` and ``value`` are given the mapping name -> array of each member
        with results, a few members at a time, and only variables that they ask for are read.
        Members without results stay what they are.

        Parameters
        ----------
        goal : the new question

        Returns
        -------
        xarray.Dataset
            like this one, with other ``reward``; where the new goal has no finite value ``fate``
            is ``invalid``, and ``cause`` says why. What ``erl`` says of it is about the new goal.

        Raises
        ------
        TypeError
            for anything but a goal
        ValueError
            for a variable that is not there, for a goal with a value for no member at all, and
            when the Dataset does not know its store
        """
        from ensemblerl.report.rereading import reread

        return reread(self._ds, goal)

    def hours(self, *, n_workers: int | None = None) -> xr.Dataset:
        """Where the worker time of the whole campaign went, and whether longer jobs cost less.

        Parameters
        ----------
        n_workers : members side by side, for a campaign without jobs of a queue; None: only run
            times are known then, not what waited

        Returns
        -------
        xarray.Dataset
            ``worker_hours``, ``core_hours`` (NaN without jobs) and ``share`` of each ``part``;
            with jobs also ``replayed_hours``: the worker time that the same members take in jobs
            of another ``walltime`` (NaN: too short for some). ``attrs["verdict"]`` says it in
            words.

        Raises
        ------
        ValueError
            for an ``n_workers`` below 1, and when the Dataset does not know its store
        """
        from ensemblerl.report.hours import hours
        from ensemblerl.resolve import whole

        if n_workers is not None:
            n_workers = whole("n_workers", n_workers)
        return hours(self._ds, n_workers=n_workers)

    def importance(self, *, seed: int = 0) -> xr.Dataset:
        """How much each parameter matters for the reward, as a critic sees it: Sobol' indices.

        A Gaussian process is fitted to the ok members, at most 2,000 of them: the best half, and
        others evenly. Of rewards as they are, or bent as the agent's own critic sees them,
        whichever foretells more. Indices are those of its forecast, at points of the prior
        without known constraints, on the scale of the reward itself: what they are shares of does
        not depend on which members there are. Another scale is another goal, see `reread`.
        Estimators are those of Saltelli et al. 2010, doi:10.1016/j.cpc.2009.09.018, table 2, (b)
        and (f).

        Parameters
        ----------
        seed : of the points and of the draws from the critic's posterior

        Returns
        -------
        xarray.Dataset
            dim ``parameter``, most important first: ``first``, the share of the variance that is
            due to a parameter alone, and ``total``, with all that it takes part in; ``first_se``
            and ``total_se``, standard errors of the estimator and of what the critic is unsure
            of. ``attrs["skill"]`` and ``attrs["skill_se"]``: the share of the variance under the
            prior that the critic foretells, each member left out in turn, and its standard error;
            ``attrs["sure"]``: the share that it is sure of by its own word, see
            `ensemblerl.report.critic.skill`. What is missing to 1 may be due to any parameter.
            ``attrs["verdict"]`` says all of it in words; ``attrs["objective"]``,
            ``attrs["n_members"]`` and ``attrs["critic"]``: what was fitted.

        Raises
        ------
        ValueError
            for fewer ok members than 2 (parameters + 1), for rewards that are all alike, and for
            a Dataset without its space
        """
        from ensemblerl.report.importance import importance
        from ensemblerl.resolve import whole

        return importance(self._ds, seed=whole("seed", seed, least=0))

    @property
    def plot(self) -> Plots:
        """Pictures of the campaign.

        Raises
        ------
        ImportError
            without matplotlib
        """
        from ensemblerl.report.figures import require

        require()
        return Plots(self._ds)

    def learning(self) -> xr.Dataset:
        """What its agent told of its lessons, as it stands now.

        Returns
        -------
        xarray.Dataset
            dim ``lesson``; see `ensemblerl.store.learning.read`

        Raises
        ------
        ValueError
            when no agent learnt in this campaign, or the Dataset does not know its store
        """
        from ensemblerl.store.kept import store_of
        from ensemblerl.store.learning import KEPT, dataset, read

        if KEPT in self._ds.encoding:
            rows: list[dict[str, Any]] = self._ds.encoding[KEPT]
            if not rows:
                raise ValueError("no agent learnt in this campaign")
            return dataset(rows)
        return read(store_of(self._ds, "learning()"))


class Plots:
    """Pictures of a campaign, for a column of 3.3 inches: ``ds.erl.plot``.

    Parameters
    ----------
    ds : the campaign
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        from ensemblerl.report.abilities import listed

        return "\n".join(["ds.erl.plot: pictures of the campaign", *listed(self)])

    def history(self, ax: Axes | None = None) -> Axes:
        """The best value so far against the members in launch order.

        Each ok member is a dot, each failure a cross at the bottom. The line ends before the
        first member that is not settled yet, so that quick members do not show before slow ones.
        The axis is logarithmic where all values are positive and differ a hundredfold or more.
        A few values so far away that all others would look alike are triangles at the edge, on
        axes that are empty before. A name that is too long is cut in its middle.

        Parameters
        ----------
        ax : where to draw; on a figure of its own when None

        Raises
        ------
        TypeError
            for anything but matplotlib's Axes
        """
        from ensemblerl.report.history import history

        return history(self._ds, ax)

    def parameters(self, names: Sequence[str] | None = None) -> Figure:
        """Which points were tried, coloured by the rank of their values; the best is a star.

        One panel for each pair of parameters where there are two to six, else one panel for each
        parameter against the value. A member is not shown where a parameter is inactive. Equal
        values have one colour; there is no star where all are equal.

        Parameters
        ----------
        names : parameters to show, in this order; all when None

        Raises
        ------
        ValueError
            for a name that is no parameter
        """
        from ensemblerl.report.panels import parameters

        return parameters(self._ds, names)

    def policy(
        self,
        names: Sequence[str] | None = None,
        *,
        n_versions: int = 4,
        n_parameters: int = 8,
        n_pairs: int = 2,
    ) -> Figure:
        """What a policy has learnt: its marginals over time, and the last one in pairs.

        One panel for each parameter, most important first: by what the last version has learnt of
        it, the Kullback-Leibler divergence of its marginal from the prior. In a panel a row for
        the prior, and above it one for each version, by the members that were settled when it was
        learnt. Rows are densities of draws along the axis, each as high as its highest; of
        discrete parameters they are bars. They are of draws for which a parameter counts; beside
        the panel stands what share that is.

        Below, the pairs of which the last version has learnt most, their dependence included. A
        panel is as near as its draws are: it shows the densest regions that hold 50, 90 and 99 %
        of them, with the ok members there.

        The policy is shown as it learnt, without the shares of prior and widened policy that its
        draws are mixed with, and without known constraints.

        Parameters
        ----------
        names : parameters to show, in this order; the most important ones when None
        n_versions : at most, evenly from the first that was learnt to the last
        n_parameters : at most, where ``names`` is None
        n_pairs : at most, of the parameters shown

        Raises
        ------
        ValueError
            for a name that is no parameter, for numbers that are not whole or too small, where no
            agent learnt, for a policy that is not one of `ensemblerl.agents`, and when the Dataset
            does not know its store
        """
        from ensemblerl.report.marginals import policy
        from ensemblerl.resolve import whole

        return policy(
            self._ds,
            names,
            n_versions=whole("n_versions", n_versions),
            n_parameters=whole("n_parameters", n_parameters),
            n_pairs=whole("n_pairs", n_pairs, least=0),
        )

    def learning(self) -> Figure:
        """How the campaign learnt, against its members: one panel below the other.

        The best value so far; the entropy of the policy relative to the prior; skill and weight of
        each critic; and who proposed the members, as shares of the newest ones at each time.
        Members that a critic picked are that critic's. What was not told has no panel.

        Raises
        ------
        ValueError
            when no agent learnt in this campaign, or the Dataset does not know its store
        """
        from ensemblerl.report.lessons import learning

        return learning(self._ds, Erl(self._ds).learning())
