"""Any Hugging Face image-text-to-text model: generates clues as a base VLM, and answers benchmarks zero-shot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, BatchFeature, DynamicCache, GenerationConfig, PreTrainedModel

from unirs.errors import ModelError
from unirs.inference.completion import Choices, Completion
from unirs.inference.generation_options import GREEDY, GenerationOptions
from unirs.inference.hf_generation import generation_config, seeded
from unirs.inference.hf_processor import ChatProcessor, ChatPrompt, HFBatch, Inputs
from unirs.inference.options import move_to_device
from unirs.models.llm import check_loaded, context_length
from unirs.tasks.media import Media, frame_labels
from unirs.utils.hashing import fingerprint
from unirs.utils.sources import resolve_source


class HFImageTextModel:
    """A model whose processor has a chat template. A pair is two images of a message, a video its frames.

    A series is texts and images in turn, unless the chat template puts all images first, as LLaVA-1.5's does.

    Args:
        source: a hub id or a folder with weights and processor; `package:NAME/…` names files of an installed package.
        device: device of the weights.
        trust_remote_code: whether to run model code that comes with `source`.

    Raises:
        ModelError: the source does not load, its weights do not fit it, it has no processor of images and text, no
            chat template or no end-of-sequence token, or there is no such device.
    """

    def __init__(self, source: str, *, device: str | torch.device = "cpu", trust_remote_code: bool = False) -> None:
        self._source = source
        self.chat = ChatProcessor(source, trust_remote_code=trust_remote_code)
        self.model: Any = _load_model(source, trust_remote_code=trust_remote_code)
        move_to_device(self.model, device, source)
        self.chat.context = context_length(self.model.config)
        tokenizer, named = self.chat.tokenizer, self.model.generation_config.eos_token_id
        ends = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
        if not all(end is None or type(end) is int for end in ends):
            raise ModelError(f"'{source}' has an eos_token_id that is no integer: {ends}. Correct its config.")
        self._ends = sorted(set(ends) - {None})
        if not self._ends:
            raise ModelError(f"'{source}' names no end-of-sequence token, so its answers would never end.")
        # `transformers` takes unset values from the checkpoint's config, which may penalise or forbid tokens.
        self.model.generation_config = GenerationConfig()
        if tokenizer.pad_token is None:
            tokenizer.pad_token_id = self._ends[0]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the weights, see `unirs.utils.hashing.fingerprint`."""
        return fingerprint(self.model.state_dict())

    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answers one question about each input greedily, in one batch, from frames in their own size.

        The rest of the batch changes an answer by no more than the rounding of the dtype.

        Raises:
            MediaError: media do not decode.
            ModelError: the processor rejects media and question, or a prompt is longer than the model allows.
        """
        if not media:
            return []
        frames = {one: one.load_frames() for one in dict.fromkeys(media)}
        pairs = zip(media, questions, strict=True)
        prompts = [ChatPrompt(frames[one], question, frame_labels(one)) for one, question in pairs]
        chunks = self.chat.encode_batch(prompts, max_new_tokens)
        return [one.text for inputs in chunks for one in self._generate(inputs, max_new_tokens)]

    def complete(
        self,
        batch: HFBatch,
        *,
        max_new_tokens: int,
        choices: Choices | None = None,
        generation: GenerationOptions = GREEDY,
    ) -> list[Completion]:
        """Completes the prompts of a batch that the model's `HFProcessor` made; not `batched` if there are choices.

        Raises:
            ModelError: a prompt is longer than the model allows, or the model cannot score choices.
        """
        queries, completions = list(batch.queries), list[Completion]()
        for inputs in batch.chunks:
            options = tuple(choices(queries[len(completions)])) if choices else ()
            if options:
                scores = self.score_choices(inputs, options)
                # Among equally likely choices the first one wins.
                best = max(range(len(options)), key=scores.__getitem__)
                by_choice = dict(zip(options, scores, strict=True))
                completions.append(Completion(options[best], (), (scores[best],), by_choice))
            else:
                query = queries[len(completions)]
                seed = generation.question_seed(query.media, query.prompt) if generation.temperature > 0 else None
                completions += self._generate(inputs, max_new_tokens, generation, seed)
        return completions

    @torch.inference_mode()
    def score_choices(self, inputs: Inputs, choices: Sequence[str]) -> list[float]:
        """The log-likelihood of each choice after one prompt: the sum over its tokens and the end token.

        The prompt is prefilled once; no prompt is padded, so the scores do not depend on a batch.

        Args:
            inputs: of one prompt.
            choices: at least one.

        Raises:
            ModelError: the prompt is longer than the model allows, or the model is an encoder-decoder.
        """
        if self.model.config.is_encoder_decoder:
            raise ModelError(f"'{self._source}' is an encoder-decoder: use '--decoding generate'.")
        tokenizer, device = self.chat.tokenizer, self.model.device
        end = self._ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        rows = [torch.tensor([*tokenizer(one, add_special_tokens=False).input_ids, end]) for one in choices]
        token_ids = pad_sequence(rows, batch_first=True).to(device)  # [C, W]
        is_token = torch.arange(token_ids.shape[1]) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
        inputs = self._on_device(inputs, token_ids.shape[1])
        cache = DynamicCache(config=self.model.config.get_text_config(decoder=True))
        with self._fitting():
            first_logits = self.model(**inputs, cache=cache, use_cache=True, logits_to_keep=1).logits[:, -1:]
        cache.batch_repeat_interleave(len(rows))
        # Without a mask: padding follows the tokens, which do not attend to it.
        logits = self.model(input_ids=token_ids[:, :-1], cache=cache, use_cache=True).logits
        logits = torch.cat([first_logits.expand(len(rows), -1, -1), logits], dim=1)  # [C, W, V]
        logprobs = logits.float().log_softmax(-1).gather(2, token_ids.unsqueeze(2)).squeeze(2)
        return [float(score) for score in logprobs.masked_fill(~is_token.to(device), 0).sum(1)]

    @torch.inference_mode()
    def _generate(
        self, inputs: Inputs, max_new_tokens: int, generation: GenerationOptions = GREEDY, seed: int | None = None
    ) -> list[Completion]:
        inputs = self._on_device(inputs, 1)
        if self.chat.context is not None:
            max_new_tokens = min(max_new_tokens, self.chat.context + 1 - inputs["input_ids"].shape[1])
        pad = self.chat.tokenizer.pad_token_id
        config = generation_config(generation, max_new_tokens, eos_token_id=self._ends, pad_token_id=pad)
        with seeded(seed), self._fitting():
            out = self.model.generate(**inputs, generation_config=config)
        # The output of an encoder-decoder does not repeat the prompt.
        start = 0 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return [self._completion(row[start:]) for row in out.tolist()]

    @contextmanager
    def _fitting(self) -> Iterator[None]:
        """Converts errors of a model that does not take what its processor makes."""
        try:
            yield
        except (TypeError, ValueError, LookupError) as error:
            raise ModelError(
                f"'{self._source}' does not take the inputs of its processor ({error}). Download it again."
            ) from error

    def _on_device(self, inputs: Inputs, num_new_tokens: int) -> Inputs:
        """Inputs on the model's device and in its dtype, if so many tokens of an answer, at least, fit."""
        length, context = inputs["input_ids"].shape[1], self.chat.context
        # The last token is not an input.
        if context is not None and length + num_new_tokens - 1 > context:
            raise ModelError(
                f"A prompt of {length} tokens and {num_new_tokens} of the answer are more than the {context} that "
                f"'{self._source}' allows. Use fewer frames, or smaller images."
            )
        return dict(BatchFeature(inputs).to(self.model.device, self.model.dtype))

    def _completion(self, token_ids: list[int]) -> Completion:
        end = next((index for index, token in enumerate(token_ids) if token in self._ends), len(token_ids))
        text = str(self.chat.tokenizer.decode(token_ids[:end], skip_special_tokens=True)).strip()
        return Completion(text, tuple(token_ids[:end]))


def _load_model(source: str, *, trust_remote_code: bool) -> PreTrainedModel:
    load: Any = AutoModelForImageTextToText.from_pretrained
    options = {"dtype": "auto", "trust_remote_code": trust_remote_code}
    try:
        # Weights of another shape are then listed with missing and unexpected ones.
        model, report = load(resolve_source(source), output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except Exception as error:  # of any class, for damaged files
        raise ModelError(
            f"Image-text-to-text model '{source}' does not load ({error}). Name a folder with weights and processor, "
            "or a hub id."
        ) from error
    check_loaded(source, model, report)
    loaded: PreTrainedModel = model.eval()
    return loaded
