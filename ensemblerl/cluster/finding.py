"""What a check found, of a workflow or of a cluster: lines with remedies."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import NamedTuple

GOOD, NOTE, WARN, BAD = "good", "note", "warn", "bad"
SIGNS = {GOOD: "✓", NOTE: "·", WARN: "!", BAD: "✗"}
"""What stands before a line."""


class Finding(NamedTuple):
    """One line: how good it is (`GOOD`, `NOTE`, `WARN`, `BAD`), what was found, the remedy."""

    mark: str
    what: str
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """What a preflight found.

    Parameters
    ----------
    findings : line by line
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing would fail."""
        return all(finding.mark != BAD for finding in self.findings)

    def __str__(self) -> str:
        wide = max((len(finding.what) for finding in self.findings), default=0)
        lines = []
        for finding in self.findings:
            first, *more = finding.found.splitlines() or [""]
            lines.append(f"{SIGNS[finding.mark]} {finding.what:{wide}}  {first}")
            more += [f"→ {finding.remedy}"] if finding.remedy else []
            lines += [f"  {'':{wide}}  {line}" for line in more]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = []
        for mark, what, found, remedy in self.findings:
            text = html.escape(found).replace("\n", "<br>")
            text += f"<br><b>→ {html.escape(remedy)}</b>" if remedy else ""
            cells = (SIGNS[mark], html.escape(what), text)
            rows.append("".join(f'<td style="text-align: left">{cell}</td>' for cell in cells))
        return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
