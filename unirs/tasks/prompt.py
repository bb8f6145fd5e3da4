"""Prompt templates, and the markers in prompts."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from unirs.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


VISUAL = "<|visual|>"
"""Placeholder of the visual tokens of one image in rendered text."""

CLUE_START, CLUE_END = "<clue>", "</clue>"
"""Markers around a clue."""


@dataclass(frozen=True)
class VisualFormat:
    """Text around the visual tokens of a prompt, as the language model was trained with it.

    Attributes:
        before: precedes the visual tokens of each image, and follows the image's label if it has one.
        after: follows the visual tokens of each image; VILA, LLaVA and the published UniRS have a newline.
        end: between the last image and the task's text.
    """

    before: str = ""
    after: str = ""
    end: str = "\n"


@dataclass(frozen=True)
class PromptTemplate:
    """A task's prompt template.

    Attributes:
        task_tag: precedes the instruction, `vqa` as `[vqa]` (paper, prompt augmentation); none if empty.
        instruction: a `str.format` template over the turn's fields.
    """

    task_tag: str
    instruction: str

    def __call__(self, fields: Mapping[str, str], clue: str = "") -> str:
        """Renders the text after the visual placeholders: tag, clue between its markers if there is one, instruction.

        Raises:
            DataError: the instruction names a field that the turn does not have.
        """
        for _, name, _, _ in Formatter().parse(self.instruction):
            if name is not None and name not in fields:
                raise DataError(
                    f"The prompt names the field '{name}', which the turn does not have. {did_you_mean(name, fields)}"
                )
        tag = f"[{self.task_tag}] " if self.task_tag else ""
        clue = f"{CLUE_START}{clue}{CLUE_END} " if clue else ""
        return tag + clue + self.instruction.format(**fields)
