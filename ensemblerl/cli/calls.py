"""The calls of explore, launch and prepare in the text of a script."""

from __future__ import annotations

import ast
from pathlib import Path

CALLS = ("explore", "launch", "prepare")


def calls(path: Path) -> list[int]:
    """Lines of a script that call one of them, by the names it imported them under."""
    tree = ast.parse(path.read_bytes())
    modules, names = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {a.asname or a.name for a in node.names if a.name == "ensemblerl"}
        if isinstance(node, ast.ImportFrom) and node.module == "ensemblerl":
            names |= {a.asname or a.name for a in node.names if a.name in CALLS}

    def ours(called: ast.expr) -> bool:
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            return called.value.id in modules and called.attr in CALLS
        return isinstance(called, ast.Name) and called.id in names

    found = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and ours(n.func)]
    return sorted(found)
