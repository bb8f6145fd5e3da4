from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unirs.errors import DataError
from unirs.evaluation.contact_sheet import write_sheet
from unirs.metrics.base import Prediction

BLUE = (20, 40, 200)
YELLOW = (240, 220, 10)


def prediction(identity: str = "1", **fields: object) -> Prediction:
    values: dict[str, Any] = {
        "task": "rsvqa_lr",
        "media": ("a.png",),
        "category": "presence",
        "prompt": "<image>\nIs there a road?",
        "text": "yes",
        "references": ("yes",),
    }
    return Prediction(id=identity, **values | fields)


def plain(*colours: tuple[int, int, int], height: int = 32, width: int = 32) -> list[np.ndarray]:
    return [np.tile(np.array(c, dtype=np.uint8)[:, None, None], (1, height, width)) for c in colours]


@dataclass
class Frames:
    """Media whose frames keep their size."""

    frames: list[np.ndarray]
    frame_labels: tuple[str, ...] = ()

    def load_frames(self, size: tuple[int, int] | None) -> torch.Tensor:
        assert size in ((256, 256), None)
        return torch.from_numpy(np.stack(self.frames))


def draw(
    path: Path,
    rows: list[tuple[Prediction, float]],
    frames: list[np.ndarray] | None = None,
    labels: tuple[str, ...] = (),
) -> np.ndarray:
    media = Frames(frames or plain(BLUE), labels)
    write_sheet(path, rows, lambda _: media)  # type: ignore[arg-type, return-value]
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB")).astype(int)


def positions(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((sheet == np.array(colour)).all(axis=2))


def bars(sheet: np.ndarray) -> tuple[int, int]:
    red, green, blue = sheet[..., 0], sheet[..., 1], sheet[..., 2]
    return int(((green > red + 60) & (green > blue + 60)).sum()), int(((red > green + 60) & (red > blue + 60)).sum())


def test_before_is_left_of_after(tmp_path: Path) -> None:
    sheet = draw(tmp_path / "sheet.png", [(prediction(), 1.0)], plain(BLUE, YELLOW))
    before, after = positions(sheet, BLUE), positions(sheet, YELLOW)
    assert before[:, 1].max() < after[:, 1].min()
    assert before[:, 0].min() == after[:, 0].min()


def test_frames_of_a_video_are_in_time_order(tmp_path: Path) -> None:
    colours = [(8 * i, 40, 200) for i in range(8)]
    sheet = draw(tmp_path / "sheet.png", [(prediction(), 1.0)], plain(*colours))
    corners = [tuple(positions(sheet, colour).min(axis=0)) for colour in colours]
    assert corners == sorted(corners)


def test_frames_keep_their_aspect_ratio(tmp_path: Path) -> None:
    area = positions(draw(tmp_path / "sheet.png", [(prediction(), 1.0)], plain(BLUE, height=32, width=64)), BLUE)
    height, width = area.max(axis=0) - area.min(axis=0) + 1
    assert width == pytest.approx(2 * height, abs=1)


def test_frames_of_a_series_have_their_dates_below(tmp_path: Path) -> None:
    frames, row = plain(BLUE, YELLOW, BLUE), [(prediction(), 1.0)]
    bare = draw(tmp_path / "a.png", row, frames)
    dated = draw(tmp_path / "b.png", row, frames, ("Image 1, 2016:", "Image 2, 2017:", "Image 3, 2018:"))
    first, last = positions(dated, YELLOW).min(axis=0), positions(dated, YELLOW).max(axis=0)
    assert np.array_equal(positions(bare, YELLOW), positions(dated, YELLOW))
    below = slice(last[0] + 1, last[0] + 20), slice(first[1], last[1])
    assert (dated[below] < 200).any()
    assert dated.shape[0] == bare.shape[0] + 20
    other = draw(tmp_path / "c.png", row, frames, ("Image 1, 2016:", "Image 2, 2019:", "Image 3, 2018:"))
    assert not np.array_equal(other[below], dated[below])


@pytest.mark.parametrize(("score", "right"), [(0.0, False), (0.49, False), (0.5, True), (1.39, True)])
def test_color_of_the_bar_depends_on_the_score(tmp_path: Path, score: float, right: bool) -> None:
    green, red = bars(draw(tmp_path / "sheet.png", [(prediction(), score)]))
    assert (green > 0, red > 0) == (right, not right)


@pytest.mark.parametrize(
    "change", [{"prompt": "Where?"}, {"text": "no"}, {"references": ("no",)}, {"category": "comp"}, {"task": "era"}]
)
def test_card_shows_question_answer_and_reference(tmp_path: Path, change: dict[str, Any]) -> None:
    sheet = draw(tmp_path / "a.png", [(prediction(), 1.0)])
    assert not np.array_equal(sheet, draw(tmp_path / "b.png", [(prediction(**change), 1.0)]))


def test_question_is_shown_without_placeholders_and_clue(tmp_path: Path) -> None:
    bare = prediction(prompt="Is there a road?")
    full = prediction(prompt="<image><image>\n<clue>a road</clue>\nIs there a road?", clue="a road")
    sheet = draw(tmp_path / "a.png", [(bare, 1.0)])
    assert np.array_equal(sheet, draw(tmp_path / "b.png", [(full, 1.0)]))


def test_only_the_shown_rows_are_loaded(tmp_path: Path) -> None:
    loaded: list[str] = []

    def media(row: Prediction) -> Frames:
        loaded.append(row.id)
        return Frames(plain(BLUE))

    rows = [(prediction(str(i)), 1.0) for i in range(101)]
    write_sheet(tmp_path / "sheet.png", rows, media, limit=5)  # type: ignore[arg-type]
    assert loaded == ["0", "25", "50", "75", "100"]


def test_error_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sheet\.png"):
        draw(tmp_path / "sheet.png", [])


def test_failed_write_keeps_the_previous_sheet(tmp_path: Path) -> None:
    draw(tmp_path / "sheet.png", [(prediction(), 1.0)])
    previous = (tmp_path / "sheet.png").read_bytes()
    with pytest.raises(TypeError):
        draw(tmp_path / "sheet.png", [(prediction(), 0.0)], [np.zeros((3, 4, 4))])
    assert (tmp_path / "sheet.png").read_bytes() == previous


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=300),
    long=st.sampled_from(["", "w" * 500, "word " * 200, "line\n" * 50]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    count=st.integers(1, 9),
)
def test_any_text_and_any_frames_are_drawn(
    tmp_path: Path, text: str, long: str, size: tuple[int, int], count: int
) -> None:
    wild = text + long
    row = prediction(wild, task=wild, category=wild, prompt=wild, text=wild, references=(wild, wild), clue=text)
    sheet = draw(tmp_path / "sheet.png", [(row, 1.0)], plain(*[BLUE] * count, height=size[0], width=size[1]))
    assert sheet.shape[0] < 1200
    assert len(positions(sheet, BLUE)) > 0


REFERENCE, ANSWER = (255, 212, 0), (208, 0, 200)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("{<10><20><40><60>}", "{<50><20><90><60>}"),
        ("[20, 20, 80, 60]", "[100, 20, 180, 60]"),
        ("[[10, 20, 40, 60, 0]]", "[[50, 20, 90, 60, 0]]"),
    ],
)
def test_boxes_of_reference_and_answer_are_drawn(tmp_path: Path, reference: str, answer: str) -> None:
    row = prediction(text=answer, references=(reference,))
    # 200x100 pixels are shown as 320x160.
    sheet = draw(tmp_path / "sheet.png", [(row, 1.0)], plain(BLUE, height=100, width=200))
    area = positions(sheet, BLUE)
    top, left = area.min(axis=0)
    for color, columns in ((REFERENCE, (10, 40)), (ANSWER, (50, 90))):
        drawn = positions(sheet[: area[:, 0].max() + 1], color)
        assert drawn.min(axis=0) - (top, left) == pytest.approx((0.2 * 160, columns[0] / 100 * 320), abs=2)
        assert drawn.max(axis=0) - (top, left) == pytest.approx((0.6 * 160, columns[1] / 100 * 320), abs=2)
        # The square beside the text.
        assert len(positions(sheet[area[:, 0].max() + 1 :], color)) == 64


@pytest.mark.parametrize("answer", ["no box", "", f"{{<0><0><{'9' * 9}><{'9' * 9}>}}", "{<90><90><10><10>}"])
def test_any_answer_is_drawn_beside_a_box(tmp_path: Path, answer: str) -> None:
    row = prediction(text=answer, references=("{<10><20><40><60>}",))
    sheet = draw(tmp_path / "sheet.png", [(row, 0.0)], plain(BLUE, height=100, width=200))
    assert len(positions(sheet, REFERENCE)) > 100


def test_texts_that_are_no_boxes_are_not_drawn(tmp_path: Path) -> None:
    sheet = draw(tmp_path / "sheet.png", [(prediction(references=("10 20 40 60",)), 1.0)])
    assert len(positions(sheet, REFERENCE)) == len(positions(sheet, ANSWER)) == 0
