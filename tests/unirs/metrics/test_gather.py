import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torchmetrics.text import CHRFScore

import unirs
from unirs.metrics.base import Prediction
from unirs.metrics.gather import PredictionMetric
from unirs.metrics.scorer import Scorer
from unirs.metrics.text_metric import TextMetric
from unirs.metrics.vqa import VqaAccuracy

texts = st.text(max_size=8)
predictions = st.builds(
    Prediction,
    id=texts,
    task=texts,
    media=st.lists(texts, max_size=2).map(tuple),
    category=texts,
    prompt=texts,
    text=texts,
    references=st.lists(texts, max_size=2).map(tuple),
    clue=texts,
)

WORDS = ["a", "road", "is", "built", "and", "many", "houses", "appear", "on", "bare", "land"]

WORKER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
import torch
from unirs.metrics.base import Prediction
from unirs.metrics.caption import CaptionMetrics
from unirs.metrics.text_metric import TextMetric
from unirs.metrics.vqa import VqaAccuracy
from torchmetrics.text import CHRFScore

def score(batches):
    metrics = {
        "vqa": VqaAccuracy()(),
        "captions": CaptionMetrics()(slow=False),
        "chrf": TextMetric(CHRFScore)(),
    }
    for batch in batches:
        rows = [Prediction(**row | {k: tuple(row[k]) for k in ("media", "references")}) for row in batch]
        for metric in metrics.values():
            metric.update(rows)
    rows = metrics["vqa"].predictions()
    values = {key: {name: float(v) for name, v in metric.compute().items()} for key, metric in metrics.items()}
    assert rows == metrics["vqa"].predictions()
    return {"rows": [asdict(row) for row in rows], **values}

def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    answers = [score(shares[rank]) for shares in json.loads((folder / "in.json").read_text())]
    (folder / f"out{rank}.json").write_text(json.dumps(answers))
    torch.distributed.destroy_process_group()

# Forked, so that the slow imports are paid once.
torch.multiprocessing.start_processes(work, args=(Path(sys.argv[1]),), nprocs=2, start_method="fork")
"""


def row(number: int) -> Prediction:
    answer = "yes" if number % 3 else "no — nein"
    return Prediction(
        f"q{number}", "vqa", (f"{number // 4}.tif",), f"kind{number % 2}", "a\nb", answer, ("yes",), "\u2028"
    )


def encode(rows: list[Prediction]) -> list[dict[str, Any]]:
    return [
        {
            name: getattr(item, name)
            for name in ("id", "task", "media", "category", "prompt", "text", "references", "clue", "box_frame")
        }
        for item in rows
    ]


def collected(*batches: list[Prediction], by: Scorer = VqaAccuracy()) -> PredictionMetric:  # noqa: B008
    metric = by()
    for batch in batches:
        metric.update(batch)
    return metric


@pytest.mark.slow
def test_two_processes_score_the_rows_as_one_process_does(tmp_path: Path) -> None:
    captions = [
        Prediction(
            f"c{number}",
            "captions",
            (f"{number}.png",),
            "",
            "",
            " ".join(WORDS[number % 5 : 5 + number % 7]),
            (" ".join(WORDS[number % 3 : 4 + number % 8]), " ".join(WORDS[number % 6 :])),
        )
        for number in range(130)
    ]
    # Per scenario and process: batches of rows.
    scenarios: list[list[list[list[Prediction]]]] = [
        [[[row(0), row(2)], [row(4)]], [[row(1)], [row(3), row(11)], [row(0)]]],  # uneven, one row repeated
        [[], [[row(7), row(8)]]],  # no update at all on the first
        [[[row(10), row(9)]], [[]]],  # an empty update on the second
        [[], []],
        [[[row(number) for number in range(0, 300, 2)]], [[row(number) for number in range(1, 300, 2)], [row(0)]]],
        [[captions[:40], captions[40:90]], [captions[90:], captions[:7]]],
    ]
    shares = [[[encode(batch) for batch in batches] for batches in scenario] for scenario in scenarios]
    (tmp_path / "in.json").write_text(json.dumps(shares))
    roots = os.pathsep.join([str(Path(unirs.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": roots}, check=True, timeout=300)

    outputs = [json.loads((tmp_path / f"out{rank}.json").read_text()) for rank in range(2)]
    assert outputs[0] == outputs[1]
    for scenario, output in zip(scenarios, outputs[0], strict=True):
        batches = list(chain.from_iterable(scenario))
        assert output["rows"] == json.loads(json.dumps(encode(list(collected(*batches).predictions()))))
        for name, scorer in (("vqa", VqaAccuracy()), ("chrf", TextMetric(CHRFScore))):
            assert output[name] == {
                key: float(value) for key, value in collected(*batches, by=scorer).compute().items()
            }
    assert [item["id"] for item in outputs[0][0]["rows"]] == ["q0", "q1", "q2", "q3", "q4", "q11"]
    assert outputs[0][3]["rows"] == []
    assert outputs[0][3]["vqa"] == outputs[0][3]["chrf"] == {}
    texts = {row.id: [row.text] for row in captions}
    references = {row.id: list(row.references) for row in captions}
    scores = [*Bleu(4).compute_score(references, texts, verbose=0)[0]]
    scores += [scorer.compute_score(references, texts)[0] for scorer in (Rouge(), Cider())]
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert outputs[0][5]["captions"] == pytest.approx(dict(zip(names, scores, strict=True)), rel=0, abs=1e-6)


@given(st.lists(predictions, unique_by=lambda item: item.id, max_size=5))
def test_rows_survive_unchanged(rows: list[Prediction]) -> None:
    metric = collected(rows[:2], rows[2:])
    assert {item.id: item for item in metric.predictions()} == {item.id: item for item in rows}


def test_rows_are_sorted_by_the_numbers_in_their_ids() -> None:
    numbers = list(range(0, 120, 7))
    random.Random(0).shuffle(numbers)  # noqa: S311
    metric = collected(*([row(number)] for number in numbers))
    assert [item.id for item in metric.predictions()] == [f"q{number}" for number in sorted(numbers)]


def test_ids_that_are_numbers_are_sorted_as_others_are() -> None:
    keys = ["10", "9", "010", "0", "2", "9" * 5000, "00"]
    metric = collected([replace(row(1), id=key) for key in keys])
    assert [item.id for item in metric.predictions()] == ["0", "00", "2", "9", "010", "10", "9" * 5000]
    mixed = collected([replace(row(1), id=key) for key in [*keys, "a"]])
    assert [item.id for item in mixed.predictions()] == ["0", "00", "2", "9", "010", "10", "9" * 5000, "a"]


def test_rows_are_indexed_and_sliced_as_a_list_is() -> None:
    rows = collected([row(number) for number in range(5)]).predictions()
    assert (len(rows), rows[-1], rows[1:3]) == (5, row(4), [row(1), row(2)])
    with pytest.raises(IndexError):
        rows[5]


@pytest.mark.parametrize("prefix", ["", "0", "q"])
def test_many_rows_are_read_in_any_order(prefix: str) -> None:
    rows = [replace(row(number), id=f"{prefix}{number}") for number in range(700)]
    shuffled = random.Random(0).sample(rows, len(rows))  # noqa: S311
    repeated = [replace(one, text="again") for one in shuffled[:200]]
    # Updates of none, few and many rows.
    metric = collected(shuffled[:1], [], shuffled[1:300], repeated, shuffled[300:])
    found = metric.predictions()
    expected = sorted(rows, key=lambda one: (int(one.id.removeprefix("q")), one.id))
    assert list(found) == expected
    assert [found[index] for index in (699, 0, 350, 351, 0)] == [expected[index] for index in (699, 0, 350, 351, 0)]


def test_rows_in_order_are_read_as_they_are() -> None:
    rows = [replace(row(number), id=str(2 * number)) for number in range(200)]
    assert list(collected(rows[:70], rows[70:]).predictions()) == rows
    assert list(collected(rows, rows[-1:]).predictions()) == rows
    assert list(collected(rows, [replace(row(1), id="399")]).predictions())[:-1] == rows[:200]
    assert [item.id for item in collected(rows, [replace(row(1), id="397")]).predictions()][-2:] == ["397", "398"]


def test_rows_take_little_memory() -> None:
    metric = collected([row(number) for number in range(1000)])
    assert sum(state.numel() for state in metric._as_list()) < 30 * 1000
    assert len(row(1000).to_json()) > 120


def test_lone_surrogates_survive_in_large_updates() -> None:
    rows = [replace(row(number), media=("\udce9.png",), text="\ud800" * (number % 2)) for number in range(150)]
    assert list(collected(rows).predictions()) == rows


def test_the_first_row_of_an_id_counts() -> None:
    metric = collected([row(1), replace(row(1), text="maybe")], [replace(row(1), text="no")])
    assert metric.predictions() == (row(1),)
    assert metric.compute()["accuracy"] == 1


def test_rows_accumulate_until_reset() -> None:
    metric = collected([row(1)])
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "accuracy": 1,
        "accuracy_macro": 1,
        "accuracy/kind1": 1,
    }
    metric.update([row(3)])
    assert metric.predictions() == (row(1), row(3))
    assert metric.compute()["accuracy"] == 0.5
    metric.reset()
    assert (list(metric.predictions()), metric.compute()) == ([], {})


def test_it_serves_in_a_collection_and_gives_the_value_of_a_batch() -> None:
    collection = torchmetrics.MetricCollection({"task": VqaAccuracy()()})
    assert collection([row(3)])["accuracy"] == 0
    collection.update([row(1)])
    assert collection.compute()["accuracy"] == 0.5
    again: PredictionMetric = pickle.loads(pickle.dumps(collected([row(1)])))  # noqa: S301
    assert again.compute()["accuracy"] == 1


def test_it_moves_between_devices_and_types_with_its_model() -> None:
    model = torch.nn.Module()
    model.metric = collected([row(1)])
    assert model.metric.compute()["accuracy"] == 1
    model.to(torch.bfloat16).half().to("cpu")
    assert model.metric.predictions() == (row(1),)
    assert model.state_dict() == {}
