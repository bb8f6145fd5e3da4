"""The base VLM of prompt augmentation: the model itself with its adapters off, or another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unirs.data.clues import BaseVLM, ClueCache, ClueConfig, generate_clues
from unirs.data.dataset import Example
from unirs.data.loaders import world
from unirs.errors import ModelError
from unirs.models.run_folder import is_unirs_model
from unirs.models.tuning import adapters_off, base_state
from unirs.tasks.media import Media
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn
from unirs.utils.hashing import fingerprint
from unirs.utils.sources import resolve_source

if TYPE_CHECKING:
    from unirs.inference.api import UniRS


class ClueGenerator:
    """Generates clues with a base VLM, which is loaded on first use, and caches them.

    Args:
        config: Names the base VLM and the cache.
        own: Returns the model itself, for a config that names no other.
        foreign: The clues of the model's training were another model's, which the config must name.
        trust_remote_code: Run code that the config of another model names by file or dotted path.
    """

    def __init__(
        self, config: ClueConfig, own: Callable[[], UniRS], *, foreign: bool = False, trust_remote_code: bool = False
    ) -> None:
        self.config = config
        self.own = own
        self.foreign = foreign
        self.trust_remote_code = trust_remote_code
        self._vlm: BaseVLM | None = None

    def __call__(self, media: Sequence[Media]) -> dict[Media, str]:
        """The clue of each input; shows a progress bar while clues are missing in the cache."""
        if self.config.source is None:
            if self.foreign:
                raise ModelError(
                    "The clues of the model's training were another model's. Name that one "
                    "(from_pretrained(clue_source=…), --clue-source), or give the clue as a text."
                )
            # Its weights change with every training step.
            vlm: BaseVLM = _UniRSBaseVLM(self.own(), plain=True)
        else:
            vlm = self._vlm = self._vlm or self._load(self.config.source)
        return generate_clues(
            vlm,
            media,
            cache=ClueCache(Path(self.config.cache)),
            batch_size=self.config.batch_size,
            max_new_tokens=self.config.max_new_tokens,
        )

    def generate_shared(self, media: Sequence[Media]) -> Mapping[Media, str]:
        """The clues of the same media on all processes. Collective: each process generates a share of them."""
        size, rank = world()
        self(media[rank::size])
        if size > 1:
            torch.distributed.barrier()
        return self(media)

    # Called in evaluation loops, in whose inference mode no model can be built.
    @torch.inference_mode(False)
    def _load(self, source: str) -> BaseVLM:
        own, trust = self.own(), self.trust_remote_code
        folder = Path(resolve_source(source))
        if is_unirs_model(folder):
            return _UniRSBaseVLM(own.from_pretrained(folder, device=own.device, trust_remote_code=trust), plain=False)
        # Hugging Face's image-text classes load slowly, and most models do without them.
        from unirs.inference.hf_model import HFImageTextModel

        return HFImageTextModel(source, device=own.device, trust_remote_code=trust)


class _UniRSBaseVLM:
    """A UniRS model as base VLM.

    Args:
        model: The model.
        plain: Whether to use its language model as it was before training: adapters off, prompts without task tags.
    """

    def __init__(self, model: UniRS, *, plain: bool) -> None:
        self.model = model
        self.plain = plain

    @property
    def fingerprint(self) -> str:
        model = self.model.model
        return fingerprint(base_state(model) if self.plain else model.state_dict())

    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        if not self.plain:
            answers = self.model.predict(media, questions, clue=False, details=False, max_new_tokens=max_new_tokens)
            return [answer.text for answer in answers]
        turns = [Turn(str(index), (), {"question": question}) for index, question in enumerate(questions)]
        examples = [Example("", Sample(turn.id, one, (turn,))) for turn, one in zip(turns, media, strict=True)]
        prompts = {"": PromptTemplate("", "{question}")}
        with adapters_off(self.model.model):
            rows = self.model.predict_examples(
                prompts, examples, max_new_tokens=max_new_tokens, batch_size=len(examples)
            )
            return [prediction.text for prediction, _ in rows]
