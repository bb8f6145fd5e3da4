import csv
import io

from unirs.utils.tables import to_csv, to_latex, to_markdown, to_text

TABLE = [["Model", "50 %", "R&D"], ["a_b | c", "1,5", 'say "x"'], ["d\\e", "2", "two\nlines"]]


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_text_aligns_columns_and_keeps_lines_of_a_cell() -> None:
    assert to_text([["", "CIDEr-D"], ["joint", "112.23\n[85.0, 137.8]"], ["none", "007"]]).splitlines() == [
        "               CIDEr-D",
        "  --------------------",
        "  joint         112.23",
        "         [85.0, 137.8]",
        "  none             007",
    ]


def test_markdown_has_one_line_per_row_and_escapes_pipes() -> None:
    head, rule, *rows = words(to_markdown(TABLE))
    assert head == "| Model | 50 % | R&D |"
    assert [cell.strip("-") for cell in rule.split("|")] == ["", ":", ":", ":", ""]
    assert rows == ['| a_b \\| c | 1,5 | say "x" |', "| d\\\\e | 2 | two lines |"]


def test_latex_has_booktabs_rules_and_escapes() -> None:
    lines = words(to_latex(TABLE, "50 % of #1", ["{note} ~^"]))
    assert lines[2:5] == [r"\caption{50 \% of \#1}", r"\begin{tabular}{lrr}", r"\toprule"]
    assert lines[5:8] == [r"Model & 50 \% & R\&D \\", r"\midrule", r"a\_b | c & 1,5 & say " + r'"x" \\']
    assert r"d\textbackslash{}e & 2" in lines[8]
    assert lines[-2] == r"\par\footnotesize \{note\} \textasciitilde{}\^{}"
    assert sum(line.count(r"\begin") for line in lines) == sum(line.count(r"\end") for line in lines) == 2


def test_csv_round_trip() -> None:
    assert list(csv.reader(io.StringIO(to_csv(TABLE)))) == TABLE
