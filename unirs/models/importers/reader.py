"""Recognises the layout of a checkpoint by its files, never by its name."""

from pathlib import Path

from unirs.errors import ModelError
from unirs.models.convert_weights import read_config
from unirs.models.importers.gemma3 import gemma3
from unirs.models.importers.hf_family import read_family
from unirs.models.importers.idefics3 import idefics3
from unirs.models.importers.internvl import internvl
from unirs.models.importers.llava import llava
from unirs.models.importers.llava_onevision import llava_onevision
from unirs.models.importers.vila import VILA_FOLDERS, read_vila
from unirs.models.model_files import loading
from unirs.models.pretrained import Pretrained
from unirs.utils.sources import resolve_source

FAMILIES = {
    "gemma3": ("Gemma3ForConditionalGeneration", gemma3),
    "idefics3": ("Idefics3ForConditionalGeneration", idefics3),
    "internvl": ("InternVLForConditionalGeneration", internvl),
    "llava": ("LlavaForConditionalGeneration", llava),
    "llava_onevision": ("LlavaOnevisionForConditionalGeneration", llava_onevision),
    "smolvlm": ("SmolVLMForConditionalGeneration", idefics3),
}
"""By `model_type`: the class in `transformers`, and the function that describes its checkpoints."""

_MROPE = "its language model has positions in three dimensions (M-RoPE), and an image takes fewer positions than tokens"
REFUSED = {
    "llava_next": "it encodes an image as several tiles, whose number depends on the image's shape",
    "paligemma": "its visual tokens attend to the question, so that questions about an image cannot share its tokens",
    "qwen2_vl": _MROPE,
    "qwen2_5_vl": f"{_MROPE}; its vision tower has window attention over images of any size",
    "qwen3_vl": f"{_MROPE}; features of several vision layers are added inside the language model (DeepStack)",
}
"""By `model_type`: why a family cannot be converted exactly."""


def read_checkpoint(source: Path) -> Pretrained:
    """Reads another program's checkpoint as a model in evaluation mode with frozen weights.

    Raises:
        ModelError: the folder has none of the layouts, its weights do not fit (lists the keys), or the model computes
            something that UniRS does not.
        DataError: a file of it is missing or broken.
    """
    missing = [f"{name}/config.json" for name in VILA_FOLDERS if not (source / name / "config.json").is_file()]
    with loading(source):
        resolve_source(str(source))
        if not missing:
            return read_vila(source)
        if (source / "config.json").is_file():
            model_type = str(read_config(source).get("model_type"))
            if model_type in FAMILIES:
                return read_family(source, *FAMILIES[model_type])
            if model_type in REFUSED:
                raise ModelError(f"{source} is of type '{model_type}', which is not converted: {REFUSED[model_type]}.")
    raise ModelError(
        f"{source} is no checkpoint that UniRS reads. A training run has a config.yaml; a saved model has UniRS's "
        f"config.json; other models have a config.json with a model_type of {', '.join(FAMILIES)}; of the folders of "
        f"VILA-1.5 and UniRS it lacks {', '.join(missing)}."
    )
