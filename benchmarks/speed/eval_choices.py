"""The likeliest of 25 classes for videos: UniRS's ranking against a likelihood pass for each class.

    python benchmarks/speed/eval_choices.py

The components are the same (see parts.py), in float32. The baseline works like evaluation harnesses with closed
answers: each class is a separate request, a forward pass of LLaVA over the frames, the prompt and the class's text.
Rankings must
be the same, and the logarithms of the probabilities within 1e-4. Files in, ranking out, on both sides.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import in_turn, rates, report
from parts import parts, pixels, token_ids
from transformers import LlavaForConditionalGeneration, SiglipImageProcessorPil

from unirs.data.dataset import Example
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE
from unirs.inference.api import UniRS
from unirs.models.importers import read_checkpoint
from unirs.plugins import create
from unirs.tasks.media import Media
from unirs.tasks.sample import Sample, Turn
from unirs.tasks.task import Task

CLASSES = [
    *("post-earthquake", "flood", "fire", "landslide", "mudslide", "traffic collision", "traffic congestion"),
    *("harvesting", "ploughing", "constructing", "police chase", "conflict", "baseball", "basketball", "boating"),
    *("cycling", "running", "soccer", "swimming", "car racing", "party", "concert", "parade/protest"),
    *("religious activity", "non-event"),
]
CHOICES = [f"This is a video about {name}." for name in CLASSES]


class Ours:
    """All classes of a video in one go."""

    def __init__(self, model: UniRS, task: Task, shown: list[Media]) -> None:
        self.model = model
        self.prompt = task.prompt
        self.items = [Example("era", Sample(str(n), media, (Turn(str(n), ()),))) for n, media in enumerate(shown)]

    def __call__(self) -> list[list[float]]:
        """The log-likelihoods of the classes of each video."""
        rows = self.model.predict_examples({"era": self.prompt}, self.items, choices=lambda _: CHOICES, batch_size=1)
        return [list(completion.choice_logprobs.values()) for _, completion in rows]


class Baseline:
    """A pass for each class."""

    def __init__(self, folder: Path, ours: Ours) -> None:
        self.ours = ours
        self.model = LlavaForConditionalGeneration.from_pretrained(folder / "llava", dtype=torch.float32).eval()
        self.processor = SiglipImageProcessorPil.from_pretrained(folder / "llava")
        self.prompt_encoder = PromptEncoder(ours.model.tokenizer)

    def __call__(self) -> list[list[float]]:
        """The log-likelihoods of the classes of each video."""
        return [[self.likelihood(item.sample, choice) for choice in CHOICES] for item in self.ours.items]

    @torch.inference_mode()
    def likelihood(self, sample: Sample, choice: str) -> float:
        """Of one class."""
        asked = Sample(sample.id, sample.media, (Turn("", (choice,)),))
        tokens = self.ours.model.model.projector.num_tokens
        sequence = self.prompt_encoder.encode_train(self.ours.prompt, asked, sample.media.num_frames, tokens)
        logits = self.model(
            input_ids=torch.tensor([token_ids(sequence, self.ours.model.tokenizer)]),
            pixel_values=pixels(self.processor, sample.media),
        ).logits[0]
        labels = torch.tensor(sequence.labels[1:])
        logprobs = logits[:-1].log_softmax(-1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
        return float(logprobs[labels != IGNORE].double().sum())


def main() -> None:
    """Compares what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny parts, to try the script")
    options = parser.parse_args()
    with parts(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        task: Task = create("unirs.tasks", {"name": "era", "root": Path(data) / "era", "num_frames": options.frames})
        if task.synthesize is not None:
            task.synthesize(30, 0)
        shown = [sample.media for sample in task.load_split("train")[: options.videos]]
        ours = Ours(UniRS(*read_checkpoint(folder / "llava")), task, shown)
        baseline = Baseline(folder, ours)
        for own, other in zip(ours(), baseline(), strict=True):
            apart = max(abs(a - b) for a, b in zip(own, other, strict=True))
            order = [sorted(range(len(CHOICES)), key=scores.__getitem__) for scores in (own, other)]
            if apart > 1e-4 or order[0] != order[1]:
                raise SystemExit(f"The sides rank differently; log-likelihoods are up to {apart} apart.")
        seconds = in_turn(ours, baseline, rounds=options.rounds, warmup=0)
    name = f"ranking {len(CHOICES)} classes, videos of {options.frames} frames"
    report("eval_choices.py", [rates(name, options.videos, "videos", seconds)])


if __name__ == "__main__":
    main()
