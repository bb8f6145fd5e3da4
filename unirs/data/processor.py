"""`Processor`: what data needs to know of a model. Module and datamodule meet in this object and nowhere else."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from unirs.data.batch import num_image_slots
from unirs.data.collator import Collator
from unirs.data.prompt_encoder import PromptEncoder
from unirs.errors import ModelError
from unirs.tasks.media import Media, ResizeSpec

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.data.feature_cache import FeatureCache
    from unirs.tasks.config import TaskConfig
    from unirs.tasks.prompt import PromptTemplate

ClueFunction = Callable[[Sequence[Media]], Mapping[Media, str]]
"""Returns the clue of each input. Collective: every process of a run passes the same media."""


@dataclass(eq=False)
class Processor:
    """Turns samples into the inputs of one model. It pickles without weights, so that loader workers can have it.

    A model makes it (`UniRSModule.processor`, `UniRS.processor`); a datamodule takes it (`data.processor = …`) and
    registers its tasks. Batches carry the processor's `key`, and a model refuses batches of another one.

    Attributes:
        tokenizer: the language model's; None until it has been trained, for a language model that starts from scratch.
        image_size: height and width in pixels of the frames that the encoder takes.
        resize: how images of another shape are brought to that size.
        feature_shape: L and Dv of the encoder's tokens of one frame.
        tokens_per_image: L', visual tokens of one image in the language model's input.
        fuse_pairs: whether a change extractor fuses the two times of a pair into one image.
        supports_tree_attention: whether the language model takes sequences that branch.
        train_tokenizer: trains the tokenizer from texts, for a language model that starts from scratch; else None.
        max_length: maximum length of a sequence in tokens, visual ones included.
        fingerprint: identifies a frozen encoder, its numerical precision and image size; None if it may change.
        feature_cache: features of the frozen encoder on disk; None if they are not cached.
        tasks: tasks of the datamodule, by name. Stays in this process.
        generate_clues: describes media with the model's base VLM. Stays in this process.
        key: identifies this processor and its copies in other processes.
    """

    tokenizer: PreTrainedTokenizerBase | None
    image_size: tuple[int, int]
    resize: ResizeSpec
    feature_shape: tuple[int, int]
    tokens_per_image: int
    fuse_pairs: bool
    supports_tree_attention: bool = True
    train_tokenizer: Callable[[Iterable[str]], PreTrainedTokenizerBase] | None = None
    max_length: int = 4096
    fingerprint: str | None = None
    feature_cache: FeatureCache | None = None
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    generate_clues: ClueFunction | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __getstate__(self) -> dict[str, Any]:
        # Tasks hold functions of plugins, and clues need the model's weights: neither travels to another process.
        return vars(self) | {"tasks": {}, "generate_clues": None}

    def fit_tokenizer(self, texts: Iterable[str]) -> None:
        """Trains the tokenizer of a language model that starts from scratch; does nothing if there is one."""
        if self.tokenizer is None and self.train_tokenizer is not None:
            self.tokenizer = self.train_tokenizer(texts)

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer.

        Raises:
            ModelError: it has not been trained yet.
        """
        if self.tokenizer is None:
            raise ModelError("This model has no tokenizer yet: train it, or load a checkpoint.")
        return self.tokenizer

    def prompt_encoder(self) -> PromptEncoder:
        """Encodes prompts and answers as token ids.

        Raises:
            ModelError: the tokenizer has not been trained yet.
        """
        return PromptEncoder(self.require_tokenizer(), self.max_length)

    def collator(
        self,
        *,
        training: bool,
        prompts: Mapping[str, PromptTemplate] | None = None,
        eval_set: str = "",
        with_labels: bool = False,
    ) -> Collator:
        """Collates decoded examples.

        Args:
            training: whether sequences hold answers and labels.
            prompts: prompt template of each task; by default those of the registered tasks.
            eval_set: name of the evaluation set that the batches belong to.
            with_labels: evaluation batches also hold what a validation loss needs.

        Raises:
            ModelError: the tokenizer has not been trained yet.
        """
        return Collator(
            prompt_encoder=self.prompt_encoder(),
            prompts=prompts or {name: task.task.prompt for name, task in self.tasks.items()},
            num_image_slots=partial(num_image_slots, fused=self.fuse_pairs),
            tokens_per_image=self.tokens_per_image,
            training=training,
            supports_tree_attention=self.supports_tree_attention,
            processor_key=self.key,
            eval_set=eval_set,
            with_labels=with_labels,
        )
