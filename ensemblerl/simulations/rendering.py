"""Templates of input files, arguments and environment: what they use, and their text at a point."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

UNDEFINED = re.compile(r"^'(\w+)' is undefined$")
TAG = re.compile(r"\{%.*?%\}|\{#.*?#\}")
LINE = re.compile(r"^(.*)(?<![-+])%\}$", re.MULTILINE)
RAW = re.compile(r"(\{%[-+]?\s*raw\s*-?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\})", re.DOTALL)
BUILTIN = frozenset(["range", "dict", "lipsum", "cycler", "joiner", "namespace"])
"""Names that every Jinja2 template has."""


class Renderer:
    """Jinja2 with undefined names as errors; numbers come out as Python writes them, in full.

    Parameters
    ----------
    templates : file name -> text; they may include each other by these names
    inline : what it is, in words -> text: arguments, environment

    Raises
    ------
    ValueError
        naming the template and line that Jinja2 cannot read, or a template included that is not
        there

    Attributes
    ----------
    parts : templates that another one includes: they may lean on what that one sets
    """

    def __init__(self, templates: Mapping[str, str], inline: Mapping[str, str]) -> None:
        self.templates = {name: whole_lines(text) for name, text in templates.items()}
        self.inline = dict(inline)
        self.parts: set[str] = set()
        self._uses = self._read()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_compiled"}

    def uses(self) -> dict[str, frozenset[str]]:
        """In words where -> the names that are looked up there."""
        return dict(self._uses)

    def render(self, where: str, context: Mapping[str, Any]) -> str:
        """The text of a template, by its name, or of an inline text, by its words.

        Raises
        ------
        ValueError
            naming the template, the line, and the name that has no value
        """
        try:
            return self._compiled[where].render(context)
        except Exception as error:
            raise ValueError(self._told(where, error, context)) from error

    @cached_property
    def _compiled(self) -> dict[str, jinja2.Template]:
        environment = _environment(self.templates)
        files = {name: environment.get_template(name) for name in self.templates}
        return {**files, **{w: environment.from_string(t) for w, t in self.inline.items()}}

    def _read(self) -> dict[str, frozenset[str]]:
        """Names that each uses; those that a template sets, the ones it includes may use."""
        from jinja2 import meta, nodes

        environment = _environment(self.templates)
        trees = {w: _parsed(environment, w, t) for w, t in self._all().items()}
        handed: set[str] = set()
        included: set[str] = set()
        for where, tree in trees.items():
            others = list(meta.find_referenced_templates(tree))
            if others:
                self._check_there(where, others)
                self.parts |= set(filter(None, others))
                included |= set(self.templates) if None in others else self.parts
                names = tree.find_all(nodes.Name)
                handed |= {name.name for name in names if name.ctx in ("store", "param")}
        return {
            self._words(where): frozenset(
                meta.find_undeclared_variables(tree) - (handed if where in included else set())
            )
            for where, tree in trees.items()
        }

    def _all(self) -> dict[str, str]:
        return {**self.templates, **self.inline}

    def _words(self, where: str) -> str:
        return where if where in self.inline else f"template {where!r}"

    def _check_there(self, where: str, others: Iterable[str | None]) -> None:
        missing = sorted({other for other in others if other} - set(self.templates))
        if missing:
            raise ValueError(
                f"templates: {self._words(where)} includes {missing[0]!r}, which is not one of "
                f"them: {', '.join(sorted(self.templates))}"
            )

    def _told(self, where: str, error: Exception, context: Mapping[str, Any]) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [(f.filename, f.lineno) for f in frames if f.filename in self.templates]
        place = f"template {lines[-1][0]!r}, line {lines[-1][1]}" if lines else self._words(where)
        found = UNDEFINED.match(str(error))
        if found is None:
            return f"{place}: {type(error).__name__}: {error}"
        name, there = found[1], ", ".join(context.get("point", context))
        return (
            f"{place}: {name!r} has no value at this point, which has {there}; what "
            f"uses a parameter that is not always active goes between {{% if {name} is defined "
            "%} and {% endif %}"
        )


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


def _environment(templates: Mapping[str, str]) -> jinja2.Environment:
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


def _parsed(environment: jinja2.Environment, where: str, text: str) -> jinja2.nodes.Template:
    import jinja2

    try:
        return environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(
            f"templates: {where}, line {error.lineno}: wanted Jinja2, got {error.message}; text "
            "that has '{{', '{%' or '{#' of its own goes between {% raw %} and {% endraw %}"
        ) from None
