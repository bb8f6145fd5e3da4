"""Prompt templates, and the markers in prompts."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from unirs.errors import DataError, PluginError, did_you_mean
from unirs.metrics.box_text import BOX_FORMATS, BoxScale

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
        continued: whether texts after an image are tokenized as continuations, as by processors of transformers;
            otherwise alone, as by VILA. The two differ for tokenizers that prepend a space to a text.
    """

    before: str = ""
    after: str = ""
    end: str = "\n"
    continued: bool = False


@dataclass(frozen=True)
class PromptTemplate:
    """A task's prompt template.

    Attributes:
        task_tag: precedes the instruction, `vqa` as `[vqa]` (paper, prompt augmentation); none if empty.
        instruction: a `str.format` template over the turn's fields.
        boxes: scale of the boxes in answers and references, of which each has one, if any. They refer to the whole
            image, also if the encoder's frame is padded or cropped: see `unirs.metrics.box_frame`. The instruction
            states the scale by `{box_format}`; for pixels, turns have the fields `width` and `height` of the image.

    Raises:
        PluginError: the instruction does not state the scale.
    """

    task_tag: str
    instruction: str
    boxes: BoxScale | None = None

    def __post_init__(self) -> None:
        if self.boxes and "{box_format}" not in self.instruction:
            raise PluginError(f"The prompt of boxes in {self.boxes} must contain '{{box_format}}', which states it.")

    def __call__(self, fields: Mapping[str, str], clue: str = "") -> str:
        """Renders the text after the visual placeholders: tag, clue between its markers if there is one, instruction.

        Raises:
            DataError: the instruction names a field that the turn does not have.
        """
        template = self.instruction
        if self.boxes:
            template = template.replace("{box_format}", BOX_FORMATS[self.boxes])
        for _, name, _, _ in Formatter().parse(template):
            if name is not None and name not in fields:
                raise DataError(
                    f"The prompt names the field '{name}', which the turn does not have. {did_you_mean(name, fields)}"
                )
        tag = f"[{self.task_tag}] " if self.task_tag else ""
        clue = f"{CLUE_START}{clue}{CLUE_END} " if clue else ""
        return tag + clue + template.format(**fields)
