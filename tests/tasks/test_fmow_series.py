import json
import pickle
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from unirs_tasks.fmow_series import CLASSES, build

from unirs.errors import DataError, PluginError
from unirs.metrics import Prediction
from unirs.tasks.series import Series

SHARED = Path(__file__).parents[3] / "shared" / "data" / "answers"


def write(root: Path, split: str, name: str, dates: list[str], place: str = "") -> Path:
    place = place or f"{name}_{split}_7"
    folder = root / split / name / place
    folder.mkdir(parents=True)
    for number, date in enumerate(dates):
        image = folder / f"{place}_{number}_rgb.jpg"
        color = (40 * number, 80 * len(split) % 256, sum(map(ord, folder.as_posix()[-9:])) % 256)
        PIL.Image.new("RGB", (32, 24 + number), color).save(image)
        image.with_suffix(".json").write_text(json.dumps({"timestamp": date, "gsd": 0.5, "utm": "21N"}))
    return folder


UNORDERED = ["2016-05-01T10:00:00Z", "2014-01-03T11:12:13Z", "2017-12-31T00:00:00.5Z", "2015-02-02T00:00:00Z"]


def test_images_in_order_of_their_dates(tmp_path: Path) -> None:
    folder = write(tmp_path, "val", "airport", UNORDERED)
    write(tmp_path, "val", "dam", UNORDERED[:1])
    split = build(tmp_path).load_split("test")
    (sample,) = split
    images = [folder / f"{folder.name}_{number}_rgb.jpg" for number in (1, 3, 0, 2)]
    assert sample.media == Series(images, ["2014-01", "2015-02", "2016-05", "2017-12"])
    assert (sample.turns[0].references, sample.turns[0].category) == (("airport",), "airport")
    assert split.num_excluded == {"single images": 1}
    (two,) = build(tmp_path, num_images=2).load_split("test")
    assert two.media == Series([images[0], images[3]], ["2014-01", "2017-12"])
    assert pickle.loads(pickle.dumps(split))[0] == sample  # noqa: S301 - written in this test


def test_val_is_a_share_of_the_training_places(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path, "train", "zoo", UNORDERED[:2], place=f"zoo_{number}")
    train, val = (build(tmp_path, val_share=0.3).load_split(name) for name in ("train", "val"))
    assert (len(train), len(val)) == (7, 3)
    assert not {one.id for one in train} & {one.id for one in val}


def test_bad_data_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "val", "zoo", UNORDERED)
    metadata = folder / f"{folder.name}_2_rgb.json"
    metadata.write_text('{"timestamp": "yesterday"}')
    with pytest.raises(DataError, match=rf"{metadata.name}: Invalid RFC3339.*timestamp"):
        build(tmp_path).load_split("test")[0]
    metadata.unlink()
    with pytest.raises(DataError, match=rf"{metadata.name} does not exist"):
        build(tmp_path).load_split("test")[0]
    write(tmp_path, "val", "zoos", UNORDERED)
    with pytest.raises(DataError, match="zoos is not named as one of fMoW's classes"):
        build(tmp_path).load_split("test")
    with pytest.raises(DataError, match="has no place with two or more images"):
        build(tmp_path / "no").load_split("train")
    with pytest.raises(PluginError, match="num_images"):
        build(tmp_path, num_images=1)


def test_published_answers(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the published answers are absent")
    lines = (SHARED / "earthdial_rs_change_detection_FMoW.jsonl").read_text().splitlines()
    task, rows = build(tmp_path), []
    for index, row in enumerate(map(json.loads, lines)):
        truth, prompt = row["caption0"], row["question"]
        rows.append(Prediction(str(index), "fmow_series", (), truth, prompt, row["answer"], (truth,)))
        listed = prompt.split("Classes:")[1].split(". \\n")[0].split(",")
        assert {name.strip() for name in listed} == set(CLASSES)
    statistic = task.scorer.evaluate(rows).statistics["top1"]
    assert float(statistic.from_sums(statistic.row_sums.sum(0))) == pytest.approx(22 / 25)


def test_trains_and_is_scored(tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]) -> None:
    for split in ("train", "val"):
        for name in ("zoo", "dam"):
            for number in range(2):
                write(tmp_path / "data", split, name, UNORDERED[number:], place=f"{name}_{split}_{number}")
    config = write_config(tmp_path, [{"name": "fmow_series", "root": str(tmp_path / "data")}], data={"batch_size": 2})
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    scores = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["tasks"]["fmow_series"]
    assert scores["top1"]["n"] == 4
    row = json.loads((tmp_path / "run" / "test" / "predictions" / "fmow_series.jsonl").read_text().splitlines()[0])
    assert "Image 1, 2014-01:<|visual|>Image 2, 2015-02:<|visual|>" in row["prompt"]
