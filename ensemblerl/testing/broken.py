"""Deliberately broken parts: each must fail the law it is tagged with, or the laws lack teeth."""

from __future__ import annotations

from ensemblerl.testing import (
    broken_executors,
    broken_goals,
    broken_learners,
    broken_notes,
    broken_policies,
    broken_samplers,
    broken_stores,
)
from ensemblerl.testing.core import Control

BROKEN: list[Control] = [
    *broken_samplers.BROKEN,
    *broken_notes.BROKEN,
    *broken_policies.BROKEN,
    *broken_learners.BROKEN,
    *broken_goals.BROKEN,
    *broken_stores.BROKEN,
    *broken_executors.BROKEN,
]
"""(name, law, check, make): ``check(make)`` raises `BrokenLawError` for exactly that law."""
