"""Inputs of Hugging Face image-text-to-text models: chat template, tokenizer and image processor, without weights."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import PIL.Image
import torch
from jinja2 import TemplateError
from transformers import AutoProcessor, ProcessorMixin

from unirs.data.batch import Opaque, SkippedSample, share_memory
from unirs.data.dataset import Example, VisualInput
from unirs.data.processor import Processor
from unirs.errors import ModelError
from unirs.metrics.base import Prediction
from unirs.tasks.media import STRETCH, frame_labels
from unirs.utils.sources import resolve_source

Inputs = dict[str, Any]
"""Arguments of a model's `forward`: tensors by name."""


class ChatPrompt(NamedTuple):
    """Frames, uint8 `[k, 3, H, W]`, a question about them, and the label before each frame; none if empty."""

    frames: torch.Tensor
    question: str
    labels: tuple[str, ...] = ()

    def content(self) -> list[dict[str, str]]:
        """The parts of the user's message: labels and images in turn, then the question."""
        content = []
        for index in range(len(self.frames)):
            content += [{"type": "text", "text": label} for label in self.labels[index : index + 1]]
            content.append({"type": "image"})
        return [*content, {"type": "text", "text": self.question}]


class ChatProcessor:
    """Encodes images and a question as the user's message of a chat; picklable.

    Args:
        source: hub id or folder of the model.
        trust_remote_code: whether to run code that comes with `source`.

    Attributes:
        context: number of positions of the language model, which sets it; None if unlimited.

    Raises:
        ModelError: the source has no processor of images and text, or no chat template.
    """

    def __init__(self, source: str, *, trust_remote_code: bool = False) -> None:
        self.source = source
        self.context: int | None = None
        self._processor: Any = _load_processor(source, trust_remote_code=trust_remote_code)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - any tokenizer of transformers
        """The language model's tokenizer."""
        return self._processor.tokenizer

    def encode_batch(self, prompts: Sequence[ChatPrompt], num_new_tokens: int) -> list[Inputs]:
        """Encodes prompts as one padded batch, or each alone if padding and answers may exceed the model's context."""
        inputs = self.encode(prompts)
        if self.context is None or inputs["input_ids"].shape[1] + num_new_tokens <= self.context or len(prompts) == 1:
            return [inputs]
        return [self.encode([prompt]) for prompt in prompts]

    def encode(self, prompts: Sequence[ChatPrompt]) -> Inputs:
        """Encodes prompts, padded on the left.

        Raises:
            ModelError: the processor rejects images and question.
        """
        images = [[PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in one.frames] for one in prompts]
        try:
            chats = [[{"role": "user", "content": prompt.content()}] for prompt in prompts]
            texts = self._processor.apply_chat_template(chats, add_generation_prompt=True, enable_thinking=False)
            # A template may write the start token itself.
            bos_token = self.tokenizer.bos_token
            inputs = self._processor(
                text=texts,
                images=images,
                padding=True,
                padding_side="left",
                add_special_tokens=bos_token is None or not texts[0].startswith(bos_token),
                return_tensors="pt",
            )
        except (ValueError, TypeError, LookupError, TemplateError) as error:
            raise ModelError(
                f"The processor of '{self.source}' does not take {len(images[0])} images with the question "
                f"{prompts[0].question!r} ({error}). Use media that it supports, and a question without its special "
                "tokens."
            ) from error
        return dict(inputs)


@dataclass
class HFBatch:
    """A collated evaluation batch of Q queries.

    Attributes:
        chunks: inputs of consecutive queries, which are padded together.
        queries: Q.
        eval_set: name of the evaluation set.
        skipped: samples that could not be read, and are replaced by others of this batch.
    """

    chunks: list[Inputs]
    queries: Collection[Prediction]
    eval_set: str
    skipped: Collection[SkippedSample] = ()

    def __post_init__(self) -> None:
        self.queries, self.skipped = Opaque(self.queries), Opaque(self.skipped)

    def share_memory(self) -> HFBatch:
        """The same batch in shared memory, for another process."""
        chunks = [
            {name: share_memory(one) if isinstance(one, torch.Tensor) else one for name, one in inputs.items()}
            for inputs in self.chunks
        ]
        return replace(self, chunks=chunks)


class HFCollator:
    """Collates decoded examples as `HFBatch`; its prompts have no task tags."""

    training = False  # `make_loader` distinguishes collators by it

    def __init__(self, processor: HFProcessor, *, eval_set: str = "", **_: object) -> None:
        self.processor = processor
        self.prompts = {name: replace(task.task.prompt, task_tag="") for name, task in processor.tasks.items()}
        self.eval_set = eval_set

    def __call__(self, items: Sequence[tuple[Example, VisualInput]]) -> HFBatch:
        """Collates examples and their decoded frames."""
        queries, prompts = [], []
        for example, visual in items:
            media = example.sample.media
            for turn in example.sample.turns:
                text = self.prompts[example.task](turn.prompt_fields)
                row = Prediction(turn.id, example.task, media.sources, turn.category, text, "", turn.references)
                queries.append(row)
                prompts.append(ChatPrompt(visual.frames, text, frame_labels(media)))  # type: ignore[arg-type]
        chat, longest = self.processor.chat, self.processor.max_new_tokens
        size = len(queries) if self.processor.batched else 1
        chunks: list[Inputs] = []
        for start in range(0, len(queries), size):
            chunks += chat.encode_batch(prompts[start : start + size], longest)
        return HFBatch(chunks, queries, self.eval_set, [one for example, _ in items for one in example.skipped])

    def check(self, example: Example, visual: VisualInput) -> None:
        """Does nothing: any text can be encoded."""


class HFProcessor(Processor):
    """The `Processor` of a Hugging Face model; images keep their size.

    Args:
        chat: encodes prompts.
        max_new_tokens: maximum length of an answer in tokens.
        batched: whether prompts of a batch are padded together; otherwise each has inputs of its own.
    """

    def __init__(self, chat: ChatProcessor, max_new_tokens: int, *, batched: bool = True) -> None:
        super().__init__(
            chat.tokenizer, None, STRETCH, (0, 0), 0, fuse_pairs=False, max_eval_turns=1, collator_type=HFCollator
        )
        self.chat, self.max_new_tokens, self.batched = chat, max_new_tokens, batched


def _load_processor(source: str, *, trust_remote_code: bool) -> ProcessorMixin:
    try:
        processor: Any = AutoProcessor.from_pretrained(resolve_source(source), trust_remote_code=trust_remote_code)
    except Exception as error:  # of any class, for damaged files
        raise ModelError(
            f"The processor of '{source}' does not load ({error}). Name a folder or hub id of an image-text-to-text "
            "model, with its processor and tokenizer."
        ) from error
    if not isinstance(processor, ProcessorMixin) or not {"image_processor", "tokenizer"} <= set(dir(processor)):
        raise ModelError(
            f"'{source}' has no processor of images and text (found {type(processor).__name__}). Name an "
            "image-text-to-text model, with the files of its processor beside the weights."
        )
    # Older checkpoints keep it with the tokenizer.
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ModelError(
            f"'{source}' has no chat template, so the format of its prompts is unknown. Name a model that was trained "
            "to follow instructions, or put its chat_template.jinja beside the weights."
        )
    return processor
