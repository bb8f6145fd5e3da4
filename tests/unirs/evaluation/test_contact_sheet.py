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
from unirs.evaluation.contact_sheet import spread, write_samples
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

BLUE = (20, 40, 200)
YELLOW = (240, 220, 10)
BOX = (255, 212, 0)


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
    frames: list[np.ndarray] | None = None,
    labels: tuple[str, ...] = (),
    title: str = "rsvqa_lr",
    **fields: Any,  # noqa: ANN401
) -> np.ndarray:
    """The pixels of a sheet of one sample; `fields` are those of its turn."""
    turn = {
        "id": "1",
        "references": ("yes",),
        "prompt_fields": {"question": "Is there a road?"},
        "category": "presence",
    }
    sample = Sample("1", Frames(frames or plain(BLUE), labels), (Turn(**turn | fields),))  # type: ignore[arg-type]
    write_samples(path, [(title, PromptTemplate("", "{question}"), sample)])
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB")).astype(int)


def positions(sheet: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((sheet == np.array(colour)).all(axis=2))


def test_before_is_left_of_after(tmp_path: Path) -> None:
    sheet = draw(tmp_path / "sheet.png", plain(BLUE, YELLOW))
    before, after = positions(sheet, BLUE), positions(sheet, YELLOW)
    assert before[:, 1].max() < after[:, 1].min()
    assert before[:, 0].min() == after[:, 0].min()


def test_frames_of_a_video_are_in_time_order(tmp_path: Path) -> None:
    colours = [(8 * i, 40, 200) for i in range(8)]
    sheet = draw(tmp_path / "sheet.png", plain(*colours))
    corners = [tuple(positions(sheet, colour).min(axis=0)) for colour in colours]
    assert corners == sorted(corners)


def test_frames_keep_their_aspect_ratio(tmp_path: Path) -> None:
    area = positions(draw(tmp_path / "sheet.png", plain(BLUE, height=32, width=64)), BLUE)
    height, width = area.max(axis=0) - area.min(axis=0) + 1
    assert width == pytest.approx(2 * height, abs=1)


def test_frames_of_a_series_have_their_dates_below(tmp_path: Path) -> None:
    frames = plain(BLUE, YELLOW, BLUE)
    bare = draw(tmp_path / "a.png", frames)
    dated = draw(tmp_path / "b.png", frames, ("Image 1, 2016:", "Image 2, 2017:", "Image 3, 2018:"))
    first, last = positions(dated, YELLOW).min(axis=0), positions(dated, YELLOW).max(axis=0)
    assert np.array_equal(positions(bare, YELLOW), positions(dated, YELLOW))
    below = slice(last[0] + 1, last[0] + 20), slice(first[1], last[1])
    assert (dated[below] < 200).any()
    assert dated.shape[0] == bare.shape[0] + 20
    other = draw(tmp_path / "c.png", frames, ("Image 1, 2016:", "Image 2, 2019:", "Image 3, 2018:"))
    assert not np.array_equal(other[below], dated[below])


@pytest.mark.parametrize(
    "change",
    [{"prompt_fields": {"question": "Where?"}}, {"references": ("no",)}, {"category": "comp"}, {"title": "era"}],
)
def test_card_shows_title_question_and_reference(tmp_path: Path, change: dict[str, Any]) -> None:
    sheet = draw(tmp_path / "a.png")
    assert not np.array_equal(sheet, draw(tmp_path / "b.png", **change))


def test_samples_are_evenly_spread() -> None:
    assert spread(101, 5) == [0, 25, 50, 75, 100]
    assert spread(2, 5) == [0, 1]


def test_error_without_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sheet\.png"):
        write_samples(tmp_path / "sheet.png", [])


def test_failed_write_keeps_the_previous_sheet(tmp_path: Path) -> None:
    draw(tmp_path / "sheet.png")
    previous = (tmp_path / "sheet.png").read_bytes()
    with pytest.raises(TypeError):
        draw(tmp_path / "sheet.png", [np.zeros((3, 4, 4))])
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
    fields: dict[str, Any] = {"category": wild, "prompt_fields": {"question": wild}, "references": (wild, wild)}
    frames = plain(*[BLUE] * count, height=size[0], width=size[1])
    sheet = draw(tmp_path / "sheet.png", frames, title=wild, id=wild, **fields)
    assert sheet.shape[0] < 1200
    assert len(positions(sheet, BLUE)) > 0


@pytest.mark.parametrize("reference", ["{<10><20><40><60>}", "[20, 20, 80, 60]", "[[10, 20, 40, 60, 0]]"])
def test_boxes_of_references_are_drawn(tmp_path: Path, reference: str) -> None:
    # 200x100 pixels are shown as 320x160.
    sheet = draw(tmp_path / "sheet.png", plain(BLUE, height=100, width=200), references=(reference,))
    top, left = positions(sheet, BLUE).min(axis=0)
    drawn = positions(sheet, BOX)
    assert drawn.min(axis=0) - (top, left) == pytest.approx((0.2 * 160, 0.1 * 320), abs=2)
    assert drawn.max(axis=0) - (top, left) == pytest.approx((0.6 * 160, 0.4 * 320), abs=2)


def test_texts_that_are_no_boxes_are_not_drawn(tmp_path: Path) -> None:
    assert len(positions(draw(tmp_path / "sheet.png", references=("10 20 40 60",)), BOX)) == 0
