import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

import unirs
from unirs.metrics.base import Prediction
from unirs.metrics.bootstrap import point_estimate
from unirs.metrics.gather import PredictionMetric
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
from unirs.metrics.gather import PredictionMetric
from unirs.metrics.interval import point
from unirs.metrics.vqa import VqaAccuracy

def score(batches):
    metric = PredictionMetric()
    for batch in batches:
        metric.update([Prediction(**row | {k: tuple(row[k]) for k in ("media", "references")}) for row in batch])
    rows = metric.compute()
    assert rows == metric.compute()
    evaluation = VqaAccuracy().evaluate(rows) if rows else None
    return {
        "rows": [asdict(row) for row in rows],
        "scores": evaluation and list(evaluation.scores),
        "points": evaluation and {name: point(s) for name, s in evaluation.statistics.items()},
        "captions": rows and {n: point(s) for n, s in CaptionMetrics().evaluate(rows, slow=False).statistics.items()},
    }

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
            for name in ("id", "task", "media", "category", "prompt", "text", "references", "clue")
        }
        for item in rows
    ]


@pytest.mark.slow
def test_two_processes_see_the_rows_and_scores_of_one(tmp_path: Path) -> None:
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
        alone = PredictionMetric()
        for batches in scenario:
            for batch in batches:
                alone.update(batch)
        rows = alone.compute()
        assert output["rows"] == json.loads(json.dumps(encode(list(rows))))
        if rows:
            evaluation = VqaAccuracy().evaluate(rows)
            assert output["scores"] == evaluation.scores
            assert output["points"] == {
                name: point_estimate(statistic) for name, statistic in evaluation.statistics.items()
            }
    assert [item["id"] for item in outputs[0][0]["rows"]] == ["q0", "q1", "q2", "q3", "q4", "q11"]
    assert outputs[0][3]["rows"] == []
    said = {row.id: [row.text] for row in captions}
    references = {row.id: list(row.references) for row in captions}
    scores = [*Bleu(4).compute_score(references, said, verbose=0)[0]]
    scores += [scorer.compute_score(references, said)[0] for scorer in (Rouge(), Cider())]
    names = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider"]
    assert outputs[0][4]["captions"] == pytest.approx(dict(zip(names, scores, strict=True)), rel=0, abs=1e-9)


@given(st.lists(predictions, unique_by=lambda item: item.id, max_size=5))
def test_any_rows_come_back_as_they_went_in(rows: list[Prediction]) -> None:
    metric = PredictionMetric()
    metric.update(rows[:2])
    metric.update(rows[2:])
    assert {item.id: item for item in metric.compute()} == {item.id: item for item in rows}


def test_rows_are_sorted_by_number_whatever_the_order_they_came_in() -> None:
    metric = PredictionMetric()
    numbers = list(range(0, 120, 7))
    random.Random(0).shuffle(numbers)  # noqa: S311
    for number in numbers:
        metric.update([row(number)])
    assert [item.id for item in metric.compute()] == [f"q{number}" for number in sorted(numbers)]


def test_the_first_row_of_an_id_counts() -> None:
    metric = PredictionMetric()
    metric.update([row(1), row(1)])
    metric.update([row(1)])
    assert metric.compute() == (row(1),)


def test_rows_add_up_until_reset() -> None:
    metric = PredictionMetric()
    metric.update([row(1)])
    assert metric.compute() == (row(1),)
    metric.update([row(2)])
    assert metric.compute() == (row(1), row(2))
    metric.reset()
    assert metric.compute() == ()


def test_it_moves_between_devices_and_types_with_its_model() -> None:
    model = torch.nn.Module()
    model.metric = PredictionMetric()
    model.metric.update([row(1)])
    assert model.metric.compute() == (row(1),)
    model.to(torch.bfloat16).half().to("cpu")
    assert model.metric.compute() == (row(1),)
    assert model.state_dict() == {}
