"""Places for the files of a probe, with nothing left of them."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0
"""Seconds for files to go."""
TAIL = 8
"""Lines of a log that are told."""
OTHERS = {".sh", ".json", ".part", ".pem"}
"""Endings of files of ours that are no logs."""


@contextmanager
def scratch(root: Path, title: str) -> Iterator[Path]:
    """A directory of our own there, and nothing of it, or made for it, afterwards."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    directory = root / title
    directory.mkdir(mode=0o700, parents=True)
    try:
        yield directory
    finally:
        for stray in Path.cwd().glob(f"{title}*"):
            stray.unlink(missing_ok=True)
        until = time.monotonic() + PATIENCE
        while True:  # what somebody still holds open cannot go yet, on some network disks
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists() or time.monotonic() > until:
                break
            time.sleep(0.5)
        for path in missing:
            with contextlib.suppress(OSError):  # somebody else uses it now
                path.rmdir()


@contextmanager
def marked(store: Path | None, title: str) -> Iterator[Path | None]:
    """A file where the store is, or will be, that nodes should see."""
    if store is None:
        yield None
        return
    near = next(p for p in (store, *store.parents) if p.exists())
    mark = near / f".{title}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def tail(directory: Path, title: str) -> str:
    """The last lines of what the job of this name has printed.

    In its directory; some queues put it where the job was submitted, whatever the script says.
    """
    lines: list[str] = []
    for path in sorted([*directory.rglob("*"), *Path.cwd().glob(f"{title}*")]):
        if path.is_file() and path.suffix not in OTHERS:
            text = path.read_text(errors="replace")
            lines += [line for line in text.splitlines() if line.strip()][-TAIL:]
    return "\n".join(lines)
