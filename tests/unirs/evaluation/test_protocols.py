"""`unirs score`: formats of answers, protocols by name, and all of them side by side."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unirs.cli.main import main
from unirs.errors import DataError, PluginError, UniRSError
from unirs.evaluation.answer_formats import FORMATS
from unirs.evaluation.prediction_files import read_rows
from unirs.evaluation.results import read_metrics
from unirs.evaluation.scoring import Scored, score
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.registry import PROTOCOLS

ANSWERS = Path(__file__).parents[4] / "shared" / "data" / "answers"
needs_answers = pytest.mark.skipif(not ANSWERS.is_dir(), reason="the published answers are not beside the checkout")


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def values(scored: Scored, protocol: str | None = None) -> dict[str, float]:
    result = scored.result if protocol is None else scored.results[protocol]
    return {name: point_estimate(statistic) for name, statistic in result.evaluation.statistics.items()}


EARTHDIAL = {"question": "Is there a road?", "answer": "yes", "annotation": "yes", "vqa_type": "presence"}
EARTHDIAL_CAPTIONS = {
    "question": "Describe it.",
    "answer": "a road",
    **{f"caption{n}": "x" * (n < 2) for n in range(5)},
}
EARTHDIAL_BOXES = {
    "question": "q",
    "answer": "[]",
    "gt_bbox": "[[1, 2, 3, 4, 0]]",
    "task_type": "ref",
    "size_group": "small",
}
GEOCHAT = {"question_id": 1, "image_id": "a.png", "answer": "yes"}
GEOCHAT_REFERRING = {
    **GEOCHAT,
    "ground_truth": "{<1><2><3><4>|<0>}",
    "question": "q",
    "type": "ref",
    "obj_ids": [1],
    "size_group": "large",
}
VRSBENCH_VQA = {**GEOCHAT, "ground_truth": "yes", "question": "q", "type": "object existence", "dataset": "d"}
VRSBENCH_REFERRING = {**GEOCHAT_REFERRING, "is_unique": True}
LLAVA = {"question_id": 1, "prompt": "q", "text": "yes", "answer_id": "x", "model_id": "m", "metadata": {}}
LRS_VQA = {**LLAVA, "category": "count", "ground_truth": "yes"}
LRS_VQA_QUESTION = {"question_id": "FAIR_1", "image": "a.tif", "category": "count", "text": "q?", "ground_truth": "2"}
OWN = {"id": "1", "task": "t", "text": "yes", "references": ["yes", "y"], "category": "presence", "media": ["a.png"]}


@pytest.mark.parametrize(
    ("fields", "name", "references", "category", "media"),
    [
        (OWN, "unirs", ("yes", "y"), "presence", ("a.png",)),
        (GEOCHAT, "geochat", (), "", ("a.png",)),
        (GEOCHAT_REFERRING, "geochat", ("{<1><2><3><4>|<0>}",), "large", ("a.png",)),
        (VRSBENCH_VQA, "vrsbench", ("yes",), "object existence", ("a.png",)),
        (VRSBENCH_REFERRING, "vrsbench", ("{<1><2><3><4>|<0>}",), "unique", ("a.png",)),
        (VRSBENCH_REFERRING | {"is_unique": 0}, "vrsbench", ("{<1><2><3><4>|<0>}",), "not_unique", ("a.png",)),
        (LLAVA, "llava", (), "", ()),
        (LRS_VQA, "lrs_vqa", ("yes",), "count", ()),
        (EARTHDIAL, "earthdial", ("yes",), "presence", ()),
        (EARTHDIAL_CAPTIONS, "earthdial", ("x", "x"), "", ()),
        (EARTHDIAL_BOXES, "earthdial", ("[[1, 2, 3, 4, 0]]",), "small", ()),
    ],
)
def test_a_row_has_the_fields_of_one_format(
    tmp_path: Path,
    fields: dict[str, Any],
    name: str,
    references: tuple[str, ...],
    category: str,
    media: tuple[str, ...],
) -> None:
    assert [key for key, each in FORMATS.items() if each.fits(fields.keys())] == [name]
    path = write(tmp_path / "a.jsonl", [fields])
    ((key, row),) = read_rows(path).items()
    assert (key, row.references, row.category, row.media) == ("1", references, category, media)
    assert row.is_answered
    assert read_rows(path, format_name=name) == {key: row}


def test_rows_without_ids_are_numbered_by_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [EARTHDIAL, EARTHDIAL])
    path.write_text("\n" + path.read_text())
    assert list(read_rows(path)) == ["2", "3"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "q", "answer": "yes"}],
            "line 1 has the fields of no format (answer, question). Formats need: unirs",
        ),
        ([LRS_VQA_QUESTION], "line 1 has the fields of no format (category, ground_truth, image"),
        ([EARTHDIAL, GEOCHAT], "line 2 has the fields of format geochat, but {}, line 1 those of earthdial"),
        ([GEOCHAT, {"question_id": 2}], "line 2 has the fields of no format (question_id)"),
        ([EARTHDIAL | {"answer": ["yes"]}], "line 1: 'answer' must be a text"),
        ([EARTHDIAL | {"answer": float("nan")}], "line 1: 'answer' must be a text, it is nan"),
        ([EARTHDIAL | {"annotation": " "}], "line 1 has nothing to score against"),
        ([EARTHDIAL_CAPTIONS | {"caption0": "", "caption1": ""}], "line 1 has nothing to score against"),
    ],
)
def test_rows_of_no_or_another_format_are_errors(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        score(path, protocol="exact")
    assert message.format(path) in str(caught.value)


def test_huge_integers_are_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(EARTHDIAL).replace('"yes"', "9" * 5000, 1))
    with pytest.raises(DataError, match=r"a\.jsonl, line 1"):
        score(path, protocol="exact")


def test_the_format_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [OWN, OWN | {"id": "2", "text": "no"}])
    assert values(score(path, protocol="exact", answer_format="unirs"))["accuracy"] == 0.5
    with pytest.raises(DataError, match=r"line 1 has no id: it needs 'question_id'"):
        score(path, protocol="exact", answer_format="geochat")
    with pytest.raises(UniRSError, match=r"Unknown format 'geochta'. Did you mean 'geochat'"):
        score(path, protocol="exact", answer_format="geochta")


# Protocols.


def rows_of(*categories: str) -> list[dict[str, Any]]:
    return [
        EARTHDIAL | {"vqa_type": category, "answer": "yes" if index else "no"}
        for index, category in enumerate(categories)
    ]


def test_categories_may_be_excluded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows_of("count", "presence", "comp"))
    scored = score(path, protocol="exact", exclude=["count"])
    assert values(scored)["accuracy"] == 1
    assert scored.result.excluded == {"count": 1}
    with pytest.raises(UniRSError, match=r"No row has the category 'cuont'. Did you mean 'count'"):
        score(path, protocol="exact", exclude=["cuont"])
    with pytest.raises(UniRSError, match="All categories are excluded"):
        score(path, protocol="exact", exclude=["count", "presence", "comp"])


def test_unknown_protocols_and_options_name_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [EARTHDIAL])
    with pytest.raises(UniRSError, match=r"Unknown metric 'earthdail'. Did you mean 'earthdial'"):
        score(path, protocol="earthdail")
    with pytest.raises(PluginError, match=r"Metric 'boxes' has no option 'min_uoi'. Did you mean 'min_iou'"):
        score(path, protocol="boxes", options={"min_uoi": 0.3})
    with pytest.raises(PluginError, match="min_iou is 2"):
        score(path, protocol="boxes", options={"min_iou": 2})
    with pytest.raises(PluginError, match=r"option 'rule' is 'rotatde', it must be 'vrsbench' \|"):
        score(path, protocol="boxes", options={"rule": "rotatde"})
    with pytest.raises(PluginError, match=r"No protocol has an option 'vocabluary'. Did you mean 'vocabulary'"):
        score(path, protocol="all", options={"vocabluary": "x"})


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("boxes", "a.jsonl: The references are not all boxes of one syntax"),
        ("count", r"a.jsonl: Row 1: the reference \('yes',\) holds no number"),
        ("locations", "a.jsonl: Row 1: the reference .* does not list cells"),
        ("rsicc", "a.jsonl: The protocol 'rsicc' needs the ids of words"),
    ],
)
def test_references_of_another_rule_are_an_error_that_names_the_file(
    tmp_path: Path, protocol: str, message: str
) -> None:
    path = write(tmp_path / "a.jsonl", [EARTHDIAL])
    with pytest.raises(DataError, match=message):
        score(path, protocol=protocol)


def test_options_reach_the_protocol_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = EARTHDIAL_BOXES | {"gt_bbox": "[[0, 0, 10, 10, 0]]", "answer": "[[0, 0, 10, 4, 0]]"}
    path = write(tmp_path / "a.jsonl", [half, half | {"answer": "nothing"}])
    assert main(["score", str(path), "--as", "boxes", "--option", "min_iou=0.3", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "precision@0.3/small" in out
    assert "1 of 2 answers hold no box and are wrong." in out
    document = read_metrics(tmp_path / "score/metrics.json")
    assert document["tasks"]["a"]["precision@0.3"]["value"] == 1
    assert document["tasks"]["a"]["recall@0.3"]["value"] == 0.5
    assert document["tasks"]["a"]["unparsed"]["value"] == 1
    assert "1 of 2 answers hold no box" in document["notes"]["a"][0]


def test_nouns_are_a_list(tmp_path: Path) -> None:
    rows = [{"id": "1", "text": "2 roads and 3 houses", "references": ["2 roads and 4 houses"]}]
    path = write(tmp_path / "a.jsonl", rows)
    scored = score(path, protocol="count", options={"nouns": ["road", "house"]})
    assert (values(scored)["mae/road"], values(scored)["mae/house"]) == (0, 1)


def test_all_protocols_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [EARTHDIAL | {"answer": answer} for answer in ("yes", "yes, it is", "yesterday", "no")]
    path = write(tmp_path / "a.jsonl", rows)
    scored = score(path, protocol="all")
    expected = {"exact": 1 / 4, "earthdial": 2 / 4, "contains": 3 / 4, "vrsbench": 3 / 4, "binary": 2 / 4}
    applied = {name: values(scored, name)["accuracy"] for name in scored.results if name != "lrsvqa"}
    assert applied == expected
    assert set(scored.results) | set(scored.not_applied) == set(PROTOCOLS)
    assert scored.not_applied["boxes"] == "the references are no boxes of one syntax"
    assert main(["score", str(path), "--as", "all", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("4 rows evaluated, 0 excluded.")
    assert next(line for line in out.splitlines() if line.strip().startswith("accuracy ")).split()[1:4] == [
        "0.2500",
        "0.5000",
        "0.7500",
    ]
    assert "vrsbench: judge: none. 0 of 4 answers need a judge" in out
    assert "Does not fit: caption: 4 of 4 rows have a single reference." in out
    document = read_metrics(tmp_path / "score/metrics.json")
    assert {name: numbers["accuracy"]["value"] for name, numbers in document["tasks"].items()} == {
        f"a.{name}": value
        for name, value in (expected | {name: 1 / 4 for name in ["lrsvqa"] if name in scored.results}).items()
    }
    assert (tmp_path / "score/predictions/a.earthdial.jsonl").is_file()


SAMPLES = {
    "exact": ("yes", "no"),
    "earthdial": ("yes", "no"),
    "contains": ("yes", "no"),
    "vrsbench": ("yes", "no"),
    "choice": ("A, C", "B"),
    "top1": ("fire", "flood"),
    "count": ("12", "about 3"),
    "binary": ("yes", "no"),
    "locations": ("roads ['top-left'] buildings []", "roads [] buildings []"),
    "boxes": ("[[1, 2, 30, 40, 0]]", "[[50, 60, 70, 80, 0]]"),
    "caption": ("a road is built", "no change"),
    "rsicc": ("a road is built", "there is no difference"),
}


@pytest.mark.parametrize("protocol", SAMPLES)
def test_results_of_every_protocol_are_written_and_compared(
    tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = SAMPLES[protocol]
    (tmp_path / "vocab.json").write_text('{"<UNK>": 0, "a": 1, "road": 2}')
    options = [f"--option={name}={value}" for name, value in _OPTIONS.get(protocol, {}).items()]
    options = [option.replace("VOCABULARY", str(tmp_path / "vocab.json")) for option in options]
    for run, first in (("A", right), ("B", wrong)):
        rows = [
            {"id": str(index), "text": text, "references": [right], "media": [f"{index}.png"]}
            for index, text in enumerate((first, right, wrong, "", "?" * 50))
        ]
        path = write(tmp_path / "rows.jsonl", rows)
        assert main(["score", str(path), "--as", protocol, *options, "--out", str(tmp_path / run)]) == 0
    numbers = read_metrics(tmp_path / "A/score/metrics.json")["tasks"]["rows"]
    primary = next(iter(numbers.values()))
    assert primary["ci_low"] <= primary["value"] <= primary["ci_high"]
    assert len((tmp_path / "A/score/predictions/rows.jsonl").read_text().splitlines()) == 5
    runs = [str(tmp_path / run) for run in "AB"]
    assert main(["compare", *runs, "--stage", "score", "--as", protocol, *options, "--resamples", "50"]) == 0
    assert "nan" not in capsys.readouterr().out


_OPTIONS = {"caption": {"meteor": "false"}, "rsicc": {"meteor": "false", "vocabulary": "VOCABULARY"}}


def test_every_protocol_has_a_sample() -> None:
    assert set(SAMPLES) == set(PROTOCOLS) - {"lrsvqa"}  # which needs WordNet


@pytest.mark.parametrize(
    ("reference", "protocols"),
    [
        ("yes", {"exact", "earthdial", "contains", "vrsbench", "binary"}),
        ("12", {"exact", "earthdial", "contains", "vrsbench", "count"}),
        ("B", {"exact", "earthdial", "contains", "vrsbench", "choice"}),
        ("roads ['top-left'] buildings []", {"exact", "earthdial", "contains", "vrsbench", "locations"}),
        ("{<1><2><3><4>}", {"boxes"}),
        ("[1, 2, 3, 4]", {"boxes"}),
        ("[[1, 2, 3, 4, 0]]", {"boxes"}),
    ],
)
def test_which_protocols_fit_is_decided_by_the_references(tmp_path: Path, reference: str, protocols: set[str]) -> None:
    path = write(tmp_path / "a.jsonl", [{"id": "1", "text": "anything", "references": [reference]}])
    assert set(score(path, protocol="all").results) - {"lrsvqa"} == protocols


def test_captions_fit_the_caption_protocols(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [EARTHDIAL_CAPTIONS])
    scored = score(path, protocol="all", options={"meteor": False})
    assert set(scored.results) == {"caption"}
    assert scored.not_applied["rsicc"] == "it needs --option vocabulary=FILE"


def test_classes_fit_top1(tmp_path: Path) -> None:
    row = {"id": "1", "text": "a fire", "references": ["This is a video about fire."], "category": "fire"}
    scored = score(write(tmp_path / "a.jsonl", [row]), protocol="all")
    assert values(scored, "top1")["top1"] == 1
    assert values(scored, "exact")["accuracy"] == 0


# Published answers.


@needs_answers
def test_rsvqa_lr_of_earthdial() -> None:
    scored = score(ANSWERS / "earthdial_rs_vqa_RSVQA_LR.jsonl", protocol="exact", exclude=["count"])
    numbers = {name: round(100 * value, 2) for name, value in values(scored).items()}
    assert numbers["accuracy/presence"] == 92.59
    assert numbers["accuracy/comp"] == 92.75
    assert numbers["accuracy/rural_urban"] == 94.00
    assert numbers["accuracy"] == 92.70
    assert (len(scored.result.rows), scored.result.excluded) == (7057, {"count": 2947})


@needs_answers
@pytest.mark.parametrize(
    ("name", "protocol", "options", "expected"),
    [
        ("classification_UCM", "exact", {}, {"accuracy": 80.76}),
        ("classification_UCM", "earthdial", {}, {"accuracy": 92.57}),
        (
            "detection_NWPU_VHR_10",
            "boxes",
            {},
            {
                "precision@0.5/small": 11.67,
                "precision@0.5/medium": 14.22,
                "precision@0.5/large": 23.12,
                "precision@0.5/single": 25.38,
                "precision@0.5/multiple": 8.92,
                "unparsed": 0,
            },
        ),
        ("change_detection_xBD_object_detection", "boxes", {"min_iou": 0.25}, {"precision@0.25": 27.68}),
        ("change_detection_xBD_reg_cls_testset_1", "exact", {}, {"accuracy": 64.00}),
        ("change_detection_FMoW", "exact", {}, {"accuracy": 88.00}),
        ("change_detection_FMoW", "top1", {}, {"top1": 88.00}),
        (
            "image_caption_RSICD_Captions",
            "caption",
            {"meteor": False},
            {"bleu_4": 35.15, "rouge_l": 52.53, "cider": 99.41},
        ),
    ],
)
def test_published_answers(name: str, protocol: str, options: dict[str, Any], expected: dict[str, float]) -> None:
    scored = score(ANSWERS / f"earthdial_rs_{name}.jsonl", protocol=protocol, options=options)
    assert {key: round(100 * values(scored)[key], 2) for key in expected} == expected


def score_first_references(folder: Path, *, meteor: bool) -> Scored:
    """The first test reference of each pair of LEVIR-CC against the other four."""
    rows = []
    for line in (ANSWERS / "levir_cc_test_tokens.jsonl").read_text().splitlines():
        row = json.loads(line)
        first, *others = (" ".join(words[1:-1]) for words in row["tokens"])
        rows.append({"id": row["filename"], "text": first, "references": others})
    options = {"vocabulary": ANSWERS / "levir_mci_vocab.json", "meteor": meteor}
    return score(write(folder / "levir_cc.jsonl", rows), protocol="all", options=options)


@needs_answers
@pytest.mark.slow
def test_meteor_of_ids_is_not_that_of_words(tmp_path: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("METEOR needs Java")
    scored = score_first_references(tmp_path, meteor=True)
    numbers = [values(scored, name) for name in ("caption", "rsicc")]
    assert [round(100 * each["meteor"], 2) for each in numbers] == [18.64, 18.81]
    assert round(100 * numbers[1]["meteor/changed"], 2) == 22.18


@needs_answers
def test_references_of_levir_cc_against_each_other(tmp_path: Path) -> None:
    scored = score_first_references(tmp_path, meteor=False)
    plain, by_ids = (
        {key: round(100 * value, 2) for key, value in values(scored, name).items()} for name in ("caption", "rsicc")
    )
    assert {key: plain[key] for key in ("bleu_4", "rouge_l", "cider")} == {
        "bleu_4": 16.45,
        "rouge_l": 34.21,
        "cider": 27.27,
    }
    assert {key: by_ids[key] for key in ("bleu_4", "rouge_l", "cider", "cider/changed", "change_accuracy")} == {
        "bleu_4": 16.46,
        "rouge_l": 34.22,
        "cider": 27.45,
        "cider/changed": 41.95,
        "change_accuracy": 100,
    }


@needs_answers
def test_a_file_of_questions_is_no_file_of_answers() -> None:
    with pytest.raises(DataError, match="line 1 has the fields of no format"):
        score(ANSWERS / "lrs_vqa_merged.jsonl", protocol="lrsvqa")


@needs_answers
@pytest.mark.slow
def test_all_protocols_on_ten_thousand_rows_take_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    start = time.perf_counter()
    assert main(["score", str(ANSWERS / "earthdial_rs_vqa_RSVQA_LR.jsonl"), "--as", "all"]) == 0
    assert time.perf_counter() - start < 10
    assert "10004 rows evaluated" in capsys.readouterr().out
