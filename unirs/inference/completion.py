"""From a batch of questions to answers: free text, or the likeliest of the choices that a task allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from unirs.errors import ModelError
from unirs.inference.generation import decode
from unirs.metrics.base import Prediction

if TYPE_CHECKING:
    import numpy as np

    from unirs.data.batch import Batch
    from unirs.data.processor import Processor
    from unirs.models.unirs_model import UniRSModel

Decoding = Literal["generate", "loglikelihood"]
"""Free text, greedily; or, for questions whose task has choices, the choice of the greatest log-likelihood."""

Choices = Callable[[Prediction], Sequence[str]]
"""The choices of a question, spelled as in training; empty if it allows any text."""


@dataclass(frozen=True)
class Completion:
    """A model's answer to one question.

    `complete` sets all fields but the last two, which `UniRS.predict` and `UniRS.predict_examples` add.

    Attributes:
        text: The answer.
        token_ids: Its token ids; with `logprobs`, followed by the end token if the answer reached it.
        logprobs: Natural logarithm of the probability of each of `token_ids`; for a chosen answer one number, its
            log-likelihood. Empty for free text unless details are requested.
        choice_logprobs: Log-likelihood of each choice; empty for free text.
        media: Paths or descriptions of the input, as `Media.sources` has them.
        task: The task whose prompt was used.
        prompt: The text of the prompt.
        clue: The clue in the prompt; empty if there is none.
        tokens: The tokens of `token_ids`; empty unless details are requested.
        change_map: For a pair, float32 `[h, w]` in -1..1: cosine similarity of the two times on the encoder's grid (1
            is unchanged). None for other media, for change extractors without one, and unless details are requested.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    task: str = ""
    prompt: str = ""
    clue: str = ""
    tokens: tuple[str, ...] = ()
    change_map: np.ndarray | None = None


def add_vision_features(model: UniRSModel, processor: Processor, batch: Batch) -> Batch:
    """Encodes the frames of media without features, and caches them if the processor has a feature cache.

    Raises:
        ModelError: another processor made the batch.
    """
    if batch.processor_key and batch.processor_key != processor.key:
        raise ModelError(
            "This batch was made for another model. Set 'data.processor = module.processor' before the loaders are "
            "made."
        )
    features = model.encode_frames(batch)
    if processor.feature_cache is not None:
        for media, cached, tokens in zip(batch.media, batch.vision_features, features, strict=True):
            if media is not None and cached is None:
                processor.feature_cache.put(media, tokens)
    return replace(batch, vision_features=features)


@torch.no_grad()
def complete(
    model: UniRSModel,
    processor: Processor,
    batch: Batch,
    *,
    max_new_tokens: int,
    choices: Choices | None = None,
    logprobs: bool = False,
) -> list[Completion]:
    """Completes the prompts of an evaluation batch that `processor` made: one completion for each query.

    Without `choices` the completions are free text of at most `max_new_tokens`, with the logprobs of its tokens if
    `logprobs` is set. The model is in evaluation mode.
    """
    batch = add_vision_features(model, processor, batch)
    prompt_encoder = processor.prompt_encoder()
    options = [tuple(choices(query)) if choices else () for query in batch.queries]
    option_ids = [[prompt_encoder.encode_choice(choice) for choice in texts] for texts in options]
    end = int(prompt_encoder.tokenizer.eos_token_id)
    decoded = decode(model, batch, option_ids, end=end, max_new_tokens=max_new_tokens, logprobs=logprobs)
    completions = []
    for query, (token_ids, scores), texts, ids in zip(batch.queries, decoded, options, option_ids, strict=True):
        shared: dict[str, Any] = {"media": query.media, "task": query.task, "prompt": query.prompt, "clue": query.clue}
        if texts:
            # Among equally likely choices the first one wins.
            best = max(range(len(texts)), key=scores.__getitem__)
            by_choice = dict(zip(texts, scores, strict=True))
            completions.append(Completion(texts[best], tuple(ids[best]), (scores[best],), by_choice, **shared))
        else:
            text = str(prompt_encoder.tokenizer.decode(token_ids, skip_special_tokens=True)).strip()
            answer_ids = (*token_ids, end)[: len(scores) or len(token_ids)]
            completions.append(Completion(text, answer_ids, tuple(scores), **shared))
    return completions
