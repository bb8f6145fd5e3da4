"""`unirs convert`: converts another program's checkpoint, a training run or a saved model to a saved model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from unirs.errors import UniRSError
from unirs.utils.io import check_writable

if TYPE_CHECKING:
    from unirs.inference.api import UniRS


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a VILA-1.5 or UniRS folder (llm/, vision_tower/, mm_projector/), a training run, "
        "a saved model, or a LLaVA, LLaVA-OneVision, Idefics3, SmolVLM, InternVL or Gemma 3 folder of transformers",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="a new folder, or that of an earlier result, which is replaced"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that the model's config names by file or dotted path"
    )
    result = parser.add_mutually_exclusive_group()
    result.add_argument("--merge", action="store_true", help="merge LoRA adapters into the weights")
    result.add_argument(
        "--adapter", action="store_true", help="write only the language model's LoRA adapters, as a PEFT folder"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from transformers.utils import logging

    from unirs.utils.progress import progress_bar

    check_writable(options.out.parent, "Name another OUT.")
    if not options.source.exists():
        raise UniRSError(f"{options.source} does not exist. Correct the path.")
    logging.disable_progress_bar()
    with progress_bar("read", 2, unit="steps") as advance:
        model = _read(options)
        advance(description="write")
        if options.adapter:
            model.save_adapter(options.out)
        else:
            model = model.merged() if options.merge else model
            model.save_pretrained(options.out)
        advance()
    if options.adapter:
        print(f"Written to {options.out}. Load it with peft.PeftModel.from_pretrained(base, '{options.out}').")
        return
    for name, component in model.model.named_children():
        count = sum(parameter.numel() for parameter in component.parameters())
        print(f"{name:<10} {type(component).__name__}, {count:,} parameters")
    prompts = model.config.prompts
    print(f"{'prompts':<10} {', '.join(f'{name} ({prompt.modality})' for name, prompt in prompts.items())}")
    print(f"\nWritten to {options.out}. Try: unirs predict {options.out} IMAGE --question 'What is shown?'")


def _read(options: argparse.Namespace) -> "UniRS":
    from unirs.inference.api import UniRS
    from unirs.models.importers import read_checkpoint
    from unirs.models.pretrained import is_saved_model

    if (options.source / "config.yaml").is_file() or is_saved_model(options.source):
        return UniRS.from_pretrained(options.source, device="cpu", trust_remote_code=options.trust_remote_code)
    return UniRS(*read_checkpoint(options.source))
