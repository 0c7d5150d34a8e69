"""Which jobs a driver has in the queue, in a file: whoever comes after a killed one ends them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ensemblerl.store.running import lives, process
from ensemblerl.store.segments import host_name


class Register:
    """The file of one driver, ``jobs-TOKEN.json``.

    Parameters
    ----------
    directory : where job scripts are
    token : of this driver
    alone : nobody but this driver may be at work in the directory (it is in a locked store)
    """

    def __init__(self, directory: Path, token: str, *, alone: bool = False) -> None:
        self._directory, self._alone = directory, alone
        self._path = directory / f"jobs-{token}.json"
        self._ids: dict[str, str] = {}

    def add(self, job_id: str, title: str) -> None:
        """A job is in the queue."""
        self._ids[job_id] = title
        self._write()

    def remove(self, job_id: str) -> None:
        """It is no more."""
        if self._ids.pop(job_id, None) is not None:
            self._write()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            if not self._ids:
                self._path.unlink(missing_ok=True)
                return
            part.write_text(json.dumps({**process(), "jobs": self._ids}))
            os.replace(part, self._path)  # noqa: PTH105

    def inherited(self) -> dict[str, str]:
        """Jobs of drivers that are gone: id -> title. Their files are taken away."""
        found: dict[str, str] = {}
        for path in sorted(self._directory.glob("jobs-*.json")):
            try:
                about = json.loads(path.read_text())
                here = about["host"] == host_name()
                gone = not lives(about) if here else self._alone
                if path != self._path and gone:
                    found.update(about["jobs"])
                    path.unlink()
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found
