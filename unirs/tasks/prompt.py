"""Prompt templates, and the markers that a prompt's components stand between."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from unirs.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


VISUAL = "<|visual|>"
"""Stands for the visual tokens of one picture in rendered text."""

CLUE_START, CLUE_END = "<clue>", "</clue>"
"""What a clue stands between."""


@dataclass(frozen=True)
class PromptTemplate:
    """A task's prompt template.

    Attributes:
        task_tag: the task tag put before the instruction: `vqa` becomes `[vqa]` (paper, prompt augmentation); none
            where empty.
        instruction: a `str.format` template over the turn's fields.
    """

    task_tag: str
    instruction: str

    def __call__(self, fields: Mapping[str, str], clue: str = "") -> str:
        """The text after the visual placeholders: tag, clue between its markers where there is one, instruction.

        Raises:
            DataError: the instruction names a field that the turn does not have.
        """
        for _, name, _, _ in Formatter().parse(self.instruction):
            if name is not None and name not in fields:
                raise DataError(
                    f"The prompt names the field '{name}', which the turn does not have. {did_you_mean(name, fields)}"
                )
        parts = [f"[{self.task_tag}]"] if self.task_tag else []
        parts += [f"{CLUE_START}{clue}{CLUE_END}"] if clue else []
        return " ".join([*parts, self.instruction.format(**fields)])
