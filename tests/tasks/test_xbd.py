import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from unirs_tasks.xbd import DAMAGE, build

from unirs.errors import DataError
from unirs.metrics import Prediction
from unirs.tasks.media import Pair

SHARED = Path(__file__).parents[3] / "shared" / "data" / "answers"
NAME = "guatemala-volcano_00000003"


def building(damage: str | None, *points: tuple[float, float]) -> dict[str, Any]:
    wkt = ", ".join(f"{x} {y}" for x, y in points)
    properties = {"feature_type": "building", "uid": "a1"} | ({"subtype": damage} if damage else {})
    return {"properties": properties, "wkt": f"POLYGON (({wkt}))"}


SQUARE = ((63.5, 64.0), (128.2, 64.0), (128.2, 230.9), (63.5, 64.0))
LARGE = ((-5.0, 1000.0), (1030.0, 1000.0), (1030.0, 1024.0))


def write(root: Path, folder: str, *buildings: dict[str, Any], name: str = NAME) -> Path:
    for kind in ("images", "labels"):
        (root / folder / kind).mkdir(parents=True, exist_ok=True)
    for time in ("pre", "post"):
        label = {"features": {"lng_lat": [], "xy": list(buildings)}, "metadata": {"width": 1024, "height": 1024}}
        (root / folder / "labels" / f"{name}_{time}_disaster.json").write_text(json.dumps(label))
        PIL.Image.new("RGB", (32, 32), (90, sum(map(ord, folder)) % 256, 90)).save(
            root / folder / "images" / f"{name}_{time}_disaster.png"
        )
    return root


def test_each_building_is_a_turn(tmp_path: Path) -> None:
    unknown = building("un-classified", *SQUARE)
    write(tmp_path, "test", building("destroyed", *SQUARE), unknown, building("no-damage", *LARGE))
    write(tmp_path, "test", unknown, name="other_00000001")
    split = build(tmp_path).load_split("test")
    (sample,) = split
    images = tmp_path / "test" / "images"
    assert sample.media == Pair(images / f"{NAME}_pre_disaster.png", images / f"{NAME}_post_disaster.png")
    assert [(turn.id, turn.references, turn.category) for turn in sample.turns] == [
        (f"{NAME}_post_disaster-0", ("destroyed",), "destroyed"),
        (f"{NAME}_post_disaster-2", ("no-damage",), "no-damage"),
    ]
    # Rounded outwards, and cut at the image's border.
    assert "<box>[[6, 6, 13, 23, 0]]</box>" in sample.turns[0].prompt_fields["question"]
    assert "<box>[[0, 97, 100, 100, 0]]</box>" in sample.turns[1].prompt_fields["question"]
    assert split.num_excluded == {"un-classified": 2}


def test_splits(tmp_path: Path) -> None:
    for folder in ("train", "hold", "tier3"):
        write(tmp_path, folder, building("destroyed", *SQUARE), name=f"{folder}_00000001")
    splits = {name: [one.id for one in build(tmp_path).load_split(name)] for name in ("train", "val")}
    assert splits == {"train": ["train_00000001_post_disaster"], "val": ["hold_00000001_post_disaster"]}
    assert len(build(tmp_path, tier3=True).load_split("train")) == 2
    with pytest.raises(DataError, match="has no buildings in test"):
        build(tmp_path).load_split("test")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (building("ruined", *SQUARE), "building 1: no polygon with one of no-damage, .* but 'ruined'"),
        (building("destroyed"), "building 1: no polygon"),
        (
            {"properties": {"uid": "a", "subtype": "destroyed"}},
            r"missing required field `wkt` - at `\$\.features\.xy\[1\]`",
        ),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    write(tmp_path, "train", building("destroyed", *SQUARE), bad)
    with pytest.raises(DataError, match=rf"{NAME}_post_disaster\.json.*{message}"):
        build(tmp_path).load_split("train")


def test_published_answers(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the published answers are absent")
    lines = (SHARED / "earthdial_rs_change_detection_xBD_reg_cls_testset_1.jsonl").read_text().splitlines()
    task, rows = build(tmp_path), []
    for index, row in enumerate(map(json.loads, lines)):
        truth = row["caption0"]
        if truth != "un-classified":
            rows.append(Prediction(str(index), "xbd", (), truth, row["question"], row["answer"], (truth,)))
            assert all(name in row["question"] for name in DAMAGE)
    assert len(rows) == 23
    statistic = task.scorer.evaluate(rows).statistics["top1"]
    assert float(statistic.from_sums(statistic.row_sums.sum(0))) == pytest.approx(16 / 23)


def test_trains_and_is_scored(tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]) -> None:
    for folder in ("train", "hold", "test"):
        write(tmp_path / "data", folder, building("destroyed", *SQUARE), building("no-damage", *LARGE))
    config = write_config(tmp_path, [{"name": "xbd", "root": str(tmp_path / "data")}])
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    scores = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["tasks"]["xbd"]
    assert scores["top1"]["n"] == 2
    assert cli("tasks", "check", "xbd", "--root", tmp_path / "data", "--sheet", tmp_path / "sheet.png") == 0
