"""Global attributes of the dataset: CF, and what campaign it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ensemblerl.ledger import Ledger
from ensemblerl.store.codec import spelt
from ensemblerl.store.errors import FORMAT


def attributes(root: Path, provenance: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    """Name -> text or number: those of the results, then ours; ``space``, ``goal`` as JSON."""
    out: dict[str, Any] = {
        **(ledger.schema.layout.get("attrs", {}) if ledger.schema else {}),
        "Conventions": "CF-1.11",
        "title": str(provenance.get("title") or root.resolve().name),
        "source": f"EnsembleRL {_version()}",
        "ensemblerl_version": _version(),
        "store_format": FORMAT,
    }
    for name in ("goal", "space", "sampler", "simulation"):
        if name in provenance:
            out[name] = _text(provenance[name])
    if provenance.get("tags"):
        out["tags"] = _text(provenance["tags"])
    if "seed" in provenance:
        out["seed"] = provenance["seed"]
    if ledger.reason:
        out["reason"] = ledger.reason
    return out


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(spelt(content), allow_nan=False)


def _version() -> str:
    try:
        return version("ensemblerl")
    except PackageNotFoundError:
        return "unknown"
