"""How free text is generated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from unirs.errors import ModelError
from unirs.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, PositiveUnitInterval, Seed, check_ranges


@dataclass(frozen=True)
class GenerationOptions:
    """How free text is generated; greedily by default.

    The probabilities of tokens are changed in this order: repetition penalty, temperature, top-p. The repetition
    penalty counts the tokens of the answer; of a Hugging Face model, those of the prompt, too.

    Attributes:
        temperature: 0 takes the likeliest token; else tokens are sampled, from logits divided by this.
        top_p: samples only from the likeliest tokens with at least this probability together.
        num_beams: number of beams of beam search, which needs temperature 0.
        repetition_penalty: positive logits of tokens that the answer has are divided by this, negative ones multiplied.
        seed: of sampling. A question's sample depends on the seed, the media's paths and the prompt, not on its batch.
    """

    temperature: NonNegativeFloat = 0.0
    top_p: PositiveUnitInterval = 1.0
    num_beams: PositiveInt = 1
    repetition_penalty: PositiveFloat = 1.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(GenerationOptions, self, "generation.")
        if self.num_beams > 1 and self.temperature > 0:
            raise ModelError("Beam search does not sample. Set temperature 0, or num_beams 1.")
        if self.top_p < 1 and self.temperature == 0:
            raise ModelError("top_p has no effect without sampling. Set a temperature above 0, such as 0.2.")

    @property
    def strategy(self) -> str:
        """`greedy`, `sampling` or `beam search`."""
        return "sampling" if self.temperature > 0 else "greedy" if self.num_beams == 1 else "beam search"

    def question_seed(self, *question: object) -> int:
        """The seed of a question's sample; a question is described by JSON values."""
        digest = hashlib.sha256(json.dumps([self.seed, *question]).encode()).digest()
        return int.from_bytes(digest[:7], "big")


GREEDY = GenerationOptions()
