"""What a program finds in its working directory: templates and files, read where they are given."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ensemblerl.simulations.workdir import LOGS, inside

HASHED = 64 * 2**20
"""Bytes of a file that count in the version; of a larger one its size does, too."""
JINJA = (".j2", ".jinja", ".jinja2")
"""How files of templates are called."""


def templates_of(given: Any) -> dict[str, str]:
    """Name in the working directory -> text, from texts and from paths of files."""
    return {name: _template(name, value) for name, value in _named("templates", given, {}).items()}


def _template(name: str, value: Any) -> str:
    if isinstance(value, str):
        if _is_path(value):
            raise ValueError(
                f"templates: {name!r}: wanted the text itself, got {value!r}, which looks like a "
                f"path; wanted as one, write pathlib.Path({value!r}); wanted as text, end it with "
                "a line end"
            )
        return value
    if not isinstance(value, os.PathLike):
        raise ValueError(
            f"templates: {name!r}: wanted a pathlib.Path, or the text itself, got {value!r}"
        )
    try:
        return Path(value).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"templates: {name!r}: wanted UTF-8 text, got {value}: {error}") from None
    except OSError as error:
        raise type(error)(
            error.errno, f"templates: {name!r}: wanted a file, got {error.strerror}", str(value)
        ) from None


def _is_path(text: str) -> bool:
    if not text or "\n" in text:
        return False
    try:
        return text.endswith(JINJA) or Path(text).is_file()
    except OSError:  # too long for a name
        return False


def files_of(given: Any, templates: Mapping[str, str]) -> dict[str, str]:
    """Name in the working directory -> absolute path; a directory stands for all files in it."""
    if isinstance(given, str | os.PathLike):
        raise ValueError(f"files: wanted a list of paths, or name -> path, got {given!r}")
    if not isinstance(given, Mapping):
        paths = [Path(path) for path in given]
        names = [path.name for path in paths]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"files: wanted each name once, got {', '.join(twice)} twice")
        given = dict(zip(names, paths, strict=True))
    named = _named("files", given, {})
    found = {n: p for name, value in named.items() for n, p in _expanded(name, value)}
    _named("files", found, templates)
    return found


def _expanded(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"files: {name!r}: wanted a path, got {value!r}")
    path = Path(value).absolute()
    if path.is_dir():
        inner = sorted(p for p in path.rglob("*") if p.is_file())
        return [(f"{name}/{p.relative_to(path).as_posix()}", str(p)) for p in inner]
    if not path.is_file():
        raise FileNotFoundError(f"files: {name!r}: wanted a file that is there, got {path}")
    return [(name, str(path))]


def _named(argument: str, given: Any, others: Mapping[str, str]) -> dict[str, Any]:
    """By plain names inside the directory, none twice, none the directory of another."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument}: wanted a mapping, name -> path, got {given!r}")
    out: dict[str, Any] = {}
    for name, value in given.items():
        plain = inside(argument, name)
        if plain in LOGS:
            raise ValueError(
                f"{argument}: wanted another name than {plain!r}, which takes what is printed"
            )
        if plain in out or plain in others:
            where = "templates too" if plain in others else "twice"
            raise ValueError(f"{argument}: wanted each name once, got {plain!r} {where}")
        out[plain] = value
    for name in out:
        for parent in map(str, PurePosixPath(name).parents):
            if parent in out or parent in others:
                raise ValueError(f"{argument}: {parent!r} is a file, so {name!r} cannot be in it")
    return out


def digest_of_file(path: str) -> str:
    """16 hex digits of its size and of its first 64 MiB."""
    with Path(path).open("rb") as file:
        found = hashlib.sha256(str(os.fstat(file.fileno()).st_size).encode())
        left = HASHED
        while left and (part := file.read(min(left, 2**20))):
            found.update(part)
            left -= len(part)
    return found.hexdigest()[:16]


def fill(directory: Path, texts: Mapping[str, str], files: Mapping[str, str]) -> None:
    """Write rendered texts, those that begin with "#!" executable, and copy files, modes too.

    Raises
    ------
    FileNotFoundError
        for a file that is not there on this machine
    """
    for name, text in texts.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        if text.startswith("#!"):
            path.chmod(path.stat().st_mode | 0o111)
    for name, source in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not Path(source).is_file():
            raise FileNotFoundError(
                f"files: {name!r}: {source} is not there on host {platform.node()}; put it on a "
                "file system that the workers see, too"
            )
        shutil.copy(source, path)
