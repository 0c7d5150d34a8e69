"""``ds.erl``: what a campaign's Dataset knows of its campaign beyond its own variables.

Imports nothing of ours before it is used: `ensemblerl.store.backend` imports it, so that every
Dataset that comes from a store has it, however it was opened.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr


@xr.register_dataset_accessor("erl")  # type: ignore[no-untyped-call]
class Erl:
    """The campaign that a Dataset comes from.

    Parameters
    ----------
    ds : from `ensemblerl.explore`, `ensemblerl.open`, or ``xr.open_dataset`` on a store
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

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
        from ensemblerl.store.learning import KEPT, dataset, read
        from ensemblerl.store.reading import is_store

        if KEPT in self._ds.encoding:
            rows = self._ds.encoding[KEPT]
            if not rows:
                raise ValueError("no agent learnt in this campaign")
            return dataset(rows)
        source = str(self._ds.encoding.get("source", ""))
        if not source or not is_store(source):
            where = f"its store {source} is gone" if source else "it does not say from which store"
            raise ValueError(
                f"ds: wanted a Dataset as it was opened from a store, but {where}; keep the "
                "campaign with explore(..., store=...) and ask erl.open(store).erl.learning()"
            )
        return read(Path(source))
