"""The policies of a campaign: one read-only file a version, in the store's ``policy/``."""

from __future__ import annotations

from pathlib import Path

from ensemblerl.policyfile import FOLDER, file_name, load, pack
from ensemblerl.records import Snapshot
from ensemblerl.store.errors import failure
from ensemblerl.store.files import write_aside

READ_ONLY = 0o444


def publish(root: Path, snapshot: Snapshot) -> None:
    """Write aside and rename; a file that holds just this already is left alone.

    A file of the same version that differs was written by a driver that ended before the event:
    no member carries it, and it is replaced.

    Raises
    ------
    StoreError
        when it cannot be written
    """
    path, data = root / FOLDER / file_name(snapshot.version), pack(snapshot)
    try:
        if path.exists() and path.read_bytes() == data:
            return
    except OSError as error:
        raise failure(error, path, "read a policy") from error
    write_aside(path, data, mode=READ_ONLY)


def published(root: Path, version: int) -> Snapshot | None:
    """The snapshot of this version; None where there is none.

    Raises
    ------
    SnapshotError
        when its file is damaged
    """
    path = root / FOLDER / file_name(version)
    return load(path) if path.exists() else None
