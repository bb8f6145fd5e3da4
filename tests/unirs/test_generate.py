import copy
from collections.abc import Callable

import pytest
import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.batch import Batch, collate
from unirs.generate import generate
from unirs.media import Media, MediaKind
from unirs.model import UniRSModel
from unirs.prompt import Prompt, Renderer, Sequence
from unirs.sample import Sample, Turn

LENGTH = 8
QUESTIONS = ("a?", "how many roads are there in here?", "x")


class Asked:
    """Each question about each medium."""

    def __init__(self, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: list[Media]) -> None:
        renderer, prompt = Renderer(tokenizer), Prompt("vqa", "{question}")
        generator = torch.Generator().manual_seed(1)
        self.model = model
        self.frames = [
            torch.randint(0, 256, (one.count, 3, 64, 64), dtype=torch.uint8, generator=generator) for one in media
        ]
        self.kinds: list[MediaKind] = [one.kind for one in media]
        self.owners = [(owner,) for owner in range(len(media)) for _ in QUESTIONS]
        self.sequences = []
        for one in media:
            for question in QUESTIONS:
                turn = Turn("t", ("y",), {"question": question})
                self.sequences.append(
                    renderer.generation(
                        prompt, Sample("s", one, (turn,)), turn, model.grids(one), model.projector.tokens
                    )
                )

    def batch(self) -> Batch:
        return collate(self.frames, self.kinds, self.sequences, self.owners, left=True)

    def alone(self, index: int, sequence: Sequence | None = None) -> Batch:
        (owner,) = self.owners[index]
        said = sequence or self.sequences[index]
        return collate([self.frames[owner]], [self.kinds[owner]], [said], [(0,)], left=True)

    @torch.no_grad()
    def naive(self, index: int, end: int) -> list[int]:
        """The most likely token, again and again, without a cache."""
        answer: list[int] = []
        while len(answer) < LENGTH:
            sequence = copy.deepcopy(self.sequences[index])
            sequence.add(answer)
            said = int(self.model(self.alone(index, sequence))[0, -1].argmax())
            if said == end:
                break
            answer.append(said)
        return answer


@pytest.fixture
def asked(make_model: Callable[..., UniRSModel], tokenizer: PreTrainedTokenizerBase, media: dict[str, Media]) -> Asked:
    return Asked(make_model().eval(), tokenizer, list(media.values()))


def test_batched_equals_single_equals_naive(asked: Asked) -> None:
    # An end token that some of the answers reach, so that they end at different lengths.
    free = generate(asked.model, asked.batch(), end=129, max_new_tokens=LENGTH).ids
    end = free[0][LENGTH // 2]
    together = generate(asked.model, asked.batch(), end=end, max_new_tokens=LENGTH).ids
    alone = [
        generate(asked.model, asked.alone(index), end=end, max_new_tokens=LENGTH).ids[0]
        for index in range(len(asked.sequences))
    ]
    assert together == alone == [asked.naive(index, end) for index in range(len(asked.sequences))]
    assert len({tuple(answer) for answer in together}) > 1
    assert len({len(answer) for answer in together}) > 1


def test_stops_at_the_end_token(asked: Asked) -> None:
    (free,) = generate(asked.model, asked.alone(0), end=129, max_new_tokens=LENGTH).ids
    assert len(free) == LENGTH
    for end in set(free):
        assert generate(asked.model, asked.alone(0), end=end, max_new_tokens=LENGTH).ids == [free[: free.index(end)]]


def test_longest_answer(asked: Asked) -> None:
    (free,) = generate(asked.model, asked.alone(0), end=129, max_new_tokens=LENGTH).ids
    for length in (1, 3):
        assert generate(asked.model, asked.alone(0), end=129, max_new_tokens=length).ids == [free[:length]]


@pytest.mark.parametrize(
    "wishes",
    [
        {"do_sample": True, "temperature": 9.0, "top_k": 0, "top_p": 0.9},
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"num_beams": 3},
        {"max_length": 2, "min_new_tokens": LENGTH},
        {"eos_token_id": list(range(128))},
        {"suppress_tokens": list(range(0, 130, 2))},
        {"use_cache": False},
    ],
    ids=lambda wishes: next(iter(wishes)),
)
def test_checkpoint_does_not_choose_the_decoding(asked: Asked, wishes: dict[str, object]) -> None:
    end = generate(asked.model, asked.alone(0), end=129, max_new_tokens=LENGTH).ids[0][-1]
    expected = generate(asked.model, asked.batch(), end=end, max_new_tokens=LENGTH).ids
    own = asked.model.llm.generation_config
    for name, value in wishes.items():
        setattr(own, name, value)
    assert generate(asked.model, asked.batch(), end=end, max_new_tokens=LENGTH).ids == expected
    assert asked.model.llm.generation_config is own
