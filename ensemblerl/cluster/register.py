"""Which jobs a driver has in the queue, in a file: whoever comes after a killed one ends them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ensemblerl.store.running import gone, process


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
        self._sent: set[str] = set()

    def sent(self, title: str) -> None:
        """A job is being submitted; a driver that ends just now never knows its id."""
        self._sent.add(title)
        self._write()

    def add(self, job_id: str, title: str) -> None:
        """A job is in the queue."""
        self._ids[job_id] = title
        self._sent.discard(title)
        self._write()

    def remove(self, *words: str) -> None:
        """Jobs of these ids, or titles, are no more."""
        if not (self._ids.keys() | self._sent).isdisjoint(words):
            self._sent.difference_update(words)
            for word in words:
                self._ids.pop(word, None)
            self._write()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk is no reason to stop
            if not (self._ids or self._sent):
                self._path.unlink(missing_ok=True)
                return
            about = {**process(), "jobs": self._ids, "sent": sorted(self._sent)}
            part.write_text(json.dumps(about))
            os.replace(part, self._path)  # noqa: PTH105

    def inherit(self) -> tuple[dict[str, str], list[str]]:
        """Jobs of drivers that are gone: id -> title, and titles of those whose id is not known.
        They are in our file from now on, and in theirs no more.
        """
        ids, titles, read = dict[str, str](), list[str](), list[Path]()
        for path in sorted(self._directory.glob("jobs-*.json")):
            try:
                about = json.loads(path.read_text())
                if path != self._path and gone(about, alone=self._alone):
                    ids.update(about["jobs"])
                    titles += about.get("sent", [])
                    read.append(path)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        self._ids.update(ids)
        self._sent.update(titles)
        self._write()
        for path in read:
            with contextlib.suppress(OSError):
                path.unlink()
        return ids, titles
