"""From a batch of questions to answers: free text, or the likeliest of the answers that a task allows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from unirs.batch import Batch
from unirs.generate import generate, rank
from unirs.metrics.base import Prediction
from unirs.model import UniRSModel
from unirs.prompt import Renderer

Answering = Literal["generate", "rank"]
"""Free text, greedily; or, for questions whose task has choices, the choice of the greatest log-likelihood."""

Choices = Callable[[Prediction], Sequence[str]]
"""The answers that a question allows, as they are learnt; none where it allows any text."""


@dataclass(frozen=True)
class Reply:
    """What the model says to one question.

    Attributes:
        text: the answer.
        ids: its token ids, then the end token where it ended by itself.
        log_probabilities: of each of these; for a ranked answer one number, the choice's log-likelihood. Empty for free
            text unless asked for.
        choices: log-likelihood of each choice; empty for free text.
    """

    text: str
    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    choices: dict[str, float]


def reply(
    model: UniRSModel,
    renderer: Renderer,
    batch: Batch,
    *,
    max_new_tokens: int,
    choices: Choices | None = None,
    log_probabilities: bool = False,
) -> list[Reply]:
    """Answers the rows of an evaluation batch.

    Args:
        model: in evaluation mode.
        renderer: with which the batch was made.
        batch: left-padded, with `rows`.
        max_new_tokens: the longest free text.
        choices: what each question allows; free text for all where left out.
        log_probabilities: also those of the tokens of free text.

    Returns:
        One reply a row.
    """
    allowed = [tuple(choices(row)) if choices else () for row in batch.rows]
    replies: dict[int, Reply] = {}
    free = [index for index, options in enumerate(allowed) if not options]
    closed = [index for index, options in enumerate(allowed) if options]
    end = int(renderer.tokenizer.eos_token_id)
    if free:
        said = generate(
            model, batch.take(free), end=end, max_new_tokens=max_new_tokens, log_probabilities=log_probabilities
        )
        for index, ids, scores in zip(free, said.ids, said.log_probabilities, strict=True):
            text = str(renderer.tokenizer.decode(ids, skip_special_tokens=True)).strip()
            replies[index] = Reply(text, (*ids, end)[: len(scores) or len(ids)], tuple(scores), {})
    if closed:
        tokens = [[renderer.choice(choice) for choice in allowed[index]] for index in closed]
        for index, options, scores in zip(closed, tokens, rank(model, batch.take(closed), tokens), strict=True):
            # Of equally likely choices the first counts, as the task names them.
            best = max(range(len(scores)), key=scores.__getitem__)
            likelihoods = dict(zip(allowed[index], scores, strict=True))
            replies[index] = Reply(allowed[index][best], tuple(options[best]), (scores[best],), likelihoods)
    return [replies[index] for index in range(len(allowed))]
