"""What went wrong, in words for the ledger: type, message, and where in the user's code."""

from __future__ import annotations

import traceback
from pathlib import Path

LONGEST = 2000
"""Characters of a cause; the message comes first, of the frames the innermost are kept."""

OURS = str(Path(__file__).resolve().parents[1])


def cause_of(error: BaseException) -> str:
    """``Type: message`` and the innermost frames that are not ours.

    An error that already knows its cause (it happened in another process) carries it as
    ``error.cause``.
    """
    known = getattr(error, "cause", None)
    if isinstance(known, str):
        return known[:LONGEST]
    message = f"{type(error).__name__}: {error}".rstrip(": ")[: LONGEST // 2]
    frames = "".join(_frames(error)).rstrip()
    return f"{message}\n{frames[-(LONGEST - len(message) - 1) :]}" if frames else message


def _frames(error: BaseException) -> list[str]:
    found = traceback.extract_tb(error.__traceback__)
    return traceback.format_list([f for f in found if not f.filename.startswith(OURS)][-5:])
