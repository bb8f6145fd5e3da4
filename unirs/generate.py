"""Decoding: greedy, and the same for a sample whatever else is in its batch."""

import torch
from transformers import GenerationConfig

from unirs.batch import Batch
from unirs.model import UniRSModel


@torch.inference_mode()
def generate(model: UniRSModel, batch: Batch, *, end: int, max_new_tokens: int) -> list[list[int]]:
    """Answers each sequence of a left-padded batch.

    Args:
        model: in evaluation mode.
        batch: sequences that end where the answer begins.
        end: id of the end-of-sequence token.
        max_new_tokens: the longest answer in tokens.

    Returns:
        Token ids of each answer, without the end token.
    """
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=end, use_cache=True
    )
    embeddings, mask = model.embed(batch), batch.real().long()
    # `transformers` fills what `config` leaves open from the checkpoint's, which may penalise or forbid tokens.
    defaults, model.llm.generation_config = model.llm.generation_config, GenerationConfig()
    try:
        out: torch.Tensor = model.llm.generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=mask, generation_config=config
        )
    finally:
        model.llm.generation_config = defaults
    answers = []
    for row in out.tolist():
        answers.append(row[: row.index(end)] if end in row else row)
    return answers
