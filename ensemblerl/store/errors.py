"""What can go wrong with a store, told with the path and the remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

FORMAT = 1
"""Version of the store's layout on disk, in ``campaign.json``; others are refused."""


class StoreError(OSError):
    """The store cannot be read or written: the message names the path and what to do."""


class StoreFormatError(ValueError):
    """The store was written in a format that this version does not know."""


class StoreLocked(RuntimeError):
    """Another driver holds the store."""


REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run again, nothing acknowledged is lost",
    errno.EDQUOT: "the quota is used up: free some space and run again, nothing is lost",
    errno.EROFS: "the file system is read-only: choose a store= path that can be written to",
    errno.EACCES: "no permission: choose a store= path that you may write to",
    errno.EPERM: "not permitted: choose a store= path that you may write to",
    errno.ENOTDIR: "a file is in the way: choose another store= path",
    errno.EEXIST: "a file is in the way: choose another store= path",
    errno.ENOENT: "the directory is gone: was the store moved or deleted?",
}


def failure(error: OSError, path: str | os.PathLike[str], doing: str) -> StoreError:
    """A `StoreError` for this error, naming the path, what was tried and the remedy."""
    if isinstance(error, StoreError):
        return error
    code = error.errno or errno.EIO
    remedy = REMEDIES.get(code, "see the operating system's message")
    told = f"cannot {doing} ({error.strerror or error}); {remedy}"
    return StoreError(code, told, str(Path(path)))
