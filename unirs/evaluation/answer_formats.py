"""Formats in which programs write answers, by the fields of their rows."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass

from unirs.errors import DataError, UniRSError, did_you_mean

_Names = tuple[str, ...]


@dataclass(frozen=True)
class AnswerFormat:
    """The fields of a program's rows. Of several fields for the same content, the first that the row has counts.

    Attributes:
        fits: whether a row with these fields has this format; a row has at most one.
        needs: description of the fields that distinguish it.
        id: fields with the id; without any, the number of the row is the id.
        answer: fields with the answer.
        references: fields with a text or a list of texts to score against.
        all_references: whether the texts of all fields of `references` count, without empty ones.
        category: fields with the category.
        media: fields with the media.
        prompt: fields with the prompt.
    """

    fits: Callable[[Set[str]], bool]
    needs: str
    id: _Names = ("question_id",)
    answer: _Names = ("answer",)
    references: _Names = ("ground_truth",)
    all_references: bool = False
    category: _Names = ("category", "type")
    media: _Names = ("image_id", "image")
    prompt: _Names = ("question",)


_CAPTIONS = tuple(f"caption{number}" for number in range(5))


def _is_vrsbench(fields: Set[str]) -> bool:
    own = {"question_id", "question", "answer", "ground_truth", "type"} <= fields and "id" not in fields
    # GeoChat's rows for referring have sizes of objects, those of VRSBench also their uniqueness.
    return own and ("is_unique" in fields or "size_group" not in fields)


def _is_lrs_vqa(fields: Set[str]) -> bool:
    return {"question_id", "prompt", "text", "ground_truth", "category"} <= fields and "id" not in fields


def _is_llava(fields: Set[str]) -> bool:
    own = {"question_id", "text"} <= fields and not {"id", "answer"} & fields and not _is_lrs_vqa(fields)
    # In files of questions, `text` is the question.
    return own and ("prompt" in fields or not {"image", "ground_truth"} & fields)


REFERENCES = AnswerFormat(
    fits=lambda fields: bool({"id", "question_id"} & fields),
    needs="id or question_id",
    id=("id", "question_id"),
    answer=("text", "prediction"),
    references=("references", "ground_truth", "answer"),
    category=("category", "kind", "is_unique", "type"),
    media=("media", "image_id", "image"),
    prompt=("prompt",),
)
"""A file of references."""

FORMATS = {
    "unirs": AnswerFormat(
        fits=lambda fields: "id" in fields,
        needs="id",
        id=("id",),
        answer=("text", "prediction", "answer"),
        references=("references", "ground_truth"),
        category=("category", "kind", "type"),
        media=("media", "image_id", "image"),
        prompt=("prompt",),
    ),
    "geochat": AnswerFormat(
        fits=lambda fields: {"question_id", "answer"} <= fields and "id" not in fields and not _is_vrsbench(fields),
        needs="question_id, answer",
        references=("references", "ground_truth"),
        category=("category", "size_group", "type"),
    ),
    "llava": AnswerFormat(
        fits=_is_llava,
        needs="question_id, text, and prompt if there is image or ground_truth",
        answer=("text",),
        references=("references", "ground_truth"),
        prompt=("prompt",),
    ),
    "vrsbench": AnswerFormat(
        fits=_is_vrsbench,
        needs="question_id, question, answer, ground_truth, type, and is_unique or no size_group",
        category=("is_unique", "type"),
    ),
    "lrs_vqa": AnswerFormat(
        fits=_is_lrs_vqa,
        needs="question_id, prompt, text, ground_truth, category",
        answer=("text",),
        category=("category",),
        prompt=("prompt",),
    ),
    "earthdial": AnswerFormat(
        fits=lambda fields: (
            {"question", "answer"} <= fields
            and not {"id", "question_id"} & fields
            and bool({"annotation", "gt_bbox", "caption0"} & fields)
        ),
        needs="question, answer, and annotation, gt_bbox or caption0 to caption4; no id",
        id=(),
        references=("annotation", "gt_bbox", *_CAPTIONS),
        all_references=True,
        category=("vqa_type", "size_group"),
        media=(),
    ),
}
"""Formats of files of answers by name."""


def format_named(name: str) -> AnswerFormat:
    """A format by name; a `UniRSError` with the nearest one if there is none of that name."""
    if name not in FORMATS:
        raise UniRSError(f"Unknown format '{name}'. {did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def recognize(fields: Set[str], where: str) -> str:
    """Name of the format that a row with these fields has.

    Raises:
        DataError: it has none, or that of several; names the row and lists the formats.
    """
    names = [name for name, each in FORMATS.items() if each.fits(fields)]
    if len(names) == 1:
        return names[0]
    formats = "; ".join(f"{name}: {each.needs}" for name, each in FORMATS.items())
    raise DataError(
        f"{where} has the fields of {' and '.join(names) if names else 'no format'} ({', '.join(sorted(fields))}). "
        f"Formats need: {formats}. Correct the row, or name its format with --format."
    )
