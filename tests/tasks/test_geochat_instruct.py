import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from unirs_tasks.geochat_instruct import build

from unirs.errors import DataError
from unirs.tasks.media import Image

IMAGES = Path("share/softwares/kartik/GeoChat_finetuning/final_images_llava")

Row = dict[str, Any]


def row(*texts: str, **values: object) -> Row:
    utterances = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]
    return {"id": "a.jpg", "image": "imgs/a.jpg", "conversations": utterances, **values}


GOOD = row("<image>\n[refer] where is <p>a ship</p> ?", "{<16><55><24><63>|<11>}", "And the pier?", "There is none.")


def write(root: Path, rows: object) -> Path:
    (root / "GeoChat_Instruct.json").write_text(json.dumps(rows), encoding="utf-8")
    return root


def test_each_question_is_a_turn(tmp_path: Path) -> None:
    task = build(write(tmp_path, [GOOD, GOOD | {"id": "a.jpg"}]))
    split = task.load_split("train")
    assert [sample.id for sample in split] == ["0", "1"]
    assert split[1].media == Image(tmp_path / IMAGES / "imgs" / "a.jpg")
    assert [(turn.id, turn.prompt_fields["question"], turn.targets, turn.category) for turn in split[1].turns] == [
        ("1-0", "[refer] where is <p>a ship</p> ?", ("{<16><55><24><63>|<11>}",), "refer"),
        ("1-1", "And the pier?", ("There is none.",), ""),
    ]
    assert task.prompt(split[0].turns[1].prompt_fields) == "And the pier?"
    assert split.turns(1) == 2


def test_dialogues_contain_earlier_turns(tmp_path: Path) -> None:
    (sample,) = build(write(tmp_path, [GOOD]), dialogue=True).load_split("train")
    assert [turn.prompt_fields["question"] for turn in sample.turns] == [
        "[refer] where is <p>a ship</p> ?",
        "[refer] where is <p>a ship</p> ?\n{<16><55><24><63>|<11>}\nAnd the pier?",
    ]


def test_it_is_for_training_only(tmp_path: Path) -> None:
    task = build(write(tmp_path, [GOOD]), images="pictures")
    assert task.splits == ("train",)
    assert task.required_paths == (tmp_path / "GeoChat_Instruct.json", tmp_path / "pictures")
    with pytest.raises(DataError, match=r"Unknown split 'test'\. Known: train"):
        task.load_split("test")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (3, "row 1: Expected `object`, got `int`"),
        (row(), r"row 1: Expected `array` of length >= 2 - at `\$\.conversations`"),
        (row("<image>\nWhat?"), r"row 1: Expected `array` of length >= 2 - at `\$\.conversations`"),
        (row("What?", "That.", conversations="x"), r"row 1: Expected `array`, got `str` - at `\$\.conversations`"),
        (
            row("What?", "That.", conversations=["x", "y"]),
            r"Expected `object`, got `str` - at `\$\.conversations\[0\]`",
        ),
        (row("What?", "That.", image=None), r"row 1: Expected `str`, got `null` - at `\$\.image`"),
        ({"conversations": GOOD["conversations"]}, "row 1: Object missing required field `image`"),
        (row("<image>", "That."), r"row 1: the text of 'conversations' 0 is empty"),
        (row("What?", "  "), r"the text of 'conversations' 1 is empty"),
        # A byte of a file name that is not UTF-8.
        (row("What?", "That.", conversations=[{"from": "\udcff", "value": "x"}] * 2), "row 1: .*lone surrogate"),
        (
            row("What?", "That.", conversations=GOOD["conversations"][::-1]),
            "does not alternate between 'human' and 'gpt'",
        ),
    ],
)
def test_a_bad_row_is_an_error_or_a_counted_skip(tmp_path: Path, bad: object, message: str) -> None:
    write(tmp_path, [GOOD, bad, GOOD])
    with pytest.raises(DataError, match=rf"GeoChat_Instruct\.json, .*{message}"):
        build(tmp_path).load_split("train")
    split = build(tmp_path, skip_bad_rows=True).load_split("train")
    assert ([sample.id for sample in split], split.num_excluded) == (["0", "2"], {"bad rows": 1})


@pytest.mark.parametrize(("content", "message"), [([], "holds no conversations"), ({"a": []}, "holds no JSON list")])
def test_a_file_without_rows_is_an_error(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(write(tmp_path, content)).load_split("train")


def test_split_is_picklable(tmp_path: Path) -> None:
    split = build(write(tmp_path, [GOOD, GOOD])).load_split("train")
    assert list(pickle.loads(pickle.dumps(split))) == list(split)  # noqa: S301 - our own


def test_large_files_are_read_with_little_memory(tmp_path: Path) -> None:
    line = json.dumps(row("<image>\nDescribe it. " + "Describe all. " * 40, "It is a harbour. " * 40))
    (tmp_path / "GeoChat_Instruct.json").write_text(f"[{', '.join([line] * 40_000)}]")
    code = (
        "import sys; from pathlib import Path; from unirs_tasks.geochat_instruct import build;"
        # Not ru_maxrss, which starts from that of the parent process.
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]); before = peak();"
        "split = build(Path(sys.argv[1])).load_split('train'); print(len(split), (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 40_000
    # The file has 50.
    assert megabytes < 25
