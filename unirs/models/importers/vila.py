"""VILA-1.5 and the published UniRS: folders `llm`, `vision_tower` and `mm_projector`."""

from pathlib import Path
from typing import cast

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.errors import ModelError
from unirs.interfaces import as_module
from unirs.models.convert_weights import load_exactly, read_config, read_projector
from unirs.models.importers.assemble import assemble, build_encoder, stored_dtype
from unirs.models.llm import LLMConfig, build_llm
from unirs.models.pretrained import Pretrained
from unirs.models.unirs_model import UniRSModel, create_change
from unirs.tasks.prompt import VisualFormat

VICUNA = (
    "{{ bos_token or '' }}A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. {% for message in messages %}"
    "{% if message.role == 'user' %}USER: {{ message.content }} {% else %}ASSISTANT: {{ message.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The chat template of VILA-1.5's `vicuna_v1` conversation, which its tokenizers do not contain."""

VILA_FOLDERS = ("llm", "vision_tower", "mm_projector")


def read_vila(source: Path) -> Pretrained:
    """Reads a folder of VILA-1.5 or UniRS."""
    root = read_config(source)
    aspect = root.get("image_aspect_ratio") or "pad"
    if aspect not in ("pad", "resize"):
        raise ModelError(
            f"{source} has image_aspect_ratio '{aspect}'. UniRS reads models that encode whole images: 'pad', 'resize'."
        )
    projector, fusion = read_projector(source / "mm_projector", change=True)
    encoder = build_encoder(
        source=str(source / "vision_tower"),
        layer=root.get("mm_vision_select_layer", -2),
        resize_mode="pad" if aspect == "pad" else "stretch",
    )
    # The published code has an option for transformer layers that differ from ours; the published model has none.
    change = {"name": "change_extraction", "n_layers": 0} if fusion else None
    stored = read_config(source / "llm")
    settings = LLMConfig(
        source=str(source / "llm"), dtype=stored_dtype(stored.get("dtype") or stored.get("torch_dtype"))
    )
    llm, built = build_llm(settings)
    tokenizer = cast("PreTrainedTokenizerBase", built)
    model = UniRSModel(encoder, create_change(change, encoder), llm)
    load_exactly(model.projector, projector, source / "mm_projector")
    if fusion is not None:
        load_exactly(as_module(model.change), fusion, source / "mm_projector")
    tokenizer.chat_template = tokenizer.chat_template or VICUNA
    # `"<image>\n" * n` precedes the text.
    visual_format = VisualFormat(after="\n", end="")
    return assemble(model, change, {"name": "downsample"}, tokenizer, settings, visual_format)
