"""From a batch of questions to answers: free text, or the likeliest of the answers that a task allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unirs.data.batch import Batch
from unirs.data.prompt_encoder import PromptEncoder
from unirs.inference.generation import complete
from unirs.metrics.base import Prediction
from unirs.models.unirs_model import UniRSModel

Decoding = Literal["generate", "loglikelihood"]
"""Free text, greedily; or, for questions whose task has choices, the choice of the greatest log-likelihood."""

Choices = Callable[[Prediction], Sequence[str]]
"""The answers that a question allows, as they are learnt; none where it allows any text."""


@dataclass(frozen=True)
class Reply:
    """What the model says to one question.

    Attributes:
        text: the answer.
        ids: its token ids.
        log_probabilities: of each of these, and then `ids` hold the end token, too, where it was said; for a ranked
            answer one number, the choice's log-likelihood. Empty for free text unless asked for.
        choices: log-likelihood of each choice; empty for free text.
    """

    text: str
    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    choices: dict[str, float]


def reply(
    model: UniRSModel,
    prompt_encoder: PromptEncoder,
    batch: Batch,
    *,
    max_new_tokens: int,
    choices: Choices | None = None,
    log_probabilities: bool = False,
) -> list[Reply]:
    """Answers the questions of an evaluation batch.

    Args:
        model: in evaluation mode.
        prompt_encoder: with which the batch was made.
        batch: with `asks` and `rows`.
        max_new_tokens: the longest free text.
        choices: what each question allows; free text for all where left out.
        log_probabilities: also those of the tokens of free text.

    Returns:
        One reply a question.
    """
    allowed = [tuple(choices(row)) if choices else () for row in batch.queries]
    tokens = [[prompt_encoder.encode_choice(choice) for choice in options] for options in allowed]
    end = int(prompt_encoder.tokenizer.eos_token_id)
    told = complete(model, batch, tokens, end=end, max_new_tokens=max_new_tokens, log_probabilities=log_probabilities)
    replies = []
    for said, options, ids in zip(told, allowed, tokens, strict=True):
        if options:
            # Of equally likely choices the first counts, as the task names them.
            best = max(range(len(options)), key=said.likelihoods.__getitem__)
            likelihoods = dict(zip(options, said.likelihoods, strict=True))
            replies.append(Reply(options[best], tuple(ids[best]), (said.likelihoods[best],), likelihoods))
        else:
            text = str(prompt_encoder.tokenizer.decode(said.ids, skip_special_tokens=True)).strip()
            whole = (*said.ids, end)[: len(said.log_probabilities) or len(said.ids)]
            replies.append(Reply(text, whole, tuple(said.log_probabilities), {}))
    return replies
