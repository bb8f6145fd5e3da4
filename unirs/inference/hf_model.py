"""Any Hugging Face image-text-to-text model, asked as it is: a base VLM that says clues, or a zero-shot rival."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import PIL.Image
import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig, PreTrainedModel, ProcessorMixin

from unirs.errors import ModelError, did_you_mean
from unirs.models.llm import check_loaded
from unirs.tasks.media import Media
from unirs.utils.hashing import fingerprint
from unirs.utils.sources import resolve_source

_DTYPES = ("auto", "bfloat16", "float16", "float32")

# What `transformers` raises for files that are missing, broken or of another kind.
_UNLOADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


class HFImageTextModel:
    """A model whose processor has a chat template. A pair becomes two images, a video its frames.

    Args:
        source: a hub id or a folder with weights and processor; `package:NAME/…` names what an installed Python package
            carries.
        dtype: of the weights: `auto` (the checkpoint's), `float32`, `bfloat16` or `float16`.
        device: where it runs.
        trust_remote_code: run model code that comes with `source`.

    Raises:
        ModelError: the source does not load, its weights do not fit it, it has no processor for images and text, no
            chat template or no end-of-sequence token, or there is no such dtype or device.
    """

    def __init__(
        self, source: str, *, dtype: str = "auto", device: str | torch.device = "cpu", trust_remote_code: bool = False
    ) -> None:
        if dtype not in _DTYPES:
            raise ModelError(f"There is no dtype '{dtype}' for '{source}'. {did_you_mean(dtype, _DTYPES)}")
        self._source = source
        self._processor: Any = _load_processor(source, trust_remote_code=trust_remote_code)
        self._model: Any = _load_model(source, dtype, device, trust_remote_code=trust_remote_code)
        named = self._model.generation_config.eos_token_id
        ends = {*(named if isinstance(named, list) else [named]), self._processor.tokenizer.eos_token_id}
        self._ends = sorted(ends - {None})
        if not self._ends:
            raise ModelError(f"'{source}' names no end-of-sequence token, so answers would never end.")
        # `transformers` fills what `say` leaves open from the checkpoint's, which may penalise or forbid tokens.
        self._model.generation_config = GenerationConfig()
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token_id = self._ends[0]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, see `unirs.utils.hashing.fingerprint`."""
        return fingerprint(self._model.state_dict())

    @torch.inference_mode()
    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answers one question about each of the media, in one batch, by the most likely token each time.

        What else is in the batch changes an answer by no more than the rounding of the dtype.

        Args:
            media: shown to the processor in their own size, before the question.
            questions: as many.
            max_new_tokens: the longest answer in tokens.

        Raises:
            MediaError: media do not decode.
            ModelError: the processor does not take media and question, or a prompt is longer than the model allows.
        """
        if not media:
            return []
        decoded = {one: _images(one) for one in dict.fromkeys(media)}
        inputs = self._inputs([decoded[one] for one in media], questions)
        length = inputs["input_ids"].shape[1]
        limit = getattr(self._model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if limit is not None and length + max_new_tokens > limit:
            raise ModelError(
                f"A prompt of {length} tokens and {max_new_tokens} of the answer are more than the {limit} that "
                f"'{self._source}' allows. Use fewer frames or smaller images."
            )
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=self._ends,
            pad_token_id=self._processor.tokenizer.pad_token_id,
            use_cache=True,
        )
        out = self._model.generate(**inputs, generation_config=config)
        # An encoder-decoder does not repeat the prompt.
        begin = 0 if self._model.config.is_encoder_decoder else length
        return [self._text(row[begin:]) for row in out.tolist()]

    def _inputs(self, images: Sequence[Sequence[PIL.Image.Image]], questions: Sequence[str]) -> Any:  # noqa: ANN401
        tokenizer = self._processor.tokenizer
        try:
            texts = [
                str(self._processor.apply_chat_template(_message(len(shown), question), add_generation_prompt=True))
                for shown, question in zip(images, questions, strict=True)
            ]
            # A template may write the start token itself.
            started = tokenizer.bos_token is not None and texts[0].startswith(tokenizer.bos_token)
            inputs = self._processor(
                text=texts,
                images=images,
                padding=True,
                padding_side="left",
                add_special_tokens=not started,
                return_tensors="pt",
            )
        except (ValueError, TypeError, LookupError, TemplateError) as error:
            raise ModelError(
                f"The processor of '{self._source}' does not take {len(images[0])} images with the question "
                f"{questions[0]!r} ({error}). Use supported media, and a question without special tokens."
            ) from error
        return inputs.to(self._model.device, self._model.dtype)

    def _text(self, answer: list[int]) -> str:
        end = next((index for index, token in enumerate(answer) if token in self._ends), len(answer))
        return str(self._processor.tokenizer.decode(answer[:end], skip_special_tokens=True)).strip()


def _images(media: Media) -> list[PIL.Image.Image]:
    return [PIL.Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in media.load_frames()]


def _message(images: int, question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*[{"type": "image"}] * images, {"type": "text", "text": question}]}]


def _load_processor(source: str, *, trust_remote_code: bool) -> ProcessorMixin:
    try:
        processor: Any = AutoProcessor.from_pretrained(resolve_source(source), trust_remote_code=trust_remote_code)
    except _UNLOADABLE as error:
        raise ModelError(
            f"The processor of '{source}' does not load ({error}). Name a folder or hub id of an image-text-to-text "
            "model, with its processor and tokenizer."
        ) from error
    if not isinstance(processor, ProcessorMixin) or not {"image_processor", "tokenizer"} <= set(dir(processor)):
        raise ModelError(
            f"'{source}' has no processor for images and text (found {type(processor).__name__}). Name an "
            "image-text-to-text model, and keep its processor's files beside the weights."
        )
    # Older checkpoints keep it with the tokenizer.
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ModelError(
            f"'{source}' has no chat template, so how to ask it is unknown. Name a model that was trained to follow "
            "instructions, or put its chat_template.jinja beside the weights."
        )
    return processor


def _load_model(source: str, dtype: str, device: str | torch.device, *, trust_remote_code: bool) -> PreTrainedModel:
    load: Any = AutoModelForImageTextToText.from_pretrained
    options = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    try:
        # Keys of another shape are listed with the others.
        model, report = load(resolve_source(source), output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except _UNLOADABLE as error:
        raise ModelError(
            f"Image-text-to-text model '{source}' does not load ({error}). Name a folder with weights and processor, "
            "or a hub id."
        ) from error
    check_loaded(source, model, report)
    try:
        placed: PreTrainedModel = model.to(device)
    # The second where torch was built without the device.
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"'{source}' does not go to device '{device}' ({error}). Name one that this machine has, such as 'cpu'."
        ) from error
    return placed
