"""Beams, sampling and repetition penalty."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from transformers import GenerationConfig

from tests.unirs.inference.questions import LENGTH, Asked, limit_context
from unirs import GenerationOptions, Image, UniRS
from unirs.errors import UniRSError
from unirs.inference.generation import decode
from unirs.inference.search import Decoded
from unirs.models.unirs_model import UniRSModel


def answers(asked: Asked, options: GenerationOptions, end: int, batch: Any = None) -> list[Decoded]:  # noqa: ANN401 - a batch
    batch = asked.batch() if batch is None else batch
    seeds = [options.question_seed(index) for index in range(len(batch.prompt_ends))]
    return decode(
        asked.model,
        batch,
        [()] * len(batch.prompt_ends),
        end=end,
        max_new_tokens=LENGTH,
        logprobs=True,
        options=options,
        seeds=seeds,
    )


@torch.no_grad()
def reference(asked: Asked, index: int, end: int, limit: int = LENGTH, **options: Any) -> list[int]:  # noqa: ANN401
    """The answer of `transformers` to one question."""
    batch = asked.alone(index)
    config = GenerationConfig(max_new_tokens=limit, eos_token_id=end, pad_token_id=end, **options)
    embeds = asked.model.get_inputs_embeds(batch)
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    generate: Any = asked.model.llm.generate
    (row,) = generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config).tolist()
    return row[: row.index(end)] if end in row else row  # type: ignore[no-any-return]


pytestmark = pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")


@pytest.mark.parametrize(("num_beams", "penalty"), [(2, 1.3), (5, 1.0)])
def test_beams_are_those_of_transformers(asked: Asked, num_beams: int, penalty: float) -> None:
    options = GenerationOptions(num_beams=num_beams, repetition_penalty=penalty)
    free = answers(asked, options, 129)
    # End tokens that some of the best sequences reach.
    for end in (129, free[0][0][2], free[5][0][1]):
        found = answers(asked, options, end)
        expected = [
            reference(asked, index, end, num_beams=num_beams, repetition_penalty=penalty)
            for index in range(asked.count)
        ]
        assert [token_ids for token_ids, _ in found] == expected
        for index, (token_ids, logprobs) in enumerate(found):
            whole = [*token_ids, end][: len(logprobs)]
            (ranked,) = decode(asked.model, asked.alone(index), [[whole]], end=end, max_new_tokens=1)
            assert sum(logprobs) == pytest.approx(ranked[1][0], abs=1e-4)
    greedy = answers(asked, GenerationOptions(), 129)
    assert [one for one, _ in free] != [one for one, _ in greedy]


def test_beams_end_with_the_context(asked: Asked) -> None:
    lengths = [asked.alone(index).input_ids.shape[1] for index in range(asked.count)]
    context = max(lengths) + 2
    expected = [
        reference(asked, index, 129, min(LENGTH, context - length + 1), num_beams=3)
        for index, length in enumerate(lengths)
    ]
    limit_context(asked.model.llm, context)
    assert [token_ids for token_ids, _ in answers(asked, GenerationOptions(num_beams=3), 129)] == expected


@pytest.mark.parametrize("penalty", [0.7, 1.5])
def test_repetition_penalty_is_that_of_transformers(asked: Asked, penalty: float) -> None:
    found = answers(asked, GenerationOptions(repetition_penalty=penalty), 129)
    expected = [reference(asked, index, 129, repetition_penalty=penalty) for index in range(asked.count)]
    assert [token_ids for token_ids, _ in found] == expected


def test_samples_do_not_depend_on_the_batch(asked: Asked) -> None:
    options = GenerationOptions(temperature=1.5, seed=3)
    together = [token_ids for token_ids, _ in answers(asked, options, 129)]
    for index in (0, 4, asked.count - 1):
        ((alone, _),) = decode(
            asked.model,
            asked.alone(index),
            [()],
            end=129,
            max_new_tokens=LENGTH,
            options=options,
            seeds=[options.question_seed(index)],
        )
        assert alone == together[index]
    other = answers(asked, GenerationOptions(temperature=1.5, seed=4), 129)
    assert [token_ids for token_ids, _ in other] != together


@pytest.mark.parametrize("branches", [True, False])
def test_samples_follow_the_probabilities(asked: Asked, branches: bool) -> None:
    """200 first tokens by the truncated distribution, against a chi-squared bound."""
    batch, temperature, top_p, count = asked.alone(0), 2.0, 0.6, 200
    with torch.no_grad():
        logits = asked.model(batch)[0, -1].double() / temperature
    probabilities, order = logits.softmax(0).sort(descending=True)
    kept = int((probabilities.cumsum(0) < top_p).sum()) + 1
    expected = {
        int(token): float(p / probabilities[:kept].sum()) for token, p in zip(order[:kept], probabilities, strict=False)
    }
    options = GenerationOptions(temperature=temperature, top_p=top_p)
    drawn = []
    with patch.object(UniRSModel, "supports_tree_attention", branches):
        for seed in range(count):
            ((token_ids, _),) = decode(
                asked.model, batch, [()], end=129, max_new_tokens=1, options=options, seeds=[seed]
            )
            drawn += token_ids
    assert set(drawn) <= expected.keys()
    assert kept > 1
    squared = sum((drawn.count(token) - count * p) ** 2 / (count * p) for token, p in expected.items())
    # Five standard deviations above the mean of the chi-squared distribution.
    assert squared < kept - 1 + 5 * (2 * (kept - 1)) ** 0.5


@pytest.mark.parametrize(
    "options",
    [
        GenerationOptions(num_beams=3, repetition_penalty=1.2),
        GenerationOptions(repetition_penalty=1.2),
    ],
)
def test_models_without_tree_attention(asked: Asked, options: GenerationOptions) -> None:
    expected = answers(asked, options, 129)
    with patch.object(UniRSModel, "supports_tree_attention", False):
        found = answers(asked, options, 129, asked.batch(0, left=True))
    assert [token_ids for token_ids, _ in found] == [token_ids for token_ids, _ in expected]
    for one, other in zip(found, expected, strict=True):
        assert one[1] == pytest.approx(other[1], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, r"generation\.temperature is -1\.0, it must be float, 0 or more"),
        ({"temperature": float("nan")}, r"generation\.temperature is nan"),
        ({"top_p": 0.0, "temperature": 1.0}, r"generation\.top_p is 0\.0, it must be float, more than 0"),
        ({"num_beams": 0}, r"generation\.num_beams"),
        ({"repetition_penalty": 0.0}, r"generation\.repetition_penalty"),
        ({"num_beams": 2, "temperature": 0.2}, "Beam search does not sample"),
        ({"top_p": 0.9}, "top_p has no effect without sampling"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UniRSError, match=message):
        GenerationOptions(**options)


def test_predict(learnt_run: Path, colours: Path, cli: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    model = UniRS.from_pretrained(learnt_run, device="cpu", trust_remote_code=True)
    images = [Image(colours / "red.png"), Image(colours / "blue.png")]
    hot = GenerationOptions(temperature=50.0)
    first, again = (model.answer(images, "Which colour?", generation=hot) for _ in range(2))
    assert first == again != model.answer(images, "Which colour?")
    assert model.answer(images[1], "Which colour?", generation=hot) == first[1]
    arguments = ("predict", learnt_run, colours / "red.png", "--question", "Which colour?", "--trust-remote-code")
    assert cli(*arguments, "--temperature", "50") == 0
    assert capsys.readouterr().out.strip().endswith(f": {first[0]}".rstrip())
    assert cli(*arguments, "--num-beams", "3") == 0
    assert capsys.readouterr().out.strip().endswith(": red")
    assert cli(*arguments, "--top-p", "0.5") == 1
    assert "top_p has no effect" in capsys.readouterr().err
