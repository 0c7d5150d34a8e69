"""The Jinja2 that templates are written in: its settings, its ends of lines, its filters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2

TAG = re.compile(r"\{%.*?%\}|\{#.*?#\}")
LINE = re.compile(r"^(.*)(?<![-+])%\}$", re.MULTILINE)
RAW = re.compile(r"(\{%[-+]?\s*raw\s*-?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\})", re.DOTALL)


def whole_lines(text: str) -> str:
    r"""The template with a "+" where Jinja2 would take away the end of a line that has text.

    A line that holds nothing but tags leaves nothing behind (``trim_blocks``). Without the "+",
    Jinja2 would also join ``mass {% if heavy %}2{% else %}1{% endif %}`` to its next line.

    Examples
    --------
    >>> whole_lines("{% if a %}\nx {% if b %}1{% endif %}\n{% endif %}\n")
    '{% if a %}\nx {% if b %}1{% endif +%}\n{% endif %}\n'
    """
    parts = RAW.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = LINE.sub(lambda m: m[1] + ("+%}" if _has_text(m[0]) else "%}"), part)
        elif "\n" not in part and not part.endswith(("-%}", "+%}")):
            parts[i] = part[:-2] + "+%}"
    return "".join(parts)


def _has_text(line: str) -> bool:
    """Whether there is more than tags, and a tag that ends here began here."""
    return "{%" in line and bool(TAG.sub("", line).strip())


def strict(templates: Mapping[str, str]) -> jinja2.Environment:
    """Undefined names are errors; lines that hold nothing but tags leave nothing behind."""
    import jinja2

    return jinja2.Environment(
        # with file names, unlike DictLoader: errors then say in which template and line
        loader=jinja2.FunctionLoader(
            lambda name: (templates[name], name, None) if name in templates else None
        ),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def check_tools(environment: jinja2.Environment, tree: jinja2.nodes.Template) -> None:
    """TemplateAssertionError for a filter or test that there is not.

    Jinja2 itself says so at the first point at which it comes by.
    """
    import jinja2
    from jinja2 import nodes

    for kind, there, word in (
        (nodes.Filter, environment.filters, "filter"),
        (nodes.Test, environment.tests, "test"),
    ):
        for node in tree.find_all(kind):
            if node.name not in there:
                close = difflib.get_close_matches(node.name, there, n=1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise jinja2.TemplateAssertionError(
                    f"the {word} {node.name!r}, which there is not{hint}", node.lineno
                )
