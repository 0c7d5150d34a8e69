"""How the pages are built: Sphinx, MyST, the pydata theme; a warning is an error."""

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import ensemblerl as face

project = "EnsembleRL"
author = "EnsembleRL contributors"
copyright = f"2026, {author}"
release = version = version_of("ensemblerl")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autosummary_generate = True
autodoc_type_aliases = {
    name: name for name in ("FloatArray", "IntArray", "BoolArray", "AnyArray", "State")
}
python_maximum_signature_line_length = 88
napoleon_attr_annotations = False
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_param = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = f"EnsembleRL {release}"
html_show_sourcelink = False
# Only the API has pages below it; elsewhere the place of the empty sidebar is for the code.
html_sidebars = {
    page: [] for page in ("index", "quickstart", "concepts", "learning", "howto/*", "[bfps]*")
}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

CODE = re.compile(r"(`+[^`]*`+)")
STAR = re.compile(r"(?<![\w*\\])\*(\w+)(?![\w*])")
ENTRY = re.compile(r"^(\S[^:]*?) : (.*)$")
ALIAS = re.compile(r"TypeAliasForwardRef\('(\w+)'\)")
RULE = re.compile(r"^-{3,}$")


def shape_first(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Put what our docstrings say after the colon (``name : shape, meaning``) below the name.

    Types stand in the signature; Sphinx would take the first line of the meaning for one.
    """
    out: list[str] = []
    section = ""
    for i, line in enumerate(lines):
        if i + 1 < len(lines) and RULE.match(lines[i + 1]):
            section = line
        entry = ENTRY.match(line) if section in {"Parameters", "Attributes"} else None
        out += [entry[1], f"    {entry[2]}"] if entry else [line]
    lines[:] = [starred(line) for line in out]


def starred(line: str) -> str:
    """A shape such as (rows, *shape) is no emphasis; code keeps its stars."""
    parts = CODE.split(line)
    parts[::2] = [STAR.sub(r"\\*\1", part) for part in parts[::2]]
    return "".join(parts)


def plain_aliases(
    app: object, what: str, name: str, obj: object, options: object, *texts: str | None
) -> tuple[str | None, ...]:
    """Signature and return annotation with the names of our array types, and nothing around."""
    return tuple(text and ALIAS.sub(r"\1", text) for text in texts)


def once(app: Any, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """What the face has stands on the face's page only."""
    ours = name in face.__all__ and getattr(face, name) is obj
    return True if ours and app.env.docname != "api/face" else None


def check_face() -> None:
    """The face's page says in which order its names stand; none may be forgotten."""
    page = (Path(__file__).parent / "api" / "face.md").read_text()
    shown = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", page, re.MULTILINE)
    missing = sorted(set(face.__all__) - {"agents", "readers", "samplers"} - set(shown))
    if missing:
        raise ValueError(f"docs/api/face.md: {', '.join(missing)} of ensemblerl not there")


def setup(app: Any) -> None:
    """Before napoleon, which listens at the usual priority."""
    check_face()
    app.connect("autodoc-skip-member", once)
    app.connect("autodoc-process-signature", plain_aliases)
    app.connect("autodoc-process-docstring", shape_first, priority=100)
