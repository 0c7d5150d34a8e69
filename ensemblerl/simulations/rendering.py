"""Templates of input files, arguments and environment: what they use, and their text at a point."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ensemblerl.simulations.dialect import check_tools, strict, whole_lines

if TYPE_CHECKING:
    import jinja2

UNDEFINED = re.compile(r"^'(\w+)' is undefined$")
BUILTIN = frozenset(["range", "dict", "lipsum", "cycler", "joiner", "namespace"])
"""Names that every Jinja2 template has."""


INLINE = {"argument": "arguments", "environment variable": "environment"}
"""Texts that are no files, in words -> the argument of `Command` that has them."""


def argument(text: str) -> str:
    """An argument, in words."""
    return f"argument {text!r}"


def variable(name: str) -> str:
    """An environment variable, in words."""
    return f"environment variable {name!r}"


def inline_of(arguments: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """What it is, in words -> text, of what is no file."""
    return {
        **{argument(text): text for text in arguments},
        **{variable(name): text for name, text in environment.items()},
    }


class Renderer:
    """Jinja2 with undefined names as errors; numbers come out as Python writes them, in full.

    Parameters
    ----------
    templates : file name -> text; they may include each other by these names
    inline : what it is, in words (`argument`, `variable`) -> text

    Raises
    ------
    ValueError
        naming the template and line that Jinja2 cannot read, a filter or test that there is
        not, or a template included that is not there

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
        """In words where, with the line in a template -> the names that are looked up there."""
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
        environment = strict(self.templates)
        files = {name: environment.get_template(name) for name in self.templates}
        return {**files, **{w: environment.from_string(t) for w, t in self.inline.items()}}

    def _read(self) -> dict[str, frozenset[str]]:
        """Names that each uses; those that a template sets, the ones it includes may use."""
        from jinja2 import meta, nodes

        environment = strict(self.templates)
        trees = {w: self._parsed(environment, w, t) for w, t in self._all().items()}
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
        uses: dict[str, frozenset[str]] = {}
        for where, tree in trees.items():
            looked_up = meta.find_undeclared_variables(tree)
            uses |= self._by_line(where, tree, looked_up - (handed if where in included else set()))
        return uses

    def _parsed(
        self, environment: jinja2.Environment, where: str, text: str
    ) -> jinja2.nodes.Template:
        from jinja2 import TemplateAssertionError, TemplateSyntaxError, meta

        try:
            tree = environment.parse(text)
            check_tools(environment, tree)
            meta.find_undeclared_variables(tree)  # finds more that cannot be compiled
        except TemplateSyntaxError as error:
            line = f", line {error.lineno}" if where in self.templates else ""
            told = f"{self._given(where)}{line}: wanted Jinja2, got {error.message}"
            if not isinstance(error, TemplateAssertionError):
                told += (
                    "; text that has '{{', '{%' or '{#' of its own goes between {% raw %} and "
                    "{% endraw %}"
                )
            raise ValueError(told) from None
        return tree

    def _by_line(
        self, where: str, tree: jinja2.nodes.Template, names: set[str]
    ) -> dict[str, frozenset[str]]:
        """In words where -> names, each at the line where it is looked up first."""
        from jinja2 import nodes

        first: dict[str, int] = {}
        found = [] if where in self.inline else tree.find_all(nodes.Name)
        for node in sorted(found, key=lambda node: node.lineno):
            if node.ctx == "load" and node.name in names:
                first.setdefault(node.name, node.lineno)
        by_line = {
            f"{self._words(where)}, line {line}": frozenset(n for n in first if first[n] == line)
            for line in dict.fromkeys(first.values())
        }
        return {self._words(where): frozenset(names - set(first)), **by_line}

    def _all(self) -> dict[str, str]:
        return {**self.templates, **self.inline}

    def _words(self, where: str) -> str:
        return where if where in self.inline else f"template {where!r}"

    def _given(self, where: str) -> str:
        """The argument of `Command`, and which of its parts."""
        if where in self.templates:
            return f"templates: {where!r}"
        for words, argument in INLINE.items():
            if where.startswith(f"{words} "):
                return f"{argument}: {where.removeprefix(words).strip()}"
        return where

    def _check_there(self, where: str, others: Iterable[str | None]) -> None:
        missing = sorted({other for other in others if other} - set(self.templates))
        if missing:
            raise ValueError(
                f"{self._given(where)} includes {missing[0]!r}, which is not one of the "
                f"templates: {', '.join(sorted(self.templates)) or 'there are none'}"
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
