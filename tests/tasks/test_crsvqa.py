from pathlib import Path

import pytest
from unirs_tasks.crsvqa import build

from unirs.errors import DataError, PluginError
from unirs.tasks.media import Image


def write(root: Path, **texts: str) -> Path:
    (root / "text").mkdir(exist_ok=True)
    for name, text in texts.items():
        (root / "text" / f"{name}.txt").write_bytes(text.encode())
    return root


def test_questions_and_answers_line_by_line(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="What is the theme of it?\r\nAirport\r\nHow many Planes are there\N{FULLWIDTH QUESTION MARK}\r\n2\r\n",
        b="What is to the left of the road\nA pond",
    )
    task = build(tmp_path, test_share=0, val_share=0)
    samples = {sample.id: sample for sample in task.load_split("train")}
    assert [
        (turn.id, turn.prompt_fields["question"], turn.references, turn.category) for turn in samples["a"].turns
    ] == [
        ("a-0", "what is the theme of it?", ("airport",), "scene"),
        ("a-1", "how many planes are there?", ("2",), "object"),
    ]
    (turn,) = samples["b"].turns
    assert (turn.prompt_fields["question"], turn.references, turn.category) == (
        "what is to the left of the road?",
        ("a pond",),
        "relation",
    )
    assert samples["b"].media == Image(tmp_path / "image" / "b.png")


def test_protocols(tmp_path: Path) -> None:
    fields = {"question": "where?"}
    assert build(tmp_path).prompt(fields) == "[vqa] where?\nAnswer the question using a single word or phrase."
    assert build(tmp_path, "crsvqa").prompt(fields) == "[vqa] where?"
    with pytest.raises(PluginError, match=r"Unknown protocol 'rsvqa'\. Did you mean 'crsvqa'"):
        build(tmp_path, "rsvqa")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="val_share is -1"):
        build(tmp_path, val_share=-1)


def test_a_tenth_is_test(tmp_path: Path) -> None:
    task = build(write(tmp_path, **{f"n{i}": "Where?\nHere" for i in range(100)}))
    names = [[sample.id for sample in task.load_split(split)] for split in task.splits]
    assert list(map(len, names)) == [81, 9, 10]
    assert len(set().union(*names)) == 100
    other = build(tmp_path, seed=1)
    assert [sample.id for sample in other.load_split("test")] != names[2]


def test_split_file(tmp_path: Path) -> None:
    write(tmp_path, a="Where?\nHere", b="Where?\nHere", c="Where?\nHere")
    file = tmp_path / "splits.csv"
    file.write_text("file,split\na,test\nb,train\nc,val\n")
    task = build(tmp_path, split_file=file)
    assert [[sample.id for sample in task.load_split(split)] for split in task.splits] == [["b"], ["c"], ["a"]]
    assert file in task.required_paths
    file.write_text("file,split\nd,test\n")
    with pytest.raises(DataError, match=r"splits\.csv, line 2: there is no 'd'"):
        task.load_split("test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Where?\nHere\nWhen?\n", r"a\.txt holds 3 lines\. It must hold a question and an answer in turn"),
        ("", r"a\.txt holds 0 lines"),
        ("Where?\n\nWhen?\nNow", r"a\.txt, line 2 is empty"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, a=text)
    with pytest.raises(DataError, match=message):
        build(tmp_path, test_share=0).load_split("train")


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text is not a folder"):
        build(tmp_path).load_split("train")
    write(tmp_path, a="Where?\nHere")
    with pytest.raises(DataError, match="has no file for the split 'test'"):
        build(tmp_path).load_split("test")
    (tmp_path / "text" / "b.txt").write_bytes(b"\xff\xfe\xff\n\xff")
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8 text \(byte 0\)"):
        build(tmp_path, test_share=0, val_share=0).load_split("train")
    (tmp_path / "text" / "b.txt").unlink()
    (tmp_path / "text" / "b.txt").symlink_to("b.txt")
    with pytest.raises(DataError, match=r"b\.txt cannot be read"):
        build(tmp_path, test_share=0, val_share=0).load_split("train")
    (tmp_path / "text" / "c.md").touch()
    with pytest.raises(DataError, match=r"c\.md is not a \.txt file"):
        build(tmp_path).load_split("train")
    with pytest.raises(DataError, match="Unknown split 'tset'"):
        build(tmp_path).load_split("tset")  # type: ignore[arg-type]


def test_required_paths_and_download_hint(tmp_path: Path) -> None:
    task = build(tmp_path)
    assert (task.modality, task.required_paths) == ("image", (tmp_path / "image", tmp_path / "text"))
    assert "MQVQA" in task.download_hint
