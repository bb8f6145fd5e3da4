"""Questions of users about media: the prompt of each, and examples that a model answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unirs.data.dataset import Example
from unirs.errors import UniRSError, did_you_mean
from unirs.models.pretrained import PromptConfig
from unirs.tasks.box_frames import size_fields
from unirs.tasks.inputs import as_media
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn


@dataclass(frozen=True)
class UserQuestion:
    """A question about media.

    Attributes:
        media: The input.
        text: The question; None for the task's own instruction.
        task: Name of the task whose prompt is used.
        prompt: The task's template, or one for a question in place of the task's fixed instruction.
        uses_clue: Whether the task was trained with clues.
    """

    media: Media
    text: str | None
    task: str
    prompt: PromptTemplate
    uses_clue: bool


def user_questions(
    prompts: Mapping[str, PromptConfig],
    media: Sequence[Any],
    question: str | Sequence[str | None] | None,
    task: str | None,
) -> list[UserQuestion]:
    """Finds the prompts of questions about media.

    Args:
        prompts: Prompts of the model's tasks.
        media: Inputs as `as_media` takes them.
        question: One for all, or one for each input; None for the task's own instruction.
        task: The task whose prompt is used; None for the first task of each input's modality.

    Raises:
        MediaError: It is unclear what an input is.
        UniRSError: Media, task and questions do not fit together.
    """
    inputs = [as_media(one) for one in media]
    questions: list[str | None]
    questions = [question] * len(inputs) if question is None or isinstance(question, str) else list(question)
    if len(questions) != len(inputs):
        raise UniRSError(f"{len(questions)} questions for {len(inputs)} media: give one for all, or one for each.")
    return [_user_question(prompts, one, text, task) for one, text in zip(inputs, questions, strict=True)]


def _user_question(
    prompts: Mapping[str, PromptConfig], media: Media, question: str | None, task: str | None
) -> UserQuestion:
    if question is not None and (not isinstance(question, str) or not question.strip()):
        raise UniRSError(f"A question is text, not {question!r}. Pass None for the task's own instruction.")
    fitting = {name: saved for name, saved in prompts.items() if saved.modality == media.modality}
    if task is not None and task not in fitting:
        raise UniRSError(f"The model has no task '{task}' for {media.modality} media. {did_you_mean(task, fitting)}")
    if not fitting:
        raise UniRSError(f"The model has no task for {media.modality} media: it was trained on {', '.join(prompts)}.")
    name = task or next(iter(fitting))
    prompt = fitting[name].prompt
    needs_question = "{question}" in prompt.instruction
    if needs_question and question is None:
        raise UniRSError(f"Task '{name}' needs a question, such as 'Is there a road?'.")
    if not needs_question and question is not None:
        # The task's instruction is fixed; the user's question replaces it.
        prompt = PromptTemplate(prompt.task_tag, "{question}")
    return UserQuestion(media, question, name, prompt, fitting[name].clue)


def group_by_media(
    questions: Sequence[UserQuestion], clues: Mapping[Media, str]
) -> tuple[dict[str, PromptTemplate], list[Example], list[int]]:
    """Makes an example of all questions that share a prefix: equal media, with one template.

    Args:
        questions: Questions of users.
        clues: Clues of media; those without one are omitted.

    Returns:
        The template of each example's `task`, the examples, and for each turn of these the index of its question.
    """
    groups: dict[tuple[str, Media], list[int]] = {}
    prompts = {}
    for index, one in enumerate(questions):
        # One task may be prompted with its own instruction and with the user's.
        key = f"{one.task}:{one.prompt.instruction}"
        prompts[key] = one.prompt
        groups.setdefault((key, one.media), []).append(index)
    examples = []
    for (key, media), indices in groups.items():
        fields = size_fields(prompts[key], media)
        turns = (Turn(str(index), (), {"question": questions[index].text or "", **fields}) for index in indices)
        examples.append(Example(key, Sample(str(indices[0]), media, tuple(turns)), clue=clues.get(media, "")))
    return prompts, examples, [index for indices in groups.values() for index in indices]
