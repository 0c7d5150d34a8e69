"""Causes of two runs of one member, made comparable."""

from __future__ import annotations

import re

PLACE = re.compile(r"[^\s'\"=(:]*/(?:work/\d+-\d+|ensemblerl-\d+-\d+-\w{8})(?![\w-])")
"""Working directory of an attempt, in a store or in a scratch directory."""
FILES = re.compile(r"\nits files: .*\Z")


def placeless(cause: str) -> str:
    r"""A cause without where its attempt ran and where its files are kept: no two share that.

    Examples
    --------
    >>> placeless("sh: /disk/ensemblerl-3-1-k2x_f9ab/in.txt: none\nits files: /store/kept/3-1")
    'sh: ./in.txt: none'
    """
    return PLACE.sub(".", FILES.sub("", cause))
