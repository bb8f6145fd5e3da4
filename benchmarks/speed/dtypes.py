"""Training steps of the recipes in `configs/` in float32 and in bfloat16, with fewer instructions of the processor.

    python benchmarks/speed/dtypes.py

Models have the recipe's architecture and tuning, and random weights; a batch is one image with four questions, whose
features are not cached. `bfloat16` is what `auto` chooses on a processor with instructions for it: mixed precision,
and frozen weights in bfloat16. Each limit of oneDNN's instructions needs a process of its own, in which steps of both
dtypes alternate. Processor time of one thread is measured, not elapsed time, so that other programs matter less. What
does not fit in memory is skipped, with a message.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import yaml
from components import SIGLIP_BASE, questions
from measure import Row, report
from transformers import AutoConfig, AutoModelForCausalLM

from unirs.data.collator import Collator
from unirs.data.dataset import Example, VisualInput
from unirs.factory import create_change_extractor, create_encoder
from unirs.models.builder import build_processor
from unirs.models.dtypes import bfloat16_unit
from unirs.models.llm import LLMConfig, set_llm_tuning, train_tokenizer
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Image
from unirs.tasks.prompt import PromptTemplate, VisualFormat
from unirs.tasks.sample import Sample, Turn
from unirs.training.optim import OptimConfig, build_optimizer

CONFIGS = Path(__file__).parents[2] / "configs"
HALF = [0.5] * 3
SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
VILA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "vocab_size": 32000,
}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
SIGLIP = {"name": "hf", "pretrained": "given", "mean": HALF, "std": HALF}
VILA_ENCODER = {
    **SIGLIP,
    "config": {"model_type": "siglip_vision_model", **SO400M, "image_size": 384, "patch_size": 14},
}
SMOLVLM_ENCODER = {
    **SIGLIP,
    "config": {"model_type": "siglip_vision_model", **SIGLIP_BASE, "image_size": 512, "patch_size": 16},
}
SOURCES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "smolvlm": (SMOLVLM_ENCODER, SMOLLM2, {"name": "pixel_shuffle", "mlp": False}),
    "unirs_3b": (VILA_ENCODER, VILA, {"name": "downsample"}),
    "unirs_3b_change": (VILA_ENCODER, VILA, {"name": "downsample"}),
}
"""Encoder, language model and projector of recipes that start from a converted model."""
LIMITS = ("DEFAULT", "AVX512_CORE", "AVX2")


def build(name: str, dtype: str) -> UniRSModel:
    """A recipe's model with random weights."""
    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["model"]
    if name in SOURCES:
        encoder_options, llm_config, projector = SOURCES[name]
    else:
        dropped = ("weights", "by_order")
        encoder_options = {key: value for key, value in recipe["encoder"].items() if key not in dropped}
        encoder_options["pretrained"] = "given"
        llm_config, projector = recipe["llm"].get("config", SMOLLM2), {"name": "downsample"}
    tune = recipe["llm"].get("tune", "full")
    if encoder_options["name"] == "hf":
        encoder_options = {**encoder_options, "dtype": dtype}
    encoder = create_encoder(**encoder_options)
    change = (
        create_change_extractor("change_extraction", encoder.grid, encoder.embed_dim) if "change" in recipe else None
    )
    config = AutoConfig.for_model(**{"vocab_size": 1024, **llm_config})
    llm = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if tune == "full" else getattr(torch, dtype))
    set_llm_tuning(llm, LLMConfig(source=name, tune=tune), [])
    return UniRSModel(encoder, change, llm, projector)


def gigabytes(name: str) -> float:
    """Memory of the weights in both dtypes, and of gradients and optimizer states of trained ones."""
    with torch.device("meta"):
        config = AutoConfig.for_model(**(SOURCES[name][1] if name in SOURCES else SMOLLM2))
        size = sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())
    return size * (16 if name == "unirs_3b" else 6) / 1e9


def measure_steps(name: str, rounds: int) -> dict[str, float]:
    """Least processor time of a step in each dtype."""
    # Threads that wait take processor time, too.
    torch.set_num_threads(1)
    turns = tuple(Turn(str(n), ("yes",), {"question": text}) for n, text in enumerate(questions(4, 0)))
    sample = Sample("s", Image("a.png"), turns)
    steps = {}
    for dtype in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = build(name, dtype).train()
        processor = build_processor(model, train_tokenizer(questions(50, 1), 512), VisualFormat())
        frames = torch.zeros(1, 3, *(processor.image_size or ()), dtype=torch.uint8)
        collator = Collator(processor, training=True, prompts={"vqa": PromptTemplate("vqa", "{question}")})
        steps[dtype] = (
            model,
            collator([(Example("vqa", sample), VisualInput(frames))]),
            build_optimizer(model, OptimConfig(), None, None),
        )
    least = dict.fromkeys(steps, float("inf"))
    for number in range(rounds + 1):
        for dtype, (model, batch, optimizer) in steps.items():
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16) if dtype == "bfloat16" else nullcontext():
                loss = model.loss(batch, "token_mean")
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            # The first round warms up.
            if number:
                least[dtype] = min(least[dtype], time.process_time() - start)
    return least


def main() -> None:
    """Measures the recipes and limits of the command line."""
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--limits", nargs="+", default=LIMITS, help="values of ONEDNN_MAX_CPU_ISA (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps({"unit": bfloat16_unit("cpu"), **measure_steps(options.configs[0], options.rounds)}))
        return
    rows = []
    for name in options.configs:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        if gigabytes(name) > available:
            print(f"{name}: skipped, weights and optimizer need {gigabytes(name):.0f} GB of {available:.0f}.")
            continue
        for limit in options.limits:
            environment = os.environ | {"ONEDNN_MAX_CPU_ISA": limit}
            if limit == "AVX2":
                environment["ATEN_CPU_CAPABILITY"] = "avx2"
            command = [sys.executable, __file__, "--one", "--configs", name, "--rounds", str(options.rounds)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
            found = json.loads(done.stdout.splitlines()[-1])
            chosen, other = ("bfloat16", "float32") if found["unit"] else ("float32", "bfloat16")
            text = f"{name}, {limit}: {chosen} chosen, against {other}"
            rows.append(Row(text, 1 / found[chosen], 1 / found[other], "steps/s", found[other] / found[chosen]))
            print(f"{text}: {found}", flush=True)
    report("dtypes.py", rows)


if __name__ == "__main__":
    main()
