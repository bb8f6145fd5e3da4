"""Training on images, pairs and 8-frame videos: UniRS compared with LLaVA and `transformers.Trainer`.

    python benchmarks/speed/train.py

Both sides have the same components (see components.py): a frozen vision tower, a trained projector, and SmolLM2-135M
with LoRA. Samples, tokens, precision, optimiser and threads are the same too, and the losses of the same samples must
be equal. Of 100 media about 87 are images with eight questions each, 9 pairs with five captions and 4 videos, the
mixture that results from the paper's weights 1, 5 and 10 of its three data sets. A sample is one answer. UniRS uses its
default token trees. LLaVA has a row for each answer, after the images; or a row for each medium, a conversation of all
its questions and answers, which computes images once, but trains each answer after those to other questions.

UniRS's first epoch starts with an empty feature cache; steady state is the mean of later epochs. LLaVA's epochs are
equal.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from components import components, pixels, token_ids
from lightning import Callback, LightningModule, Trainer
from measure import Row, rates, report
from torch.utils.data import Dataset
from transformers import LlavaForConditionalGeneration, SiglipImageProcessorPil, TrainingArguments
from transformers import Trainer as HuggingFaceTrainer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from unirs.data.batch import Batch
from unirs.data.collator import Collator
from unirs.data.datamodule import UniRSDataModule
from unirs.data.dataset import Example, VisualInput
from unirs.data.prompt_encoder import PromptEncoder
from unirs.data.token_tree import IGNORE, TokenTree
from unirs.models.builder import ProjectorConfig
from unirs.models.dtypes import resolve_dtype
from unirs.models.llm import LLMConfig
from unirs.models.tuning import Lora, set_tuning
from unirs.tasks.media import Media
from unirs.tasks.sample import Sample, TaskSplit
from unirs.training.module import UniRSModule
from unirs.training.optim import OptimConfig
from unirs.utils.process import tune_process

BATCH = 16
# Rows of LLaVA, and media of UniRS, per forward pass, with gradient accumulation: 16 rows need more than 16 GB.
PER_PASS = 2
OPTIM = OptimConfig(lr=1e-4)
QUESTIONS = 8


@dataclass(frozen=True)
class Work:
    """Components and data of both sides.

    Attributes:
        folder: the components.
        data: the tasks' entries in a config.
        counts: number of samples of each task.
        dtype: of the weights.
    """

    folder: Path
    data: list[dict[str, Any]]
    counts: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def synthetic(cls, folder: Path, data: Path, counts: tuple[int, ...], dtype: torch.dtype) -> "Work":
        """Work with synthetic data, generated in a folder."""
        tasks: list[dict[str, Any]] = [
            {"name": "rsvqa_lr", "protocol": "rsvqa", "synthetic": {"size": 64, "seed": 0}},
            {"name": "levir_cc", "synthetic": {"size": 64, "seed": 0}},
            {"name": "era", "synthetic": {"size": 30, "seed": 0}},
        ]
        return cls(folder, [{**task, "root": str(data / task["name"])} for task in tasks], counts, dtype)

    def read(self, cache: Path) -> UniRSDataModule:
        """UniRS's datamodule."""
        data = UniRSDataModule(self.data, batch_size=PER_PASS, max_turns=QUESTIONS, feature_cache=cache)
        data.prepare_data()
        for task, count in zip(data.tasks, self.counts, strict=True):
            # The same samples for both sides, in the numbers of the mixture.
            samples = [replace(one, turns=one.turns[:QUESTIONS]) for one in data.split(task, "train")[:count]]
            data._splits[task, "train"] = TaskSplit(samples)
        return data

    def module(self) -> UniRSModule:
        """UniRS's model, with the initial weights of LLaVA's projector."""
        module = UniRSModule(
            encoder={"name": "hf", "source": str(self.folder / "vision_tower"), "dtype": _name(self.dtype)},
            llm=LLMConfig(source=str(self.folder / "llm"), tune="lora", dtype=_name(self.dtype)),  # type: ignore[arg-type]
            projector=ProjectorConfig(name="mlp"),
            optim=OPTIM,
            loss="token_mean",
        )
        state = _llava(self).model.multi_modal_projector.state_dict()
        names = {"linear_1": "expand", "linear_2": "out"}
        module.model.projector.load_state_dict(
            {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value.float() for key, value in state.items()}
        )
        return module


class Clock(Callback):
    """Measures the seconds of each epoch by a clock `now`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Starts the clock."""
        self._start = self.now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Stops the clock."""
        self.seconds.append(self.now() - self._start)


def train_ours(work: Work, epochs: int, now: Callable[[], float]) -> list[float]:
    """Seconds of each of UniRS's epochs, the first one with an empty cache."""
    clock = Clock(now)
    with TemporaryDirectory() as cache:
        trainer = Trainer(
            max_epochs=epochs,
            accumulate_grad_batches=BATCH // PER_PASS,
            accelerator="auto",
            devices=1,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
            default_root_dir=cache,
            callbacks=[clock],
        )
        module, data = work.module(), work.read(Path(cache))
        data.processor = module.processor
        trainer.fit(module, datamodule=data)
    return clock.seconds


class Rows(Dataset[dict[str, Any]]):
    """LLaVA's samples: tokenized in advance, with images decoded and processed on access."""

    def __init__(
        self,
        rows: Sequence[tuple[Media, Sequence[TokenTree]]],
        tokenizer: PreTrainedTokenizerBase,
        processor: SiglipImageProcessorPil,
    ) -> None:
        self.rows = [(media, *_conversation(trees, tokenizer)) for media, trees in rows]
        self.processor = processor
        self.pad = int(tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        media, ids, labels = self.rows[index]
        return {"ids": ids, "labels": labels, "pixels": pixels(self.processor, media)}

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pads rows on the right to the longest."""
        longest = max(len(row["ids"]) for row in rows)

        def pad(key: str, fill: int) -> torch.Tensor:
            return torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])

        mask = [[1] * len(row["ids"]) + [0] * (longest - len(row["ids"])) for row in rows]
        return {
            "input_ids": pad("ids", self.pad),
            "labels": pad("labels", IGNORE),
            "attention_mask": torch.tensor(mask),
            "pixel_values": torch.cat([row["pixels"] for row in rows]),
        }


def _conversation(trees: Sequence[TokenTree], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Token ids and labels of turns one after the other; the images precede the first."""
    ids, labels = token_ids(trees[0], tokenizer), list(trees[0].labels)
    for tree in trees[1:]:
        text = [not visual for visual in tree.visual_mask]
        ids += compress(tree.input_ids, text)
        labels += compress(tree.labels, text)
    return ids, labels


def _llava(work: Work) -> LlavaForConditionalGeneration:
    llava = LlavaForConditionalGeneration.from_pretrained(work.folder / "llava", dtype=work.dtype)
    llava.requires_grad_(False)
    set_tuning(llava.model.language_model, "lora", Lora())
    llava.model.multi_modal_projector.requires_grad_(True)
    return llava


def _rows(work: Work, cache: Path) -> tuple[Rows, Rows]:
    """LLaVA's rows, one for each answer, and one for each medium."""
    module, data = work.module(), work.read(cache)
    tokenizer = module.processor.require_tokenizer()
    prompt_encoder = PromptEncoder(tokenizer)
    conversations: list[tuple[Media, list[TokenTree]]] = []
    for name, task in data.tasks.items():
        for sample in data.split(name, "train"):
            trees = prompt_encoder.encode_train_flat(
                task.task.prompt, sample, sample.media.num_frames, module.model.projector.num_tokens
            )
            conversations.append((sample.media, trees))
    pil = SiglipImageProcessorPil.from_pretrained(work.folder / "llava")
    single = [(media, [tree]) for media, trees in conversations for tree in trees]
    return Rows(single, tokenizer, pil), Rows(conversations, tokenizer, pil)


def train_baseline(work: Work, rows: Rows, now: Callable[[], float]) -> float:
    """Seconds of one of LLaVA's epochs."""
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=PER_PASS,
            gradient_accumulation_steps=BATCH // PER_PASS,
            learning_rate=OPTIM.lr,
            lr_scheduler_type="cosine",
            max_grad_norm=1.0,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
            seed=0,
        )
        trainer = HuggingFaceTrainer(_llava(work), arguments, data_collator=rows.collate, train_dataset=rows)
        start = now()
        trainer.train()
        return now() - start


@torch.no_grad()
def check_loss(work: Work) -> float:
    """Difference of the losses of the same samples, as LLaVA's rows and as UniRS's packed trees, in float32.

    Raises:
        SystemExit: the difference is above 1e-4.
    """
    work = replace(work, dtype=torch.float32, counts=(1, 1, 1))
    with TemporaryDirectory() as cache:
        rows, _ = _rows(work, Path(cache))
        module, data, llava = work.module(), work.read(Path(cache)), _llava(work)
        # The same non-zero adapters on both sides.
        own = dict(module.model.llm.base_model.named_parameters())
        for name, value in llava.model.language_model.named_parameters():
            if "lora_" in name:
                value.copy_(own[name].normal_(std=0.05))
        batch = _batch(module.eval(), data, [(name, data.split(name, "train")[0]) for name in data.tasks])
        ours = float(module.model.loss(batch, "token_mean"))
        llava.eval()
        losses = [llava(**rows.collate([rows[index]])).loss for index in range(len(rows))]
        counts = torch.tensor([sum(label != IGNORE for label in labels) for _, _, labels in rows.rows])
        baseline = float((torch.stack(losses) * counts).sum() / counts.sum())
    if not abs(ours - baseline) <= 1e-4:
        raise SystemExit(f"The losses of the same samples differ: {ours} and {baseline}.")
    return abs(ours - baseline)


def loaded(work: Work, cache: Path, device: torch.device) -> tuple[UniRSModule, list[Batch]]:
    """The model in training mode, and an epoch's batches with features of the frozen encoder."""
    module, data = work.module().to(device), work.read(cache)
    every = [(name, sample) for name in data.tasks for sample in data.split(name, "train")]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).tolist()
    batches = []
    for start in range(0, len(every), PER_PASS):
        batch = _batch(module, data, [every[index] for index in order[start : start + PER_PASS]]).to(device)
        with torch.no_grad():
            batches.append(replace(batch, vision_features=module.model.encode_frames(batch)))
    return module.train(), batches


def _batch(module: UniRSModule, data: UniRSDataModule, samples: Sequence[tuple[str, Sample]]) -> Batch:
    data.processor = processor = module.processor
    collate = Collator(processor, training=True)
    return collate(
        [
            (Example(task, sample), VisualInput(sample.media.load_frames(processor.image_size, processor.resize)))
            for task, sample in samples
        ]
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> None:
    """Compares both sides with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, nargs=3, default=[12, 1, 1], metavar=("IMAGES", "PAIRS", "VIDEOS"))
    parser.add_argument("--rounds", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny components, to try the script")
    parser.add_argument("--busy", action="store_true", help="measure processor time, for a busy machine")
    options = parser.parse_args()
    tune_process()
    now = time.process_time if options.busy else time.perf_counter
    options.dtype = resolve_dtype(options.dtype, "lora")
    with components(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        work = Work.synthetic(folder, Path(data), tuple(options.media), getattr(torch, options.dtype))
        difference = check_loss(work)
        print(f"Difference of the losses of the same samples: {difference:.1e}.")
        rows, conversations = _rows(work, Path(data) / "features")
        count = len(rows)
        first: list[float] = []
        steady: list[float] = []
        by_answer: list[float] = []
        by_medium: list[float] = []
        for _ in range(options.rounds):
            seconds = train_ours(work, 3, now)
            first.append(seconds[0])
            steady.append(statistics.mean(seconds[1:]))
            by_answer.append(train_baseline(work, rows, now))
            by_medium.append(train_baseline(work, conversations, now))
            print(f"seconds of UniRS's epochs {seconds}, of LLaVA's {by_answer[-1]}, {by_medium[-1]}", flush=True)
    report(
        "train.py",
        [
            *(
                rates(f"training, {epoch}, {options.dtype}, LLaVA with {name}", count, "samples", (ours, baseline))
                for epoch, ours in (("steady state", steady), ("first epoch", first))
                for name, baseline in (("a row per answer", by_answer), ("a conversation per medium", by_medium))
            ),
            Row("loss of the same samples, difference", difference, None, "nats", None),
        ],
    )


if __name__ == "__main__":
    main()
