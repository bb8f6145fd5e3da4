"""Tables of text cells as plain text, Markdown, LaTeX and CSV. The first row is the header.

The first column is aligned left, the others right. `tabulate` is imported only when a table is laid out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

Table = Sequence[Sequence[str]]


def to_text(table: Table) -> str:
    """A table for a terminal, indented by two spaces. A cell may have several lines."""
    from tabulate import tabulate

    head, *body = tabulate(table, tablefmt="plain", disable_numparse=True, colalign=_alignment(table)).splitlines()
    return "\n".join(f"  {line}".rstrip() for line in [head, "-" * len(head), *body])


def to_markdown(table: Table) -> str:
    """A pipe table."""
    escaped = [[" ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split()) for cell in row] for row in table]
    return _layout(escaped, "pipe")


def to_latex(table: Table, caption: str, notes: Sequence[str] = ()) -> str:
    r"""A `table` with caption, `tabular` and notes below it; needs `\usepackage{booktabs}`."""
    body = _layout([[" ".join(cell.split()) for cell in row] for row in table], "latex_booktabs")
    below = [rf"\par\footnotesize {_escape_latex(note)}" for note in notes]
    head = [r"\begin{table}", r"\centering", rf"\caption{{{_escape_latex(caption)}}}"]
    return "\n".join([*head, body, *below, r"\end{table}"])


def to_csv(table: Table) -> str:
    """Comma-separated values, quoted if needed, one line per row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def decimal(number: float | None, sign: str = "") -> str:
    """A number with four decimals; a dash if it is undefined. `sign`: `+` to write that of positive numbers."""
    return f"{number:{sign}.4f}" if number is not None and math.isfinite(number) else "-"


def _layout(table: Table, style: str) -> str:
    from tabulate import tabulate

    head, *body = table
    return tabulate(body, head, style, disable_numparse=True, colalign=_alignment(table) if body else None)


def _alignment(table: Table) -> list[str]:
    return ["left", *["right"] * (len(table[0]) - 1)]


def _escape_latex(text: str) -> str:
    from tabulate import LATEX_ESCAPE_RULES

    return "".join(LATEX_ESCAPE_RULES.get(character, character) for character in text)
