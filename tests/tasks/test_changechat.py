import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from unirs_tasks.changechat import build

from unirs.errors import DataError, PluginError
from unirs.metrics import Prediction
from unirs.tasks.media import Pair

SHARED = Path(__file__).parents[3] / "shared" / "data" / "answers"
BINARY = "Please judge whether these two images have changed. Please answer yes or no."
COUNT = "Please determine how many roads and buildings have changed?"
LOCATION = "Please indicate the locations where changes have occurred in the buildings and roads, using a 3x3 grid."
CAPTION = "Please briefly describe the changes in these two images."
LIST = "roads ['top-left'] buildings []"

Row = dict[str, Any]


def row(name: str, *texts: str, **values: object) -> Row:
    utterances = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    return {"id": 9, "image": [f"test/A/{name}.png", f"test/B/{name}.png"], "conversations": utterances, **values}


def images(name: str) -> Row:
    return {f"image_{time}": f"test/{time}/{name}.png" for time in "AB"}


# As in the published files of the test split; `dialog` has several turns.
FILES: dict[str, list[Row]] = {
    "changechat_105k_test": [
        {
            "image_A": "test/A/1.png",
            "image_B": "test/B/1.png",
            "captions": ["a road is built", "a new road"],
            "changeflag": 1,
        },
        {"image_A": "test/A/2.png", "image_B": "test/B/2.png", "captions": ["there is no difference"], "changeflag": 0},
    ],
    "changechat_105k_test_binary": [row("1", f"<image> <image> {BINARY}", "Yes", changeflag=1), row("2", BINARY, "No")],
    "changechat_105k_test_count": [row("1", COUNT, "1 road and 3 buildings have changed.")],
    "changechat_105k_test_loc": [row("1", LOCATION, LIST)],
    "changechat_105k_test_open": [row("1", "<image>\nWhat was built?", "A road along the trees.")],
    "changechat_105k_test_dialog": [
        row("1", BINARY, "Yes", "If changes have occurred, count the number of road and building changes.", "One road.")
    ],
}


def write(root: Path, files: dict[str, list[Row]]) -> Path:
    for folder in ("annotations", "images/test/A", "images/test/B"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        (root / "annotations" / f"{name}.json").write_text(json.dumps(rows))
    for name, shade in (("1", 90), ("2", 200)):
        for time in "AB":
            PIL.Image.new("RGB", (32, 32), (shade, 90, 90)).save(root / "images" / "test" / time / f"{name}.png")
    return root


def test_rows_of_a_pair_are_one_sample(tmp_path: Path) -> None:
    task = build(write(tmp_path, FILES))
    first, second = task.load_split("test")
    folder = tmp_path / "images" / "test"
    assert first.media == Pair(folder / "A" / "1.png", folder / "B" / "1.png")
    assert [(turn.category, turn.references) for turn in first.turns] == [
        ("caption/changed", ("a road is built", "a new road")),
        ("binary/changed", ("Yes",)),
        ("count", ("1 road and 3 buildings have changed.",)),
        ("conversation", ("Yes",)),
        ("conversation", ("One road.",)),
        ("location", (LIST,)),
        ("open", ("A road along the trees.",)),
    ]
    assert task.prompt(first.turns[1].prompt_fields) == f"[change] {BINARY}"
    assert first.turns[4].prompt_fields["question"].startswith(f"{BINARY}\nYes\nIf changes")
    assert [turn.category for turn in second.turns] == ["caption/unchanged", "binary"]
    assert len({turn.id for sample in (first, second) for turn in sample.turns}) == 9


def test_captions_in_rows_of_their_own_are_scored_together(tmp_path: Path) -> None:
    files = {"test": [row("1", CAPTION, "A road."), row("1", CAPTION, "A new road."), row("2", CAPTION, "Nothing.")]}
    samples = build(write(tmp_path, files)).load_split("test")
    assert [sample.turns[0].references for sample in samples] == [("A road.", "A new road."), ("Nothing.",)]


def test_each_type_has_its_metric(tmp_path: Path) -> None:
    task = build(write(tmp_path, FILES), meteor=False)
    turns = [(sample.media.sources, turn) for sample in task.load_split("test") for turn in sample.turns]
    rows = [Prediction(one.id, "c", media, one.category, "", one.references[0], one.references) for media, one in turns]
    values = {
        name: float(statistic.from_sums(statistic.row_sums.sum(0)))
        for name, statistic in task.scorer.evaluate(rows).statistics.items()
    }
    assert values["binary/f1"] == values["binary/accuracy/changed"] == values["location/jaccard/roads"] == 1
    assert values["count/mae/road"] == values["count/rmse/building"] == values["location/hamming/roads"] == 0
    assert values["caption/change_accuracy"] == pytest.approx(values["caption/bleu_1/changed"]) == 1
    assert values["open/bleu_4"] == pytest.approx(1)
    assert {"conversation/cider", "open/rouge_l"} <= set(values)


def test_val_is_a_share_of_the_training_pairs_unless_it_has_a_file(tmp_path: Path) -> None:
    rows = [row(str(number), CAPTION, "A road.") for number in range(20)]
    task = build(write(tmp_path, {"train": rows}))
    train, val = ({sample.media for sample in task.load_split(split)} for split in ("train", "val"))
    assert (len(train), len(val), len(train | val)) == (18, 2, 20)
    write(tmp_path, {"val": rows[:3]})
    assert [len(task.load_split(split)) for split in ("train", "val")] == [20, 3]


def test_only_the_chosen_types(tmp_path: Path) -> None:
    split = build(write(tmp_path, FILES), questions=["count", "open"]).load_split("test")
    assert [turn.category for sample in split for turn in sample.turns] == ["count", "open"]
    assert split.num_excluded == {"caption": 2, "binary": 2, "conversation": 2, "location": 1}
    with pytest.raises(PluginError, match=r"Unknown questions 'counts'\. Did you mean 'count'"):
        build(tmp_path, questions=["counts"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row("1", BINARY, "Perhaps"), "neither yes nor no"),
        (row("1", COUNT, "Some roads."), "holds no number of 'road'"),
        (row("1", LOCATION, "In the north."), "does not list cells of roads and buildings"),
        (row("1", BINARY), "does not alternate"),
        (row("1", BINARY, " "), r"the text of 'conversations' 1 is empty"),
        (row("1"), "neither 'conversations' nor 'captions'"),
        ({"image": ["a.png"], "conversations": []}, r"Expected `array` of length 2.* at `\$\.image`"),
        ({"captions": ["a"]}, "no 'image' with two paths"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, bad: Row, message: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)train\.json, row 1.*{message}"):
        build(write(tmp_path, {"train": [row("1", CAPTION, "A road."), bad]})).load_split("train")
    with pytest.raises(DataError, match="has no question for the split 'test'"):
        build(tmp_path).load_split("test")


def test_questions_without_answers_are_refused(tmp_path: Path) -> None:
    """CDChat publishes its questions without answers."""
    if not SHARED.is_dir():
        pytest.skip("the published questions are absent")
    rows = json.loads((SHARED / "cdchat_eval_questions_levir_test.json").read_text())
    with pytest.raises(DataError, match=r"test\.json, row 0 has no 'image' with two paths"):
        build(write(tmp_path, {"test": rows})).load_split("test")


def test_trains_and_is_scored(tmp_path: Path, cli: Callable[..., int], write_config: Callable[..., Path]) -> None:
    open_question, dialog = FILES["changechat_105k_test_open"], FILES["changechat_105k_test_dialog"]
    root = write(tmp_path / "data", FILES | {"train": [*open_question, *dialog, row("2", BINARY, "No")]})
    tasks = [{"name": "changechat", "root": str(root), "meteor": False}]
    config = write_config(tmp_path, tasks, data={"batch_size": 2})
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    scores = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())["tasks"]["changechat"]
    assert {"caption/cider", "binary/f1", "count/unparsed", "location/f1/roads", "conversation/bleu_1"} <= set(scores)
