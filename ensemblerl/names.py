"""Names that are taken: by the dataset's own columns, and by a simulation's call."""

from __future__ import annotations

COLUMNS = (
    *("member", "reward", "fate", "cause", "runtime", "worker", "attempt", "log_prob"),
    *("policy_version", "proposer", "launch_time", "start_time", "end_time", "seed", "group"),
    *("cycle", "task", "fidelity", "parent", "state", "left_state", "simulation_version"),
)
"""What the dataset says of every member, beside parameters and results."""

RESERVED = frozenset([*COLUMNS, "point", "constraints", "start"])
"""Names no parameter may have."""
