"""Overlap of boxes that answers name with those of the references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unirs.errors import DataError
from unirs.metrics.base import Evaluation, Prediction, Statistic
from unirs.metrics.box_geometry import rotated_iou, upright_overlap
from unirs.metrics.box_text import BoxRule, box_syntax, first_box, rotated_boxes
from unirs.metrics.scorer import Scorer, unparsed_note
from unirs.ranges import UnitInterval, check_range

if TYPE_CHECKING:
    import numpy as np

_SCALES: Mapping[BoxRule, str] = {
    "vrsbench": "percent of the image's width and height",
    "dior_rsvg": "pixels of the image",
    "rotated": "percent of the image's width and height, with an angle in degrees",
}

_THRESHOLDS: Mapping[BoxRule, tuple[float, ...]] = {"vrsbench": (0.5, 0.7), "dior_rsvg": (0.5, 0.6, 0.7, 0.8, 0.9)}


@dataclass(frozen=True)
class Boxes(Scorer):
    """Boxes in answers, by the rule of a benchmark.

    - `vrsbench`: one box a row, its first four integers, in percent of the image. `acc@0.5` and `acc@0.7` are the
      shares of **all** rows with that IoU or more, widths and heights being one larger than the difference of the
      corners; `mean_iou` is over all rows, `cumulative_iou` the intersections over the unions of rows with a box.
    - `dior_rsvg`: one box a row in pixels, `acc@0.5` to `acc@0.9`, without the additional pixel.
    - `rotated`: several boxes a row, `[x1, y1, x2, y2, angle]`, as polygons. `precision@0.5` is the share of predicted
      boxes with that IoU to a reference, and is called accuracy by GeoChat and EarthDial; `recall@0.5` is the share of
      references with that IoU to a prediction. Rows with one reference are `single`, others `multiple`.

    Each is also given by category (`acc@0.5/unique`). A row's score is its IoU, or the share of its boxes that are
    right. Answers without a box are wrong; `unparsed` is their number.

    Source: VRSBench (Li et al., 2024), `compute_metrics.ipynb`; DIOR-RSVG (Zhan et al., 2023), `utils.py`; EarthDial
    (Soni et al., 2025), `eval/rs_detection/eval.py`.

    Attributes:
        rule: One of these; None is the rule whose syntax all references have.
        min_iou: Of a right box by the rule `rotated`. EarthDial uses 0.25 for xBD.

    Raises:
        PluginError: `min_iou` is not in 0..1.
    """

    rule: BoxRule | None = None
    min_iou: UnitInterval = 0.5

    name = "boxes"
    category_is_given = True

    def __post_init__(self) -> None:
        check_range(UnitInterval, self.min_iou, "min_iou")

    def mismatch(self, rows: Sequence[Prediction]) -> str:
        """The references must have the syntax of boxes, one text a row."""
        rule = self._syntax(rows)
        if rule is None:
            return "the references are no boxes of one syntax"
        return f"the references are boxes of {rule}" if self.rule not in (None, rule) else ""

    def evaluate(self, rows: Sequence[Prediction], *, slow: bool = True) -> Evaluation:  # noqa: ARG002 (nothing is slow)
        """Scores rows; `slow` has no effect.

        Raises:
            DataError: A reference holds no box, or the references have no common syntax and `rule` is None.
        """
        rule = self.rule or self._syntax(rows)
        if rule is None:
            raise DataError(
                "The references are not all boxes of one syntax: {<x1><y1><x2><y2>} (vrsbench), [x1, y1, x2, y2] "
                "(dior_rsvg) or [[x1, y1, x2, y2, angle]] (rotated). Correct them, or set the option 'rule'."
            )
        return self._rotated(rows) if rule == "rotated" else _single(rows, rule)

    def _syntax(self, rows: Sequence[Prediction]) -> BoxRule | None:
        return box_syntax([" ".join(row.references) for row in rows])

    def _rotated(self, rows: Sequence[Prediction]) -> Evaluation:
        import numpy as np

        sums, unparsed = np.zeros((len(rows), 4)), np.zeros(len(rows))
        for index, row in enumerate(rows):
            predicted = rotated_boxes(row.answer)
            wanted = [box for reference in row.references for box in rotated_boxes(reference) if box is not None]
            if not wanted:
                raise _no_box(row)
            hits = np.zeros((len(predicted), len(wanted)), bool)
            for prediction_idx, box in enumerate(predicted):
                if box is not None:
                    hits[prediction_idx] = [rotated_iou(box, other) >= self.min_iou for other in wanted]
            sums[index] = hits.any(axis=1).sum(), len(predicted), hits.any(axis=0).sum(), len(wanted)
            unparsed[index] = not any(box is not None for box in predicted)
        masks = _by_category(rows) | {"single": sums[:, 3] == 1, "multiple": sums[:, 3] > 1}
        columns = {f"precision@{self.min_iou:g}": sums[:, :2], f"recall@{self.min_iou:g}": sums[:, 2:]}
        scores = sums[:, 0] / np.maximum(sums[:, 1], 1)
        note = "precision is over predicted boxes, which GeoChat and EarthDial call accuracy."
        return _evaluation(rows, scores, columns, masks, unparsed, "rotated", note)


def _single(rows: Sequence[Prediction], rule: BoxRule) -> Evaluation:
    import numpy as np

    overlaps, unparsed = np.zeros((len(rows), 2)), np.zeros(len(rows))
    for index, row in enumerate(rows):
        wanted = first_box(" ".join(row.references), rule)
        if wanted is None:
            raise _no_box(row)
        box = first_box(row.answer, rule)
        if box is not None:
            overlaps[index] = upright_overlap(wanted, box, edge=1.0 if rule == "vrsbench" else 0.0)
        unparsed[index] = box is None
    common, union = overlaps.T
    iou = np.divide(common, union, out=np.zeros(len(rows)), where=union > 0)
    ones = np.ones(len(rows))
    columns = {f"acc@{least:g}": np.stack([iou >= least, ones], axis=1) for least in _THRESHOLDS[rule]}
    columns |= {"mean_iou": np.stack([iou, ones], axis=1), "cumulative_iou": overlaps}
    return _evaluation(rows, iou, columns, _by_category(rows), unparsed, rule)


def _by_category(rows: Sequence[Prediction]) -> dict[str, np.ndarray]:
    import numpy as np

    names = sorted({row.category for row in rows} - {""})
    return {name: np.array([row.category == name for row in rows]) for name in names}


def _evaluation(
    rows: Sequence[Prediction],
    scores: np.ndarray,
    columns: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    unparsed: np.ndarray,
    rule: BoxRule,
    *notes: str,
) -> Evaluation:
    """Ratios of summed columns, `[n, 2]` each, over all rows and over those of each mask."""
    from unirs.metrics.statistics import ratio, total

    statistics: dict[str, Statistic] = {name: ratio(pair, len(rows)) for name, pair in columns.items()}
    statistics["unparsed"] = total(unparsed)
    for category, mask in masks.items():
        if mask.any():
            pairs = {name: ratio(pair * mask[:, None], int(mask.sum())) for name, pair in columns.items()}
            statistics |= {f"{name}/{category}": pair for name, pair in pairs.items()}
    notes = (
        *unparsed_note(int(unparsed.sum()), len(rows), "hold no box and are wrong"),
        *notes,
        f"boxes are in {_SCALES[rule]}.",
    )
    return Evaluation([row.answer.strip() for row in rows], scores.tolist(), statistics, notes=notes)


def _no_box(row: Prediction) -> DataError:
    return DataError(f"Row {row.id}: the reference {row.references} holds no box. Correct it, or name another rule.")
