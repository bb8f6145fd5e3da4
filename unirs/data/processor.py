"""`Processor`: the properties of a model that its inputs depend on; the only link between module and datamodule."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unirs.data.batch import num_image_slots
from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError
from unirs.tasks.media import Media, ResizeSpec
from unirs.tasks.prompt import VisualFormat
from unirs.tasks.tiling import tile_grid

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.data.loaders import BatchCollator
    from unirs.data.memory_features import FeatureStore
    from unirs.tasks.config import TaskConfig

ClueFunction = Callable[[Sequence[Media]], Mapping[Media, str]]
"""Returns the clue of each input. Collective: every process of a run calls it with the same media."""


@dataclass(eq=False)
class Processor:
    """Turns samples into the inputs of one model. It pickles without weights, for the workers of loaders.

    A model makes it (`UniRSModule.processor`, `UniRS.processor`); a datamodule takes it (`data.processor = …`) and
    registers its tasks. Batches carry the processor's `key`, and a model rejects batches of another one.

    Attributes:
        tokenizer: the language model's; None until it has been trained, for a language model that starts from scratch.
        image_size: height and width in pixels of the encoder's frames; None for their own size.
        resize: how images of another shape are resized.
        feature_shape: L and Dv of the encoder's tokens of one frame.
        tokens_per_image: L', visual tokens of one image in the language model's input.
        fuse_pairs: whether a change extractor fuses the two times of a pair into one image.
        supports_tree_attention: whether the language model takes sequences that branch.
        train_tokenizer: trains the tokenizer of a language model that starts from scratch; else None.
        max_length: maximum length of a sequence in tokens, visual ones included.
        context: number of positions of the language model; None if unlimited.
        visual_format: text around the visual tokens of a prompt.
        max_eval_turns: maximum number of turns of an evaluation example; None for no limit.
        collator_type: makes collators of evaluation batches; `Collator` if None.
        fingerprint: identifies a frozen encoder, its numerical precision and image size; None if it may change.
        feature_cache: features of the encoder; None if they are not cached.
        tasks: tasks of the datamodule, by name; not pickled.
        generate_clues: describes media with the model's base VLM; not pickled.
        key: identifies this processor and its copies in other processes.
    """

    tokenizer: PreTrainedTokenizerBase | None
    image_size: tuple[int, int] | None
    resize: ResizeSpec
    feature_shape: tuple[int, int]
    tokens_per_image: int
    fuse_pairs: bool
    supports_tree_attention: bool = True
    train_tokenizer: Callable[[Iterable[str]], PreTrainedTokenizerBase] | None = None
    max_length: int = 4096
    context: int | None = None
    visual_format: VisualFormat = VisualFormat()  # noqa: RUF009 - immutable
    max_eval_turns: int | None = None
    collator_type: Callable[..., BatchCollator] | None = None
    fingerprint: str | None = None
    feature_cache: FeatureStore | None = None
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    generate_clues: ClueFunction | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __getstate__(self) -> dict[str, Any]:
        # Tasks hold functions of plugins, and clues need the model's weights.
        return vars(self) | {"tasks": {}, "generate_clues": None}

    def fit_tokenizer(self, texts: Iterable[str]) -> None:
        """Trains the tokenizer of a language model that starts from scratch, once."""
        if self.tokenizer is None and self.train_tokenizer is not None:
            self.tokenizer = self.train_tokenizer(texts)

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; raises a `ModelError` if it has not been trained yet."""
        if self.tokenizer is None:
            raise ModelError("This model has no tokenizer yet: train it, or load a checkpoint.")
        return self.tokenizer

    def num_visual_tokens(self, media: Media, size: tuple[int, int]) -> int:
        """Number of visual tokens of an input whose frames have a height and width in pixels, with those of tiles."""
        images = num_image_slots(media, fused=self.fuse_pairs)
        if media.modality == "image" and self.image_size is not None:
            rows, columns = tile_grid(size, self.image_size, self.resize.max_tiles)
            images += rows * columns
        return images * self.tokens_per_image

    def prompt_encoder(self) -> PromptEncoder:
        """The encoder of prompts and answers; raises a `ModelError` if the tokenizer has not been trained yet."""
        return PromptEncoder(self.require_tokenizer(), self.max_length, self.context, self.visual_format)
