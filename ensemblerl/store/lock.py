"""One driver a store: a POSIX lock on a file that says who holds it.

POSIX locks end with their process however it ends, and do not exclude the same process, so the
paths held by this process are remembered beside them. Where locks do not reach other hosts, the
file's time of modification is the heartbeat of its holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from ensemblerl.store.errors import StoreError, StoreLocked, failure

STALE_SECONDS = 60.0
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_held: dict[tuple[int, str], float] = {}
"""(pid, path) of the locks that this process holds: a forked child holds none of them."""


class Lock:
    """The lock of one store, held from construction to `release`.

    Parameters
    ----------
    path : lock file, made when it is not there

    Raises
    ------
    StoreLocked
        naming host, process and when it was last seen, while another driver holds it
    StoreError
        when the file cannot be made
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = (os.getpid(), str(path.resolve()))
        if self._key in _held:
            raise StoreLocked(_told(path, {"host": socket.gethostname(), "pid": os.getpid()}))
        try:
            self._fd = self._take()
        except OSError as error:
            raise failure(error, path, "lock the store") from error
        _held[self._key] = time.time()
        self._sign()

    def _take(self) -> int:
        """The descriptor of the locked file."""
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                free = self._try(fd)
                if free and _same(fd, self.path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            if not free:  # held for a host that is gone: leave it that file, make a new one
                self.path.unlink(missing_ok=True)

    def _try(self, fd: int) -> bool:
        """True when locked, False when the lock is that of a host long silent."""
        holder = _read(fd)
        away = bool(holder) and holder.get("host") != socket.gethostname()
        silent = time.time() - os.fstat(fd).st_mtime
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                if away and silent > STALE_SECONDS:
                    return False
                raise StoreLocked(_told(self.path, holder, silent)) from None
            if not away and _alive(holder):
                raise StoreLocked(_told(self.path, holder, silent)) from None
        if away and silent <= STALE_SECONDS:
            raise StoreLocked(_told(self.path, holder, silent))
        return True

    def _sign(self) -> None:
        me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        with contextlib.suppress(OSError):  # a full disk does not make the lock less held
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(me).encode(), 0)

    def beat(self) -> None:
        """Show that the holder lives.

        Raises
        ------
        StoreError
            when another driver took the store over, because this one was silent for too long;
            or after `release`
        """
        if self._fd < 0:
            raise StoreError(errno.EBADF, "the lock was released", str(self.path))
        holder = _read(self._fd)
        if not _same(self._fd, self.path) or holder.get("pid", self._key[0]) != self._key[0]:
            told = "another driver took this store over while this one was silent; leave it to it"
            raise StoreError(errno.EBUSY, told, str(self.path))
        os.utime(self.path)

    def release(self) -> None:
        """Let go; again, or in a forked child, does nothing."""
        if self._key[0] == os.getpid() and _held.pop(self._key, None) is not None:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)


def _same(fd: int, path: Path) -> bool:
    """Whether the path still names this file, and not one made since."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _read(fd: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(fd, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _alive(holder: dict[str, Any]) -> bool:
    try:
        os.kill(int(holder["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _told(path: Path, holder: dict[str, Any], silent: float = 0.0) -> str:
    host, pid = holder.get("host", "an unknown host"), holder.get("pid", "unknown")
    return (
        f"{path.parent}: another driver works on this store (host {host}, process {pid}, last "
        f"seen {silent:.0f} s ago); stop it first, or wait until it is done. A host that is "
        f"gone is given up {STALE_SECONDS:.0f} s after its last sign of life"
    )
