"""The table of `unirs score --as all`: one answer file by the rules of several protocols."""

import textwrap

from unirs.evaluation.scoring import Scored
from unirs.metrics.bootstrap import point_estimate
from unirs.utils.tables import decimal, to_text

_WIDTH = 100


def format_protocols(scored: Scored) -> str:
    """A line per statistic, a column per protocol; then the protocols that do not fit, and why. A dash: undefined."""
    results = scored.results
    names = dict.fromkeys(name for result in results.values() for name in result.evaluation.statistics)
    table = [["metric", *results]]
    for name in names:
        statistics = [result.evaluation.statistics.get(name) for result in results.values()]
        table.append([name, *(decimal(None if each is None else point_estimate(each)) for each in statistics)])
    first = next(iter(results.values()))
    excluded = sum(first.excluded.values())
    lines = [f"{len(first.rows)} rows evaluated, {excluded} excluded.", "", to_text(table), ""]
    notes = [f"{name}: {note}" for name, result in results.items() for note in result.evaluation.notes]
    notes += [f"Does not fit: {name}: {reason}." for name, reason in scored.not_applied.items()]
    for note in notes:
        lines += textwrap.wrap(note, _WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)
