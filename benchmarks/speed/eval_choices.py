"""Choice scoring of 25 classes for videos: UniRS compared with one forward pass per class.

    python benchmarks/speed/eval_choices.py

The components are the same (see components.py), in float32. The baseline works like evaluation harnesses with closed
answers: each class is a separate request, a forward pass of LLaVA over the frames, the prompt and the class's text.
Rankings must
be equal, and log-likelihoods equal to 1e-4. The input of both sides is files, the output log-likelihoods.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from components import components, pixels, token_ids
from measure import in_turn, rates, report
from transformers import LlavaForConditionalGeneration, SiglipImageProcessorPil

from unirs.data.dataset import Example
from unirs.data.token_tree import IGNORE
from unirs.inference.api import UniRS
from unirs.models.importers import read_checkpoint
from unirs.plugins import create
from unirs.tasks.media import Media
from unirs.tasks.sample import Sample, Turn
from unirs.tasks.task import Task
from unirs.utils.process import tune_process

CLASSES = [
    *("post-earthquake", "flood", "fire", "landslide", "mudslide", "traffic collision", "traffic congestion"),
    *("harvesting", "ploughing", "constructing", "police chase", "conflict", "baseball", "basketball", "boating"),
    *("cycling", "running", "soccer", "swimming", "car racing", "party", "concert", "parade/protest"),
    *("religious activity", "non-event"),
]
CHOICES = [f"This is a video about {name}." for name in CLASSES]


class Ours:
    """All classes of a video in one token tree."""

    def __init__(self, model: UniRS, task: Task, videos: list[Media]) -> None:
        self.model = model
        self.prompt = task.prompt
        self.examples = [Example("era", Sample(str(n), video, (Turn(str(n), ()),))) for n, video in enumerate(videos)]

    def __call__(self) -> list[list[float]]:
        """The log-likelihoods of the classes of each video."""
        rows = self.model.predict_examples({"era": self.prompt}, self.examples, choices=lambda _: CHOICES, batch_size=1)
        return [list(completion.choice_logprobs.values()) for _, completion in rows]


class Baseline:
    """One forward pass per class."""

    def __init__(self, folder: Path, ours: Ours) -> None:
        self.ours = ours
        self.model = LlavaForConditionalGeneration.from_pretrained(folder / "llava", dtype=torch.float32).eval()
        self.processor = SiglipImageProcessorPil.from_pretrained(folder / "llava")
        self.prompt_encoder = ours.model.processor.prompt_encoder()

    def __call__(self) -> list[list[float]]:
        """The log-likelihoods of the classes of each video."""
        return [[self.likelihood(example.sample, choice) for choice in CHOICES] for example in self.ours.examples]

    @torch.inference_mode()
    def likelihood(self, sample: Sample, choice: str) -> float:
        """The log-likelihood of one class."""
        answered = Sample(sample.id, sample.media, (Turn("", (choice,)),))
        tokens = self.ours.model.model.projector.num_tokens
        tree = self.prompt_encoder.encode_train(self.ours.prompt, answered, sample.media.num_frames, tokens)
        logits = self.model(
            input_ids=torch.tensor([token_ids(tree, self.ours.model.tokenizer)]),
            pixel_values=pixels(self.processor, sample.media),
        ).logits[0]
        labels = torch.tensor(tree.labels[1:])
        logprobs = logits[:-1].log_softmax(-1).gather(1, labels.clamp_min(0).unsqueeze(1)).squeeze(1)
        return float(logprobs[labels != IGNORE].double().sum())


def main() -> None:
    """Compares both sides with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny components, to try the script")
    options = parser.parse_args()
    tune_process()
    with components(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        task: Task = create("unirs.tasks", {"name": "era", "root": Path(data) / "era", "num_frames": options.frames})
        if task.synthesize is not None:
            task.synthesize(30, 0)
        videos = [sample.media for sample in task.load_split("train")[: options.videos]]
        ours = Ours(UniRS(*read_checkpoint(folder / "llava")), task, videos)
        baseline = Baseline(folder, ours)
        for own, other in zip(ours(), baseline(), strict=True):
            difference = max(abs(a - b) for a, b in zip(own, other, strict=True))
            order = [sorted(range(len(CHOICES)), key=scores.__getitem__) for scores in (own, other)]
            if difference > 1e-4 or order[0] != order[1]:
                raise SystemExit(f"Rankings differ; the largest difference of log-likelihoods is {difference}.")
        seconds = in_turn(ours, baseline, rounds=options.rounds, warmup=0)
    name = f"scoring {len(CHOICES)} classes, videos of {options.frames} frames"
    report("eval_choices.py", [rates(name, options.videos, "videos", seconds)])


if __name__ == "__main__":
    main()
