"""Tables of text cells as Markdown, LaTeX and CSV. The first row is the head, the first column stands to the left."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def align(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right, with a rule below the head row."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
    return [lines[0], "  " + "-" * (len(lines[0]) - 2), *lines[1:]]


def decimal(number: float | None) -> str:
    """A number as tables show it; a dash for one that is undefined."""
    return "-" if number is None else f"{number:.4f}"


Table = Sequence[Sequence[str]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def to_markdown(table: Table) -> str:
    """A pipe table."""
    head, *body = [[_markdown(cell) for cell in row] for row in table]
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def to_latex(table: Table, caption: str, notes: Sequence[str] = ()) -> str:
    r"""A `table` with a `tabular` in the style of the package booktabs; needs `\usepackage{booktabs}`.

    Args:
        table: the cells.
        caption: what the table shows.
        notes: lines below it.
    """
    head, *body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in table]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table[0]) - 1)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {_latex(note)}" for note in notes),
            r"\end{table}",
        ]
    )


def to_csv(table: Table) -> str:
    """Comma-separated values with quotes where needed, a line a row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def _markdown(cell: str) -> str:
    return " ".join(cell.replace("\\", "\\\\").replace("|", "\\|").split())


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in cell)
