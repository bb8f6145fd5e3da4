"""The language model: any Hugging Face causal LM, from a hub id or a folder, or started small from a config."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError, nearest

SPECIAL = PAD, START, END = "<pad>", "<s>", "</s>"


@dataclass
class LLMConfig:
    """Which language model, and whether it learns. Exactly one of `source` and `config` is given.

    Attributes:
        source: a hub id or a folder with weights and tokenizer.
        config: a model to start from random weights: `model_type` and that type's own options, e.g.
            `{model_type: llama, hidden_size: 128}`. Its tokenizer is trained on the training split's texts when
            training begins.
        vocab_size: tokens of a model started from `config`, at least 259.
        frozen: keep the weights as they are.
    """

    source: str | None = None
    config: dict[str, Any] | None = None
    vocab_size: int = 512
    frozen: bool = False


def build_llm(settings: LLMConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Builds the model, and its tokenizer where it has one already.

    Raises:
        ModelError: neither or both of `source` and `config`, a source that does not load, weights that do not fit it,
            or an option that the model type does not have.
    """
    if (settings.source is None) == (settings.config is None):
        raise ModelError(
            "The language model needs exactly one of 'source' (hub id or folder) and 'config' (from scratch)."
        )
    if settings.source is not None:
        model, tokenizer = _load(settings.source), _load_tokenizer(settings.source)
        model.requires_grad_(not settings.frozen)
        return model, tokenizer
    if settings.frozen:
        raise ModelError("The language model is frozen with random weights. Name a 'source', or set 'frozen: false'.")
    return _from_scratch(settings.config or {}, settings.vocab_size), None


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Trains a byte-level BPE tokenizer, which can write any text; frequent words become one token.

    Args:
        texts: what to train on; the order matters only between equally frequent pairs.
        vocab_size: tokens at most, the three specials and the 256 bytes included.

    Raises:
        ModelError: `vocab_size` leaves no room for the specials and the bytes.
    """
    least = len(SPECIAL) + len(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < least:
        raise ModelError(f"A vocabulary of {vocab_size} tokens is too small. Set 'vocab_size' to {least} or more.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer_from_json(tokenizer.to_str())


def tokenizer_from_json(text: str) -> PreTrainedTokenizerBase:
    """A tokenizer that `train_tokenizer` made, from its `tokenizers` JSON."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )


def _from_scratch(options: dict[str, Any], vocab_size: int) -> PreTrainedModel:
    if "model_type" not in options:
        raise ModelError("llm.config needs a 'model_type', e.g. {model_type: llama, hidden_size: 128}.")
    kind = options["model_type"]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"Unknown model_type '{kind}'. {nearest(str(kind), MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}")
    special: dict[str, Any] = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    try:
        known = AutoConfig.for_model(kind)
        # `transformers` keeps whatever it is given: a mistyped option would leave the default in place unseen.
        for option in options:
            if option in special:
                raise ModelError(f"llm.config may not set '{option}': the trained tokenizer does. See llm.vocab_size.")
            if not hasattr(known, option):
                raise ModelError(f"llm.config has no option '{option}'. {nearest(option, known.to_dict())}")
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**options, **special))
    except (TypeError, ValueError, LookupError, ArithmeticError, StrictDataclassError) as error:
        raise ModelError(f"llm.config does not describe a causal language model: {error}") from error
    return model


def _load(source: str) -> PreTrainedModel:
    load: Any = AutoModelForCausalLM.from_pretrained
    try:
        # Keys of another shape are listed with the others below.
        model, report = load(source, output_loading_info=True, ignore_mismatched_sizes=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"Language model '{source}' does not load ({error}). Name a folder with weights and tokenizer, or a hub id."
        ) from error
    wrong = {
        key: sorted(map(str, report.get(key) or ())) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if any(wrong.values()):
        raise ModelError(f"The weights of '{source}' do not fit {type(model).__name__}: {wrong}.")
    return model  # type: ignore[no-any-return]


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelError(f"The tokenizer of '{source}' does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of '{source}' has no end-of-sequence token, so answers would never end.")
    return tokenizer
