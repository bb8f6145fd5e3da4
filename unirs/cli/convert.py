"""`unirs convert`: another program's checkpoint, or a training run, as a saved model."""

import argparse
from pathlib import Path


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a VILA-1.5 or UniRS folder (llm/, vision_tower/, mm_projector/), a Hugging Face LLaVA folder, or a run",
    )
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="a new folder, or that of an earlier saved model, which is replaced"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from unirs.cli import hide_warnings

    hide_warnings()
    from unirs.models.importers import read_checkpoint

    converted = read_checkpoint(options.source)
    converted.save_pretrained(options.out)
    for name, part in converted.model.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        print(f"{name:<10} {type(part).__name__}, {count:,} parameters")
    prompts = converted.config.prompts
    print(f"{'prompts':<10} {', '.join(f'{name} ({prompt.modality})' for name, prompt in prompts.items())}")
    print(f"\nWritten to {options.out}. Try: unirs predict {options.out} PICTURE --question 'What is shown?'")
