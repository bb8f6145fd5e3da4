# What takes seconds to import is imported by the fixture that needs it: many tests need none.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from unirs.media import Image, Media, Pair, Video

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from unirs.model import UniRSModel


END = "</s>"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # The tensors of these tests are too small for threads to pay.
    torch.set_num_threads(1)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    """Token ids are ASCII codes; 128 is the end-of-sequence token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    characters = Tokenizer(models.BPE(vocab={chr(code): code for code in range(128)}, merges=[]))
    return PreTrainedTokenizerFast(tokenizer_object=characters, eos_token=END, clean_up_tokenization_spaces=False)


@pytest.fixture
def make_model() -> Callable[..., UniRSModel]:
    """Makes models for `tokenizer`: frames of 64x64 pixels, four visual tokens a picture."""
    from unirs_encoders.timm_encoder import build as build_timm

    from unirs.change import ChangeExtraction
    from unirs.llm import LLMConfig, build_llm
    from unirs.model import UniRSModel

    def make(*, change: bool = True, seed: int = 0) -> UniRSModel:
        torch.manual_seed(seed)
        options = {"channels": [8, 16, 32, 64]}
        encoder = build_timm("resnet18", pretrained=False, frozen=False, layer=3, size=64, options=options)
        config = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        llm, _ = build_llm(LLMConfig(config={**config, "num_hidden_layers": 2}, vocab_size=130))
        # Wide enough for answers to differ between prompts, as a trained model's do.
        llm.get_output_embeddings().weight.data.mul_(20)
        return UniRSModel(encoder, ChangeExtraction(encoder.grid, encoder.dim) if change else None, llm)

    return make


@pytest.fixture
def media() -> dict[str, Media]:
    """One medium of each kind; nothing opens the files."""
    return {
        "image": Image(Path("a.png")),
        "pair": Pair(Path("before.png"), Path("after.png")),
        "video": Video(Path("a.mp4"), 3),
    }
