"""The language model: any Hugging Face causal LM, loaded from a hub id, folder or GGUF file, or built from a config."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError, did_you_mean
from unirs.models.tuning import Lora, TuningMode, set_tuning
from unirs.utils.sources import resolve_source

SPECIAL = PAD, START, END = "<pad>", "<s>", "</s>"


@dataclass
class LLMConfig:
    """The language model and how it is tuned. Exactly one of `source` and `config` is set.

    Attributes:
        source: a hub id, a folder or a `.gguf` file with weights and tokenizer; `package:NAME/…` is a file of an
            installed Python package.
        config: a model with random weights: `model_type` and that type's own options, e.g. `{model_type: llama,
            hidden_size: 128}`. Its tokenizer is trained on the texts of the training split when training starts.
        vocab_size: number of tokens of a model from `config`, at least 259.
        tune: `full`, `frozen`, or `lora`, whose checkpoints contain only the adapters.
        lora: the adapters of `tune: lora`.
        add_tokens: texts that become one token each, such as `<clue>` or `[vqa]`; their embeddings are trained.
        dtype: of the weights. Adapters are always float32.
        attn_implementation: `flash_attention_2` needs its package and a GPU. It has no tree attention, so training
            sequences contain one answer each.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them.
        trust_remote_code: run model code that comes with `source`.
    """

    source: str | None = None
    config: dict[str, Any] | None = None
    vocab_size: int = 512
    tune: TuningMode = "full"
    lora: Lora = field(default_factory=Lora)
    add_tokens: list[str] = field(default_factory=list)
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False


def build_llm(settings: LLMConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """Builds the model and loads its tokenizer; the tokenizer of a model from `config` is None.

    Raises:
        ModelError: neither or both of `source` and `config`, a source that does not load, weights that do not fit, an
            option that the model type does not have, or added tokens whose embeddings would not be trained.
    """
    if (settings.source is None) == (settings.config is None):
        raise ModelError(
            "The language model needs exactly one of 'source' (hub id or folder) and 'config' (from scratch)."
        )
    tokenizer: PreTrainedTokenizerBase | None = None
    if settings.source is not None:
        folder, gguf = _split_gguf(resolve_source(settings.source))
        model, tokenizer = _load(folder, gguf, settings), _load_tokenizer(folder, gguf, settings)
        set_llm_tuning(model, settings, _add_tokens(model, tokenizer, settings))
        return model, tokenizer
    if settings.tune != "full":
        raise ModelError(
            f"The language model has random weights and 'tune: {settings.tune}'. Name a 'source', or set 'tune: full'."
        )
    if settings.add_tokens:
        raise ModelError("llm.add_tokens needs a 'source': the tokenizer of a model from 'config' is trained.")
    model = _from_scratch(settings.config or {}, settings)
    set_llm_tuning(model, settings, [])
    return model, tokenizer


def describe_llm(model: PreTrainedModel, settings: LLMConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `rebuild_llm` needs to build the same model without its source; serialisable as JSON."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    # Loading a GGUF file dequantises its weights.
    config.pop("quantization_config", None)
    # May be a path of this machine.
    config.pop("_name_or_path", None)
    return {
        "config": config,
        "tune": settings.tune,
        "lora": settings.lora.as_options(),
        "new_tokens": [tokenizer.vocab[token] for token in settings.add_tokens],
        "dtype": settings.dtype,
    }


def rebuild_llm(description: dict[str, Any], attn_implementation: str = "sdpa") -> PreTrainedModel:
    """Builds the model of a description by `describe_llm`, with random weights.

    Raises:
        ModelError: it does not describe a causal language model.
    """
    settings = LLMConfig(tune=description["tune"], lora=Lora.parse(description["lora"]), dtype=description["dtype"])
    try:
        config = AutoConfig.for_model(**description["config"])
        model = AutoModelForCausalLM.from_config(
            config,
            attn_implementation=attn_implementation,
            dtype=getattr(torch, settings.dtype),
            trust_remote_code=False,
        )
    except (TypeError, ValueError, LookupError, StrictDataclassError) as error:
        raise ModelError(f"The saved language model's config does not describe one: {error}") from error
    set_llm_tuning(model, settings, description["new_tokens"])
    return model  # type: ignore[no-any-return]


def source_config(settings: LLMConfig) -> PreTrainedConfig:
    """Loads the config of a source, without its weights.

    Raises:
        ModelError: it does not load.
    """
    source, gguf = _split_gguf(resolve_source(str(settings.source)))
    options = {"gguf_file": gguf} if gguf else {}
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            source, trust_remote_code=settings.trust_remote_code, **options
        )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"The config of language model '{settings.source}' does not load: {error}") from error
    return config


def _split_gguf(source: str) -> tuple[str, str | None]:
    path = Path(source)
    return (str(path.parent), path.name) if path.suffix == ".gguf" else (source, None)


def set_llm_tuning(model: PreTrainedModel, settings: LLMConfig, new_tokens: list[int]) -> None:
    """Sets which weights are trainable, and gradient checkpointing.

    Args:
        model: without adapters.
        settings: its `tune`, `lora` and `gradient_checkpointing` are used.
        new_tokens: ids of tokens whose embeddings are trained beside LoRA adapters.
    """
    output = model.get_output_embeddings()
    set_tuning(model, settings.tune, settings.lora, exclude=[output] if output else [], new_tokens=new_tokens)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


def _add_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: LLMConfig) -> list[int]:
    """Adds tokens to tokenizer and model; returns their ids."""
    if not settings.add_tokens:
        return []
    if settings.tune == "frozen":
        raise ModelError(
            "llm.add_tokens with 'tune: frozen': their embeddings would stay random. Use 'lora' or 'full'."
        )
    tokenizer.add_tokens(settings.add_tokens)
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            for layer in {model.get_input_embeddings(), model.get_output_embeddings()} - {None}:
                # The mean of the other rows. Deterministic, as LoRA checkpoints do not contain the output layer's rows;
                # and close to the others, as random embeddings would dominate the prompt.
                weight = cast("torch.Tensor", layer.weight)
                weight[rows:] = weight[:rows].mean(0)
    return [tokenizer.vocab[token] for token in settings.add_tokens]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Trains a byte-level BPE tokenizer, which encodes any text.

    Args:
        texts: the corpus; its order matters only for pairs of equal frequency.
        vocab_size: maximum number of tokens, including the three special tokens and the 256 bytes.

    Raises:
        ModelError: `vocab_size` is too small for the special tokens and the bytes.
    """
    minimum = len(SPECIAL) + len(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < minimum:
        raise ModelError(f"A vocabulary of {vocab_size} tokens is too small. Set 'vocab_size' to {minimum} or more.")
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
    """Restores a tokenizer of `train_tokenizer` from its `tokenizers` JSON."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )


def _from_scratch(options: dict[str, Any], settings: LLMConfig) -> PreTrainedModel:
    if "model_type" not in options:
        raise ModelError("llm.config needs a 'model_type', e.g. {model_type: llama, hidden_size: 128}.")
    model_type = str(options["model_type"])
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"Unknown model_type '{model_type}'. {did_you_mean(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}"
        )
    special: dict[str, Any] = {
        "vocab_size": settings.vocab_size,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    try:
        known = AutoConfig.for_model(model_type)
        # `transformers` accepts unknown options, so a misspelt one would leave the default in place.
        for option in options:
            if option in special:
                raise ModelError(
                    f"llm.config may not set '{option}': it follows from the tokenizer. See llm.vocab_size."
                )
            if not hasattr(known, option):
                raise ModelError(f"llm.config has no option '{option}'. {did_you_mean(option, known.to_dict())}")
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**options, **special),
            attn_implementation=settings.attn_implementation,
            dtype=getattr(torch, settings.dtype),
        )
    except (TypeError, ValueError, LookupError, ArithmeticError, StrictDataclassError) as error:
        raise ModelError(f"llm.config does not describe a causal language model: {error}") from error
    return model


def _load(source: str, gguf: str | None, settings: LLMConfig) -> PreTrainedModel:
    load: Any = AutoModelForCausalLM.from_pretrained
    options: dict[str, Any] = {
        "dtype": getattr(torch, settings.dtype),
        "attn_implementation": settings.attn_implementation,
        "trust_remote_code": settings.trust_remote_code,
    }
    try:
        # `check_loaded` lists weights of another shape with the missing and unexpected ones.
        model, report = load(source, gguf_file=gguf, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except (OSError, ValueError, ImportError, NotImplementedError, SafetensorError) as error:
        remedy = (
            "GGUF files need the package 'gguf': pip install 'unirs[gguf]'."
            if gguf
            else "Name a folder with weights and tokenizer, a .gguf file, or a hub id."
        )
        raise ModelError(f"Language model '{_display_name(source, gguf)}' does not load ({error}). {remedy}") from error
    check_loaded(_display_name(source, gguf), model, report)
    return model  # type: ignore[no-any-return]


def check_loaded(source: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Checks the loading report of `from_pretrained` with `output_loading_info` and `ignore_mismatched_sizes`.

    Raises:
        ModelError: weights are missing, unexpected, or of another shape; lists them.
    """
    wrong = {
        key: sorted(map(str, report.get(key) or ())) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if any(wrong.values()):
        raise ModelError(f"The weights of '{source}' do not fit {type(model).__name__}: {wrong}.")


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a language model, without the weights.

    Args:
        source: as in `LLMConfig`.

    Raises:
        ModelError: it does not load, or has no end-of-sequence token.
    """
    folder, gguf = _split_gguf(resolve_source(source))
    return _load_tokenizer(folder, gguf, LLMConfig(source=source))


def _load_tokenizer(source: str, gguf: str | None, settings: LLMConfig) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, gguf_file=gguf, trust_remote_code=settings.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"The tokenizer of '{_display_name(source, gguf)}' does not load: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"The tokenizer of '{_display_name(source, gguf)}' has no end-of-sequence token: answers would not end."
        )
    return tokenizer


def _display_name(source: str, gguf: str | None) -> str:
    return f"{source}/{gguf}" if gguf else source
