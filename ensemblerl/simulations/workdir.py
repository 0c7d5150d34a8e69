"""The working directory of one run of a program: names in it, what was left in it, as text."""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

LOGS = ("stdout", "stderr")
"""Files of the directory that take what the program prints."""
TAIL = 2**14
"""Bytes from the end of a file in which its last lines are looked for."""
WIDEST = 200
"""Characters of a line in a message."""
COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""Control sequences of terminals (ECMA-48, 5.4)."""


def inside(argument: str, name: Any) -> str:
    """A name of a file below the working directory, in its plain form.

    Raises
    ------
    ValueError
        for anything else: absolute, leading out with "..", empty

    Examples
    --------
    >>> inside("files", "./data//cells.txt")
    'data/cells.txt'
    """
    path = PurePosixPath(name) if isinstance(name, str) and "\0" not in name else PurePosixPath()
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ValueError(
            f"{argument}: wanted the name of a file in the working directory, relative and "
            f"without '..', got {name!r}"
        )
    return str(path)


def scratch_directory(scratch: str) -> Path:
    """The directory for working directories, made where it is missing; ``$NAME`` as set here.

    Raises
    ------
    ValueError
        for a variable that is not set on this machine
    OSError
        for a directory that cannot be made, or not be written to
    """
    found = os.path.expandvars(scratch)
    if "$" in found:
        raise ValueError(
            f"scratch: wanted variables that are set on host {platform.node()}, got {scratch!r}"
        )
    path = Path(found).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise type(error)(
            error.errno,
            f"scratch: wanted a directory to write to on host {platform.node()}, got {scratch!r}: "
            f"{error.strerror}",
            str(path),
        ) from None
    return path


def written(directory: Path, inputs: Collection[str]) -> bool:
    """Whether a program has left files of its own here, besides inputs and what it printed."""
    known = {directory / name for name in (*inputs, *LOGS)}
    return any(not path.is_dir() and path not in known for path in directory.rglob("*"))


def printable(text: str) -> str:
    r"""What a terminal shows and does not obey: for what programs wrote. Line ends stay.

    Examples
    --------
    >>> printable("\x1b[31mERROR\x1b[0m:\tno pair")
    'ERROR: no pair'
    """
    text = COLOURS.sub("", text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _shown(c) for c in text)


def _shown(character: str) -> str:
    return " " if character.isspace() else "\ufffd"


def last_lines(path: Path, n: int) -> list[str]:
    """At most ``n`` lines from the end of a file, printable, none blank; none without a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [shown for line in text.splitlines() if (shown := printable(line).rstrip())]
    return [line if len(line) <= WIDEST else line[: WIDEST - 3] + "..." for line in lines[-n:]]


def contents(directory: Path, most: int = 12) -> str:
    """The files of a directory, for a message."""
    names = sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (printable(", ".join(names[:most])) or "no files") + more
