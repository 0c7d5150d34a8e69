"""The store of a campaign: a directory.

``campaign.json`` (provenance and format), ``ledger.jsonl`` (events, the truth), ``segments/``
(results as workers wrote them), one Zarr v3 array a directory (what was compacted),
``compacted.json`` (which rows those arrays hold), ``zarr.json`` (the group, once closed),
``checkpoint.npz`` (the sampler's state), ``policy/`` (versions of an agent's policy, read-only),
``learning.jsonl`` (its telemetry), ``note.json`` (why workers are missing), ``jobs/`` (of a queue)
and ``lock``.
"""
