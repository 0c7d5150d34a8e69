"""Keys of one cluster: made when it starts, in files that only the user may read, gone with it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from ensemblerl.store.running import gone, process

OWNER = "driver.json"
"""In the directory of keys: whose they are."""
FILES = ("tls_ca_file", "tls_worker_key", "tls_worker_cert")
"""What a worker needs; it finds them as files, for its command line can be read by everybody."""


class Certificates:
    """Temporary keys for scheduler, client and workers.

    Parameters
    ----------
    directory : on a disk that the nodes see; the keys get one of their own in it
    alone : nobody but this driver may be at work in the directory

    Attributes
    ----------
    security : what scheduler and client take, with keys in memory
    worker : the same with the files that workers read
    """

    def __init__(self, directory: Path, *, alone: bool = False) -> None:
        from distributed import Security

        _clear_up(directory, alone)
        make: Any = Security
        self.security = make.temporary()
        self._path = directory / f"keys-{secrets.token_hex(6)}"
        self._path.mkdir(mode=0o700, parents=True)
        self._written(OWNER, json.dumps(process()))
        given: dict[str, Any] = {"require_encryption": True}
        for name in FILES:
            given[name] = str(self._written(f"{name}.pem", getattr(self.security, name)))
        for role in ("client", "scheduler"):
            for kind in ("key", "cert"):
                given[f"tls_{role}_{kind}"] = getattr(self.security, f"tls_{role}_{kind}")
        self.worker = make(**given)

    def _written(self, name: str, text: str) -> Path:
        path = self._path / name
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as out:
            out.write(text)
        return path

    def remove(self) -> None:
        """Take the files away."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self._path)


def _clear_up(directory: Path, alone: bool) -> None:
    """Take away the keys of drivers that were killed."""
    for path in directory.glob("keys-*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads((path / OWNER).read_text())
            if gone(about, alone=alone):
                shutil.rmtree(path)
