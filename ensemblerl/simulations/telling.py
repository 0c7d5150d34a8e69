"""What a command says of itself: its version, all of it in JSON, and in one line."""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemblerl.simulations.inputs import digest_of_file
from ensemblerl.simulations.reading import described_reader

if TYPE_CHECKING:
    from ensemblerl.simulations.command import Command

LONG = ("arguments", "reads", "templates", "files", "environment", "constants")
"""What determines a run, besides the launcher; too long for one line."""
WIDEST = 60
"""Characters of the command line in one line."""


def determining(command: Command) -> dict[str, Any]:
    """All that determines a run: JSON."""
    return {
        "arguments": list(command.arguments),
        "launcher": command.launcher,
        "templates": command.templates,
        "files": {name: digest_of_file(path) for name, path in command.files.items()},
        "environment": command.environment,
        "constants": command.constants,
        "checkpoint": command.checkpoint,
        "reads": [described_reader(reader) for reader in command.reads],
    }


def hashed(command: Command) -> str:
    """16 hex digits that tell apart what determines a run."""
    text = json.dumps(determining(command), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def described(command: Command) -> dict[str, Any]:
    """Name, version, and all arguments: JSON."""
    return {
        "name": Path(command.arguments[0]).name,
        "module": "",
        "file": None,
        "version": command.version,
        "arguments": {
            **determining(command),
            **{name: getattr(command, name) for name in defaults(type(command))},
        },
    }


def brief(command: Command) -> str:
    """The command line, and what is not as by default."""
    line = " ".join(command.arguments)
    line = line if len(line) <= WIDEST else line[: WIDEST - 3] + "..."
    usual = defaults(type(command))
    values = {name: getattr(command, name) for name in usual}
    given = [f"{name}={v!r}" for name, v in values.items() if v != usual[name]]
    return f"Command({', '.join([repr(line), *given])})"


def defaults(kind: type[Command]) -> dict[str, Any]:
    """Argument -> default value, of all that is short and is kept as it is given."""
    arguments = inspect.signature(kind).parameters.values()
    return {a.name: a.default for a in arguments if a.name not in (*LONG, "version")}
