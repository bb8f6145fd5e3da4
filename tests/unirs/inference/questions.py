"""Questions about media, whose answers tests compare."""

from dataclasses import replace
from typing import Any

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.batch import Batch, num_image_slots
from unirs.data.collator import collate
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import NO_END, TokenTree
from unirs.inference.generation import decode
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

LENGTH = 8
QUESTIONS = ("a?", "how many roads are there in here?", "x", "how many roads?", "a?", "how many roads are there?")


class Asked:
    """All questions about each medium."""

    def __init__(self, model: UniRSModel, tokenizer: PreTrainedTokenizerBase, media: list[Media]) -> None:
        generator = torch.Generator().manual_seed(1)
        self.model = model
        self.renderer = PromptEncoder(tokenizer)
        self.media = media
        self.frames = [
            torch.randint(0, 256, (one.num_frames, 3, 64, 64), dtype=torch.uint8, generator=generator) for one in media
        ]
        self.count = len(media) * len(QUESTIONS)

    def sequences(self, one: Media, *questions: str, room: int | None = None) -> list[tuple[TokenTree, list[int]]]:
        sample = Sample("s", one, tuple(Turn("t", ("y",), {"question": question}) for question in questions))
        tokens = self.model.projector.num_tokens
        return self.renderer.encode_prompts(
            PromptTemplate("vqa", "{question}"),
            sample,
            num_image_slots(one, fused=self.model.change is not None),
            tokens,
            max_tokens=room,
        )

    def batch(self, room: int | None = None, *, left: bool = False) -> Batch:
        """All questions, those of a medium in rows of some tokens."""
        rows, owners, asked = [], [], []
        for owner, one in enumerate(self.media):
            for sequence, turns in self.sequences(one, *QUESTIONS, room=room):
                rows.append(sequence)
                owners.append((owner,))
                asked += [owner * len(QUESTIONS) + turn for turn in turns]
        batch = collate(self.frames, [one.modality for one in self.media], rows, owners, pad_left=left)
        asks = dict(zip(asked, batch.prompt_ends, strict=True))
        return replace(batch, prompt_ends=tuple(asks[question] for question in range(self.count)))

    def alone(self, index: int, *generated: int) -> Batch:
        """One question with the tokens generated so far."""
        owner, question = divmod(index, len(QUESTIONS))
        ((sequence, _),) = self.sequences(self.media[owner], QUESTIONS[question])
        sequence.add(list(generated))
        return collate([self.frames[owner]], [self.media[owner].modality], [sequence], [(0,)])

    def generate(self, batch: Batch, end: int, length: int = LENGTH) -> list[list[int]]:
        generated = decode(self.model, batch, [()] * len(batch.prompt_ends), end=end, max_new_tokens=length)
        return [token_ids for token_ids, _ in generated]

    @torch.no_grad()
    def naive(self, index: int, end: int) -> list[int]:
        """The most likely token, again and again, without a cache."""
        (row,) = self.alone(index).prompt_ends
        generated: list[int] = []
        while len(generated) < LENGTH:
            batch = self.alone(index, *generated)
            # Generated tokens belong to the question's branch.
            batch.branch_end[0, batch.branch_end[0] == row[1] + 1] = NO_END
            token = int(self.model(batch)[0, -1].argmax())
            if token == end:
                break
            generated.append(token)
        return generated


def limit_context(llm: Any, length: int) -> None:  # noqa: ANN401 - attributes that no type knows
    """Cuts a model's context, and its table of positions if it has one."""
    llm.config.max_position_embeddings = length
    if llm.config.model_type == "gpt2":
        llm.transformer.wpe = torch.nn.Embedding.from_pretrained(llm.transformer.wpe.weight[:length])
