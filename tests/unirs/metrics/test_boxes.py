import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unirs.errors import DataError
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import interval, point_estimate
from unirs.metrics.box_geometry import rotated_iou, upright_overlap
from unirs.metrics.box_text import Box, box_syntax, first_box, rotated_boxes
from unirs.metrics.boxes import Boxes

boxes = st.builds(
    lambda x, y, width, height, angle: Box(x, y, x + width, y + height, angle),
    *(st.integers(0, 60).map(float) for _ in "xy"),
    *(st.integers(1, 40).map(float) for _ in "wh"),
    st.integers(0, 360).map(float),
)


def row(answer: str, reference: str, category: str = "") -> Prediction:
    return Prediction("7", "t", ("a.png",), category, "", answer, (reference,))


def values(scorer: Boxes, *rows: Prediction) -> dict[str, float]:
    return {name: point_estimate(each) for name, each in scorer.evaluate(rows).statistics.items()}


# Geometry.


def test_overlap_by_hand() -> None:
    assert upright_overlap(Box(0, 0, 9, 9), Box(5, 0, 14, 9), edge=1) == (50, 150)
    assert upright_overlap(Box(0, 0, 9, 9), Box(5, 0, 14, 9), edge=0) == (36, 126)
    assert upright_overlap(Box(0, 0, 1, 1), Box(1, 1, 2, 2), edge=0) == (0, 2)


def test_rotated_overlap_by_hand() -> None:
    square = Box(0, 0, 10, 10)
    assert rotated_iou(square, Box(0, 0, 10, 10, 90)) == pytest.approx(1)
    # Two squares of side 10 at 45 degrees: the octagon of area 200 * (sqrt(2) - 1).
    octagon = 200 * (math.sqrt(2) - 1)
    assert rotated_iou(square, Box(0, 0, 10, 10, 45)) == pytest.approx(octagon / (200 - octagon))
    # A bar turned by 90 degrees about its center.
    assert rotated_iou(Box(0, 4, 10, 6), Box(4, 0, 6, 10, 90)) == pytest.approx(1)
    assert rotated_iou(Box(0, 4, 10, 6), Box(4, 0, 6, 10)) == pytest.approx(4 / 36)
    # The direction: a bar turned by 30 degrees leans to the upper right in an image, whose y points down.
    leaning = Box(0, 9, 20, 11, 30)
    point = Box(17, 5, 18, 6)
    assert rotated_iou(leaning, point) > 0
    assert rotated_iou(Box(0, 9, 20, 11, -30), point) == 0
    assert rotated_iou(square, Box(3, 3, 3, 8)) == 0


@given(boxes, boxes)
def test_rotated_overlap_is_symmetric_and_bounded(first: Box, second: Box) -> None:
    iou = rotated_iou(first, second)
    assert -1e-9 <= iou <= 1 + 1e-9
    assert iou == pytest.approx(rotated_iou(second, first), abs=1e-9)
    assert rotated_iou(first, first) == pytest.approx(1)


@given(boxes, boxes)
def test_rotated_overlap_of_upright_boxes_is_that_of_rectangles(first: Box, second: Box) -> None:
    common, union = upright_overlap(first, second, edge=0)
    assert rotated_iou(first._replace(angle=0), second._replace(angle=180)) == pytest.approx(common / union, abs=1e-9)


@given(boxes, boxes)
def test_rotated_overlap_agrees_with_a_grid(first: Box, second: Box) -> None:
    def inside(box: Box, x: float, y: float) -> bool:
        angle = math.radians(box.angle)
        across, down = x - (box.x1 + box.x2) / 2, y - (box.y1 + box.y2) / 2
        along = across * math.cos(angle) - down * math.sin(angle)
        aside = across * math.sin(angle) + down * math.cos(angle)
        return abs(along) <= (box.x2 - box.x1) / 2 and abs(aside) <= (box.y2 - box.y1) / 2

    points = [(x + 0.5, y + 0.5) for x, y in product(range(-30, 130, 2), repeat=2)]
    both = [(inside(first, *point), inside(second, *point)) for point in points]
    either = sum(one or other for one, other in both)
    if either > 200:
        assert rotated_iou(first, second) == pytest.approx(sum(map(all, both)) / either, abs=0.15)


# Texts.


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{<1><2><30><100>}", "vrsbench"),
        ("[12, 30.5, 400, 512]", "dior_rsvg"),
        ("[[1, 2, 3, 4, 90]]", "rotated"),
        ("[[1, 2, 3, 4, 90]][[5,6,7,8,0]]", "rotated"),
        ("[[1, 2, 3, 4, 0], [5, 6, 7, 8, 0]]", "rotated"),
        ("{<1><2><30><40>|<90>}{<1><2><30><40>|<0>}", "rotated"),
        ("yes", None),
        ("", None),
        ("[1, 2, 3]", None),
        ("[[1, 2, 3, 4]]", None),
        ("12", None),
    ],
)
def test_syntax_of_references(text: str, rule: str | None) -> None:
    assert box_syntax([text]) == rule
    assert box_syntax([text, "a bridge"]) is None


@given(st.text(alphabet="[]{}<>|, 0123456789.-a", max_size=40))
def test_any_text_is_parsed(text: str) -> None:
    for box in [first_box(text, "vrsbench"), first_box(text, "dior_rsvg"), *rotated_boxes(text)]:
        assert box is None or all(map(math.isfinite, box))


def test_boxes_of_texts() -> None:
    assert first_box("It is at {<1><2><30><40>|<50>}.", "vrsbench") == Box(1, 2, 30, 40)
    assert first_box("[1.5, -2, 3, 4]", "dior_rsvg") == Box(1.5, -2, 3, 4)
    assert first_box("{<1><2><30>}", "vrsbench") is None
    assert first_box(f"{{<1><2><3><{'9' * 5000}>}}", "vrsbench") is None
    assert first_box("[nan, 1, 2, inf]", "dior_rsvg") is None
    assert rotated_boxes("[[1, 2, 3, 4, 5]] and {<1><2><3><4>|<90>}, [1, 2]") == [
        Box(1, 2, 3, 4, 5),
        Box(1, 2, 3, 4, 90),
        None,
    ]


# Scores.


def test_vrsbench_by_hand() -> None:
    rows = [
        row("{<0><0><9><9>}", "{<0><0><9><9>}", "unique"),
        row("{<5><0><14><9>}", "{<0><0><9><9>}", "unique"),  # 50 / 150
        row("{<0><0><9><5>}", "{<0><0><9><9>}", "not_unique"),  # 60 / 100
        row("I cannot see it", "{<0><0><9><9>}", "not_unique"),
    ]
    numbers = values(Boxes(), *rows)
    assert numbers == pytest.approx(
        {
            "acc@0.5": 2 / 4,
            "acc@0.7": 1 / 4,
            "mean_iou": (1 + 1 / 3 + 0.6) / 4,
            "cumulative_iou": (100 + 50 + 60) / (100 + 150 + 100),
            "unparsed": 1,
            "acc@0.5/unique": 1 / 2,
            "acc@0.7/unique": 1 / 2,
            "mean_iou/unique": (1 + 1 / 3) / 2,
            "cumulative_iou/unique": 150 / 250,
            "acc@0.5/not_unique": 1 / 2,
            "acc@0.7/not_unique": 0,
            "mean_iou/not_unique": 0.3,
            "cumulative_iou/not_unique": 0.6,
        }
    )
    evaluation = Boxes().evaluate(rows)
    assert evaluation.notes == (
        "1 of 4 answers hold no box and are wrong.",
        "boxes are in percent of the image's width and height.",
    )
    assert evaluation.scores == pytest.approx([1, 1 / 3, 0.6, 0])
    low, high = interval(evaluation.statistics["acc@0.5"], [1, 2, 3, 4])
    assert low < 0.5 < high


def test_dior_rsvg_has_no_additional_pixel() -> None:
    numbers = values(
        Boxes("dior_rsvg"), row("[0, 0, 100, 60]", "[0, 0, 100, 100]"), row("(0,0,100,95)", "[0, 0, 100, 100]")
    )
    assert [numbers[f"acc@0.{tenth}"] for tenth in (5, 6, 7, 8, 9)] == [1, 1, 0.5, 0.5, 0.5]
    assert numbers["mean_iou"] == pytest.approx((0.6 + 0.95) / 2)


def test_rotated_precision_is_over_predictions_and_recall_over_references() -> None:
    rows = [
        # One of three predictions is right, and a group of four numbers is a prediction.
        row("[[0, 0, 10, 10, 90]][[50, 50, 60, 60, 0]][1, 2, 3, 4]", "[[0, 0, 10, 10, 0]][[80, 80, 90, 90, 0]]"),
        # Two predictions of the same reference are both right.
        row("[[0, 0, 10, 10, 0], [0, 0, 10, 11, 0]]", "[[0, 0, 10, 10, 0]]"),
        row("none", "[[0, 0, 10, 10, 0]]"),
    ]
    numbers = values(Boxes(), *rows)
    assert numbers == pytest.approx(
        {
            "precision@0.5": 3 / 5,
            "recall@0.5": 2 / 4,
            "unparsed": 1,
            "precision@0.5/single": 1,
            "recall@0.5/single": 1 / 2,
            "precision@0.5/multiple": 1 / 3,
            "recall@0.5/multiple": 1 / 2,
        }
    )
    notes = Boxes().evaluate(rows).notes
    assert "1 of 3 answers hold no box" in notes[0]
    assert "call accuracy" in notes[1]


def test_least_iou_is_an_option() -> None:
    half = row("[[0, 0, 10, 4, 0]]", "[[0, 0, 10, 10, 0]]")
    assert values(Boxes(min_iou=0.4), half)["precision@0.4"] == 1
    assert values(Boxes(min_iou=0.5), half)["precision@0.5"] == 0


def test_references_of_no_common_syntax_are_an_error() -> None:
    rows = [row("[1, 2, 3, 4]", "[1, 2, 3, 4]"), row("[1, 2, 3, 4]", "{<1><2><3><4>}")]
    with pytest.raises(DataError, match="not all boxes of one syntax"):
        Boxes().evaluate(rows)
    assert Boxes().mismatch(rows) == "the references are no boxes of one syntax"
    assert Boxes("rotated").mismatch(rows[:1]) == "the references are boxes of dior_rsvg"
    with pytest.raises(DataError, match=r"Row 7: the reference .* holds no box"):
        Boxes("rotated").evaluate([row("[1, 2, 3, 4]", "a bridge")])
