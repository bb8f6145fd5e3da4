"""The language model: any Hugging Face causal LM, loaded from a hub id, folder or GGUF file, or built from a config."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
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
from unirs.models.dtypes import Dtype, FixedDtype, resolve_dtype
from unirs.models.flex_attention import register
from unirs.models.quantization import Quantization, quantize
from unirs.models.tuning import Lora, TuningMode, set_tuning
from unirs.plugins import require_trust
from unirs.ranges import PositiveInt, check_ranges
from unirs.utils.sources import resolve_source

SPECIAL = PAD, START, END = "<pad>", "<s>", "</s>"


AttnImplementation = Literal["sdpa", "eager", "flex_attention", "flash_attention_2"]


@dataclass
class LLMConfig:
    """The language model and how it is tuned. Exactly one of `source` and `config` is set.

    Attributes:
        source: a hub id, a folder or a `.gguf` file with weights and tokenizer; `package:NAME/…` is a file of an
            installed Python package.
        config: a model with random weights: `model_type` and that type's own options, e.g. `{model_type: llama,
            hidden_size: 128}`. Its tokenizer is trained on the texts of the training split.
        vocab_size: number of tokens of a model from `config`, at least 259.
        tune: `full`, `frozen`, or `lora`, whose checkpoints contain only the adapters.
        lora: the adapters of `tune: lora`.
        add_tokens: texts that become one token each, such as `<clue>` or `[vqa]`; their embeddings are trained.
        quantize: `nf4` keeps the frozen weights of linear layers in 4 bits (QLoRA), for `tune: lora` and `frozen`; they
            are computed in `dtype`. Needs the package bitsandbytes.
        dtype: of the weights. `auto`: bfloat16 for frozen weights if the device has instructions for it, else float32.
            Adapters are always float32.
        attn_implementation: `flex_attention` skips the parts of long training sequences that do not attend to each
            other, and trains on GPUs only. `flash_attention_2` needs its package and a GPU; without tree attention, its
            training sequences contain one answer each.
        gradient_checkpointing: recompute activations in the backward pass instead of storing them.
        trust_remote_code: run model code that comes with `source`.
    """

    source: str | None = None
    config: dict[str, Any] | None = None
    vocab_size: PositiveInt = 512
    tune: TuningMode = "full"
    lora: Lora = field(default_factory=Lora)
    add_tokens: list[str] = field(default_factory=list)
    quantize: Quantization | None = None
    dtype: Dtype = "auto"
    attn_implementation: AttnImplementation = "sdpa"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_ranges(LLMConfig, self, "llm.")

    @property
    def fixed_dtype(self) -> FixedDtype:
        """The dtype, chosen if it is `auto`."""
        return resolve_dtype(self.dtype, self.tune)

    @property
    def attention_name(self) -> str:
        """The name of the attention implementation in transformers."""
        return register() if self.attn_implementation == "flex_attention" else self.attn_implementation


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
    if settings.source is not None:
        model, tokenizer = _load(settings), load_tokenizer(settings)
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
    return model, None


def describe_llm(model: PreTrainedModel, settings: LLMConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `rebuild_llm` needs to build the same model without its source; serialisable as JSON."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    # Loading a GGUF file dequantises its weights; the name may be a path of this machine.
    for key in ("quantization_config", "_name_or_path"):
        config.pop(key, None)
    return {
        "config": config,
        "tune": settings.tune,
        "lora": settings.lora.as_options(),
        "new_tokens": [tokenizer.vocab[token] for token in settings.add_tokens],
        "quantize": settings.quantize,
        "dtype": settings.fixed_dtype,
    }


def rebuild_llm(description: dict[str, Any], attn_implementation: AttnImplementation = "sdpa") -> PreTrainedModel:
    """Builds the model of a description by `describe_llm`, with random weights, which are not quantized."""
    settings = LLMConfig(
        tune=description["tune"],
        lora=Lora.parse(description["lora"]),
        dtype=description["dtype"],
        attn_implementation=attn_implementation,
    )
    model = _from_config(description["config"], settings, "The saved language model's config")
    set_llm_tuning(model, settings, description["new_tokens"])
    return model


def set_llm_tuning(model: PreTrainedModel, settings: LLMConfig, new_tokens: list[int]) -> None:
    """Sets which weights are trained, also the embeddings of `new_tokens` (ids), quantization, gradient checkpointing.

    Raises:
        ModelError: quantized weights would be trained, or the adapters' options are invalid.
    """
    if settings.quantize and settings.tune == "full":
        raise ModelError("llm.quantize and 'tune: full' exclude each other: 4-bit weights are not trained. Set 'lora'.")
    output = model.get_output_embeddings()
    set_tuning(model, settings.tune, settings.lora, exclude=[output] if output else [], new_tokens=new_tokens)
    if settings.quantize:
        quantize_llm(model, settings.quantize)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})


def quantize_llm(model: PreTrainedModel, quantization: Quantization) -> None:
    """Quantizes the weights that are not trained, except the output layer's."""
    output = model.get_output_embeddings()
    quantize(model, quantization, exclude=None if output is None else cast("torch.Tensor", output.weight))


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
    """Trains a byte-level BPE tokenizer of at most `vocab_size` tokens, which encodes any text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    minimum = len(SPECIAL) + len(alphabet)
    if vocab_size < minimum:
        raise ModelError(f"A vocabulary of {vocab_size} tokens is too small. Set 'vocab_size' to {minimum} or more.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer_from_json(tokenizer.to_str())


def tokenizer_from_json(text: str) -> PreTrainedTokenizerBase:
    """Restores a tokenizer of `train_tokenizer` from its `tokenizers` JSON."""
    special = {"pad_token": PAD, "bos_token": START, "eos_token": END}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), clean_up_tokenization_spaces=False, **special
    )


def _from_scratch(options: dict[str, Any], settings: LLMConfig) -> PreTrainedModel:
    if "model_type" not in options:
        raise ModelError("llm.config needs a 'model_type', e.g. {model_type: llama, hidden_size: 128}.")
    model_type = str(options["model_type"])
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"Unknown model_type '{model_type}'. {did_you_mean(model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}"
        )
    special = {"vocab_size": settings.vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    known = AutoConfig.for_model(model_type)
    # `transformers` accepts unknown options, so a misspelt one would leave the default in place.
    for option in options:
        if option in special:
            raise ModelError(f"llm.config may not set '{option}': it follows from the tokenizer. See llm.vocab_size.")
        if not hasattr(known, option):
            raise ModelError(f"llm.config has no option '{option}'. {did_you_mean(option, known.to_dict())}")
    return _from_config(options | special, settings, "llm.config")


def _from_config(options: dict[str, Any], settings: LLMConfig, origin: str) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**options),
            attn_implementation=settings.attention_name,
            dtype=getattr(torch, settings.fixed_dtype),
            trust_remote_code=False,
        )
    # The classes of `transformers` raise errors of any class for values that they do not expect.
    except Exception as error:
        raise ModelError(f"{origin} does not describe a causal language model: {error}") from error
    return model


def _load(settings: LLMConfig) -> PreTrainedModel:
    # `check_loaded` lists weights of another shape with the missing and unexpected ones.
    model, report = _from_pretrained(
        AutoModelForCausalLM,
        settings,
        "Language model",
        dtype=getattr(torch, settings.fixed_dtype),
        attn_implementation=settings.attention_name,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    check_loaded(str(settings.source), model, report)
    return model  # type: ignore[no-any-return]


def context_length(config: PreTrainedConfig) -> int | None:
    """Number of positions of a language model, or of the one of a vision-language model; None if unlimited."""
    length: int | None = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return length


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


def load_config(settings: LLMConfig) -> PreTrainedConfig:
    """Loads the config of the language model's source, without its weights."""
    config: PreTrainedConfig = _from_pretrained(AutoConfig, settings, "The config of")
    return config


def load_tokenizer(settings: LLMConfig) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of the language model's source, without the weights."""
    tokenizer: PreTrainedTokenizerBase = _from_pretrained(AutoTokenizer, settings, "The tokenizer of")
    check_tokenizer(tokenizer, str(settings.source))
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Checks that answers can end, that the chat template can be rendered, and that the tokenizer can be saved.

    Raises:
        ModelError: one of them fails; names `source`.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of '{source}' has no end-of-sequence token: answers would not end.")
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ModelError(
            f"model_max_length of the tokenizer of '{source}' is {tokenizer.model_max_length!r}, it must be a number."
        )
    try:
        json.dumps(tokenizer.init_kwargs, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            f"The settings of the tokenizer of '{source}' hold a lone surrogate, which is no character. Correct them."
        ) from error
    if tokenizer.chat_template:
        try:
            tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
        # A template is a program, and may raise errors of any class.
        except Exception as error:
            raise ModelError(
                f"The chat template of '{source}' fails ({error}). Correct it, or download it again."
            ) from error


def _from_pretrained(auto_class: Any, settings: LLMConfig, subject: str, **options: Any) -> Any:  # noqa: ANN401
    if settings.trust_remote_code:
        require_trust(f"llm.trust_remote_code for '{settings.source}'")
    source = resolve_source(str(settings.source))
    path = Path(source)
    remedy = "Name a folder with weights and tokenizer, a .gguf file, or a hub id."
    if path.suffix == ".gguf":
        source, options["gguf_file"] = str(path.parent), path.name
        remedy = "GGUF files need the package 'gguf': pip install 'unirs[gguf]'."
    try:
        return auto_class.from_pretrained(source, trust_remote_code=settings.trust_remote_code, **options)
    # Of any class, for files that are missing or damaged, or belong to another model.
    except Exception as error:
        raise ModelError(f"{subject} '{settings.source}' does not load ({error}). {remedy}") from error
