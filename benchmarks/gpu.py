"""Training and evaluation at the sizes of the paper on a GPU, with random weights: nothing is downloaded.

    python benchmarks/gpu.py                                # one GPU, at most eight minutes
    torchrun --nproc_per_node 8 benchmarks/gpu.py           # the recipe's training step on eight GPUs
    python benchmarks/gpu.py --small                        # tiny sizes on a CPU, to try the script

A frozen SigLIP-so400m with a change extractor, and a language model of 2.7 billion weights (configs/unirs_3b.yaml) or
of SmolLM2-135M's sizes. Each section runs in a process of its own with a limit of time; what does not fit or fails is a
row that says so. A training batch has four samples, as in the recipe: two images with eight questions each, a pair with
five captions, and a video of eight frames. Steps encode the frames, as in a first epoch.

`share` is that of the fastest square matrix product in the same process. Counted are the operations of matrix products
in the forward pass, with dense masks, twice as many in the backward pass of trained weights, and as many in that of
frozen ones; those that gradient checkpointing repeats are not. Evaluation answers 64 questions per image. The baseline
is `generate` of transformers with the same modules, on left-padded batches of 16 rows, each with its image.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from unirs.data.batch import Batch, tree_attention_mask
from unirs.data.block_mask import tree_block_mask
from unirs.data.collator import Collator
from unirs.data.dataset import Example, VisualInput
from unirs.data.processor import Processor
from unirs.errors import DataError
from unirs.factory import create_change_extractor, create_encoder
from unirs.inference.generation import decode
from unirs.models.builder import build_processor
from unirs.models.flex_attention import register
from unirs.models.llm import LLMConfig, quantize_llm, set_llm_tuning, train_tokenizer
from unirs.models.tuning import TuningMode
from unirs.models.unirs_model import UniRSModel
from unirs.tasks.media import Image, Media, Pair, Video
from unirs.tasks.prompt import PromptTemplate, VisualFormat
from unirs.tasks.sample import Sample, Turn
from unirs.training.optim import OptimConfig, build_optimizer
from unirs.utils.tables import to_text

PROMPTS = {"vqa": PromptTemplate("vqa", "{question}\nAnswer the question using a single word or phrase.")}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
LLAMA = {"model_type": "llama", "attention_dropout": 0.0}
SHEARED_LLAMA = {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32, "num_attention_heads": 20}
SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
TINY = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LIMIT, GPU_BYTES = 480, 80e9


@dataclass(frozen=True)
class Work:
    """Sizes of the work.

    Attributes:
        device: of all tensors.
        small: tiny sizes.
    """

    device: torch.device
    small: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of frozen weights and of products."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence of the recipe."""
        return 512 if self.small else 4096

    def encoder_options(self) -> dict[str, Any]:
        """Those of the encoder plugin `hf`."""
        sizes = (
            {**TINY, "image_size": 32, "patch_size": 8}
            if self.small
            else {**SO400M, "image_size": 384, "patch_size": 14}
        )
        half = [0.5] * 3
        config = {"model_type": "siglip_vision_model", **sizes}
        return {"config": config, "pretrained": "given", "mean": half, "std": half, "dtype": str(self.dtype)[6:]}

    def llm_config(self, name: str) -> dict[str, Any]:
        """That of the language model `2.7B` or `135M`."""
        if self.small:
            return {**LLAMA, **TINY, "vocab_size": 512}
        if name == "2.7B":
            return {**LLAMA, **SHEARED_LLAMA, "vocab_size": 32000, "max_position_embeddings": 4096}
        more = {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
        return {**LLAMA, **SMOLLM2, **more, "max_position_embeddings": 8192}

    def build(self, name: str, tune: TuningMode) -> UniRSModel:
        """A model with random weights on the device; weights that are trained are float32."""
        torch.manual_seed(0)
        with torch.device(self.device):
            encoder = create_encoder("hf", **self.encoder_options())
            change = create_change_extractor("change_extraction", encoder.grid, encoder.embed_dim)
            llm: PreTrainedModel = AutoModelForCausalLM.from_config(
                AutoConfig.for_model(**self.llm_config(name)),
                dtype=torch.float32 if tune == "full" else self.dtype,
                attn_implementation="sdpa",
            )
            set_llm_tuning(llm, LLMConfig(source=name, tune=tune), [])
            model = UniRSModel(encoder, change, llm)
        # As in the recipe of the paper.
        model.projector.requires_grad_(False)
        as_module(change).requires_grad_(False)
        return model.to(self.device)


def as_module(component: object) -> nn.Module:
    """A component as a module."""
    if not isinstance(component, nn.Module):
        raise TypeError(f"{type(component).__name__} is no module.")
    return component


class Batches:
    """Batches of random frames and questions for a model."""

    def __init__(self, model: UniRSModel, work: Work) -> None:
        tokenizer = train_tokenizer([_question(number) + " yes no" for number in range(100)], 512)
        self.processor: Processor = build_processor(model, tokenizer, VisualFormat(), max_length=work.max_length)
        self.device = work.device

    def collate(self, samples: Sequence[Sample], *, training: bool) -> Batch:
        """A batch on the device, with random frames."""
        size = self.processor.image_size
        generator = torch.Generator().manual_seed(0)
        items = [
            (
                Example("vqa", sample),
                VisualInput(
                    torch.randint(
                        0, 256, (sample.media.num_frames, 3, *(size or ())), dtype=torch.uint8, generator=generator
                    )
                ),
            )
            for sample in samples
        ]
        return Collator(self.processor, training=training, prompts=PROMPTS)(items).to(self.device)

    def recipe(self) -> Batch:
        """Four samples of the three modalities."""
        image, video = Image("a.png"), Video("a.mp4", 8)
        captions = Turn("t", tuple(_question(number) for number in range(5)), {"question": "Describe the change."})
        samples = [
            _sample(image, 8),
            _sample(image, 8),
            Sample("p", Pair("a.png", "b.png"), (captions,)),
            _sample(video, 1),
        ]
        return self.collate(samples, training=True)

    def longest(self) -> Batch:
        """Four images, each with as many questions as the maximum length allows."""
        encoder, tokens = self.processor.prompt_encoder(), self.processor.tokens_per_image
        count = 1
        while count < 1000:
            try:
                encoder.encode_train(PROMPTS["vqa"], _sample(Image("a.png"), count + 4), 1, tokens)
            except DataError:
                break
            count += 4
        return self.collate([_sample(Image("a.png"), count)] * 4, training=True)


def _question(number: int) -> str:
    return f"Are there more buildings of {number} floors than roads to the north of lake {number * 7 % 100}?"


def _sample(media: Media, count: int) -> Sample:
    turns = (Turn(str(number), ("yes",), {"question": _question(number)}) for number in range(count))
    return Sample("s", media, tuple(turns))


class Report:
    """Writes rows as they are measured, so that a limit of time keeps the ones before."""

    def __init__(self, path: Path, section: str) -> None:
        self.path, self.section = path, section

    def add(self, variant: str, **values: Any) -> None:  # noqa: ANN401 - columns of the table
        """Writes a row."""
        with self.path.open("a") as file:
            file.write(json.dumps({"section": self.section, "variant": variant, **values}) + "\n")

    @contextmanager
    def trying(self, variant: str) -> Iterator[None]:
        """Reports an error of the block as a row."""
        try:
            yield
        except torch.OutOfMemoryError:
            self.add(variant, note="out of memory")
        except Exception as error:  # noqa: BLE001 - of any library; the other rows are still measured
            self.add(variant, note=f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def seconds(call: Callable[[], object], device: torch.device, *, warmup: int = 2, rounds: int = 5) -> float:
    """Median seconds of a call."""
    taken = []
    for number in range(warmup + rounds):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        if number >= warmup:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def memory() -> float | None:
    """Reserved memory of the GPU in GB since the start of a measurement."""
    return torch.cuda.max_memory_reserved() / 1e9 if torch.cuda.is_available() else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(work: Work) -> float:
    """Operations per second of the fastest square matrix product."""
    fastest = 0.0
    for side in (256,) if work.small else (4096, 8192):
        a, b = (torch.randn(side, side, device=work.device).to(work.dtype) for _ in range(2))
        fastest = max(fastest, 2 * side**3 / seconds(lambda a=a, b=b: a @ b, work.device))  # type: ignore[misc]
    return fastest


def autocast(work: Work) -> Any:  # noqa: ANN401 - a context manager
    """Mixed precision on a GPU."""
    return torch.autocast("cuda", torch.bfloat16) if work.device.type == "cuda" else nullcontext()


@torch.no_grad()
def count_operations(model: UniRSModel, batch: Batch, work: Work, tune: TuningMode) -> int:
    """Operations of the matrix products of a training step, without repeated ones."""
    with autocast(work), FlopCounterMode(display=False) as encoding:
        model.get_inputs_embeds(batch)
    with autocast(work), FlopCounterMode(display=False) as whole:
        model.loss(batch, "token_mean")
    llm = whole.get_total_flops() - encoding.get_total_flops()
    return encoding.get_total_flops() + (3 if tune == "full" else 2) * llm


class Training:
    """Training steps of a model."""

    def __init__(self, work: Work, name: str, tune: TuningMode) -> None:
        self.work, self.tune = work, tune
        self.model = work.build(name, tune).train()
        self.optimizer = build_optimizer(self.model, OptimConfig(), None, None)
        self.trained = [value for value in self.model.parameters() if value.requires_grad]

    def step(self, loss_of: Callable[[Batch], torch.Tensor], batch: Batch) -> None:
        """One step, as the recipe's trainer takes it."""
        with autocast(self.work):
            loss = loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The paper's loss."""
        return self.model.loss(batch, "token_mean")

    def measure(self, report: Report, variant: str, batch: Batch, operations: int = 0, fastest: float = 1.0) -> None:
        """Adds a row with the time and memory of a step; without a share if `operations` is 0."""
        with report.trying(variant):
            self.optimizer.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            taken = seconds(
                lambda: self.step(self.loss, batch), self.work.device, warmup=1 if self.work.small else 2, rounds=3
            )
            rate = operations / taken
            share = {"tflops": rate / 1e12, "share": rate / fastest} if operations else {}
            reserved = memory()
            fits = f"{'fits' if reserved <= GPU_BYTES / 1e9 else 'does not fit'} 80 GB" if reserved else ""
            samples = batch.num_samples / taken
            report.add(variant, seconds=taken, rate=samples, unit="samples/s", memory_gb=reserved, note=fits, **share)


def train(report: Report, work: Work, name: str, tune: TuningMode) -> None:
    """Training steps in several variants: `+` adds to the first one."""
    training = Training(work, name, tune)
    llm, batches, fastest = training.model.llm, Batches(training.model, work), peak(work)
    batch = batches.recipe()
    shared = (batch, count_operations(training.model, batch, work, tune), fastest)
    # Full tuning of 2.7 billion weights needs checkpointing, as in the recipe.
    checkpoint = tune == "full"
    if checkpoint:
        llm.activation_checkpointing_enable({"use_reentrant": False})
    training.measure(report, f"{tune}, SDPA{', checkpointing' if checkpoint else ''}", *shared)
    longest = [batches.longest()] if checkpoint else []
    for long in longest:
        training.measure(report, f"the same, 4 x {long.input_ids.shape[1]} tokens", long)
    llm.config._attn_implementation = register()
    training.measure(report, "+ flex_attention", *shared)
    for long in longest:
        training.measure(report, f"+ flex_attention, 4 x {long.input_ids.shape[1]} tokens", long)
    llm.config._attn_implementation = "sdpa"
    if not checkpoint:
        llm.activation_checkpointing_enable({"use_reentrant": False})
        training.measure(report, "+ checkpointing", *shared)
        llm.activation_checkpointing_disable()
    layers: Any = llm.base_model.layers
    for layer in layers:
        layer.compile(backend="eager" if work.small else "inductor")
    training.measure(report, "+ torch.compile of each layer", *shared)
    for layer in layers:
        layer._compiled_call_impl = None
    if tune == "lora":
        with report.trying("+ nf4"):
            quantize_llm(llm, "nf4")
            training.measure(report, "+ nf4", *shared)


def train_on_many(report: Report, work: Work) -> None:
    """The recipe's step on all processes of `torchrun`, and the same step without the exchange of gradients."""
    torch.distributed.init_process_group("nccl" if work.device.type == "cuda" else "gloo")
    training = Training(work, "2.7B", "full")
    training.model.llm.activation_checkpointing_enable({"use_reentrant": False})
    batch, count = Batches(training.model, work).recipe(), torch.distributed.get_world_size()

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = training.model

        def forward(self, batch: Batch) -> torch.Tensor:
            return training.loss(batch)

    parallel = nn.parallel.DistributedDataParallel(Loss(), gradient_as_bucket_view=True)
    times = []
    for context in (parallel.no_sync, nullcontext):
        with context():
            times.append(seconds(lambda: training.step(parallel, batch), work.device, rounds=3))
    alone, together = times
    if torch.distributed.get_rank() == 0:
        rate = count * batch.num_samples
        for variant, taken in (("without exchange of gradients", alone), ("with it", together)):
            note = f"{alone / taken:.0%} of the rate without it"
            report.add(
                f"{count} processes, {variant}",
                seconds=taken,
                rate=rate / taken,
                unit="samples/s",
                memory_gb=memory(),
                note=note,
            )
    torch.distributed.destroy_process_group()


@torch.inference_mode()
def evaluate(report: Report, work: Work, name: str) -> None:
    """Answers to 64 questions per image, against `generate`."""
    model = work.build(name, "frozen").eval()
    # Wide enough for answers to differ between prompts, as a trained model's do.
    model.llm.get_output_embeddings().weight.mul_(20)
    batches = Batches(model, work)
    images, questions, rows, longest = (1, 6, 4, 3) if work.small else (4, 64, 16, 8)
    samples = [_sample(Image("a.png"), questions)] * images
    # No end token, so that all answers have the same length.
    settings = GenerationConfig(max_new_tokens=longest, do_sample=False, pad_token_id=0, use_cache=True)
    model.llm.generation_config = GenerationConfig()

    def ours() -> list[list[int]]:
        batch = batches.collate(samples, training=False)
        choices: list[list[list[int]]] = [[]] * len(batch.prompt_ends)
        return [ids for ids, _ in decode(model, batch, choices, end=-1, max_new_tokens=longest)]

    processor = batches.processor
    flat = [Sample("s", sample.media, (turn,)) for sample in samples for turn in sample.turns]

    def baseline() -> list[list[int]]:
        answers: list[list[int]] = []
        for start in range(0, len(flat), rows):
            processor.supports_tree_attention = False
            batch = batches.collate(flat[start : start + rows], training=False)
            processor.supports_tree_attention = True
            out = model.llm.generate(  # type: ignore[operator]
                inputs_embeds=model.get_inputs_embeds(batch),
                attention_mask=batch.token_mask().long(),
                generation_config=settings,
            )
            answers += out.tolist()
        return answers

    expected, found = baseline(), ours()
    equal = sum(one == other for one, other in zip(found, expected, strict=True)) / len(expected)
    times = []
    for variant, call in (("generate of transformers", baseline), ("UniRS", ours)):
        with report.trying(variant):
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            times.append(seconds(call, work.device, warmup=0, rounds=2))
            note = f"{times[0] / times[-1]:.1f} x, {equal:.0%} of the answers equal" if len(times) > 1 else ""
            rate = len(flat) / times[-1]
            report.add(variant, seconds=times[-1], rate=rate, unit="questions/s", memory_gb=memory(), note=note)


def compare_attention(report: Report, work: Work) -> None:
    """SDPA with a dense mask, and flex attention with block masks, of the token trees of four long rows."""
    llm = work.llm_config("2.7B")
    heads, length = llm["num_attention_heads"], work.max_length
    width, gpu = llm["hidden_size"] // heads, work.device.type == "cuda"
    # Half a prefix, and 32 branches.
    branch = length // 64
    ends = [1 << 30] * (length // 2) + [length // 2 + branch * (1 + n) for n in range(32) for _ in range(branch)]
    branch_end = torch.tensor([ends] * 4, device=work.device)
    query, key, value = (
        torch.randn(4, heads, length, width, device=work.device, dtype=work.dtype, requires_grad=gpu) for _ in range(3)
    )
    dense, block = tree_attention_mask(branch_end).unsqueeze(1), tree_block_mask(branch_end)
    flex: Any = torch.compile(flex_attention)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "SDPA, dense mask": lambda: scaled_dot_product_attention(query, key, value, attn_mask=dense),
        "flex_attention, block mask": lambda: flex(query, key, value, block_mask=block),
    }
    outputs: list[torch.Tensor] = []
    for variant, call in calls.items():
        with report.trying(variant):

            def step(call: Callable[[], torch.Tensor] = call) -> None:
                out = call()
                if gpu:
                    out.sum().backward()

            # Compiled code for CPUs needs a C++ compiler.
            with nullcontext() if gpu else torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
                outputs.append(call().detach().float())
                taken = seconds(step, work.device)
            difference = f"difference of outputs {(outputs[-1] - outputs[0]).abs().max():.1e}"
            report.add(variant, seconds=taken, note=difference if len(outputs) > 1 else "")


Section = Callable[[Report, Work], None]
SECTIONS: dict[str, tuple[int, Section]] = {
    "attention, 4 x 4096 tokens": (40, compare_attention),
    "training, 2.7 B": (150, lambda report, work: train(report, work, "2.7B", "full")),
    "training, 2.7 B, adapters": (110, lambda report, work: train(report, work, "2.7B", "lora")),
    "training, 135 M, adapters": (90, lambda report, work: train(report, work, "135M", "lora")),
    "evaluation, 2.7 B": (50, lambda report, work: evaluate(report, work, "2.7B")),
    "evaluation, 135 M": (40, lambda report, work: evaluate(report, work, "135M")),
}
"""Seconds that each may take, and its function."""


def run_section(name: str, rows: Path, arguments: Sequence[str], limit: float) -> None:
    """Runs a section in a process; its failure, or the end of its time, is a row."""
    command = [sys.executable, __file__, "--section", name, *arguments]
    try:
        done = subprocess.run(  # noqa: S603
            command, timeout=limit, capture_output=True, text=True, check=False
        )
        problem = done.stderr.strip().rpartition("\n")[2][:160] if done.returncode else ""
    except subprocess.TimeoutExpired:
        problem = f"stopped after {limit:.0f} s"
    if problem:
        Report(rows, name).add("section", note=problem)


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as text, with a header."""
    header = ["section", "variant", "seconds", "rate", "TFLOP/s", "share", "memory (GB)", "note"]
    lines = [header]
    for row in rows:
        rate = f"{row['rate']:.3g} {row['unit']}" if "rate" in row else ""
        numbers = [f"{row[key]:.3g}" if row.get(key) else "" for key in ("seconds", "tflops", "memory_gb")]
        share = f"{row['share']:.0%}" if "share" in row else ""
        lines.append(
            [row["section"], row["variant"], numbers[0], rate, numbers[1], share, numbers[2], row.get("note", "")]
        )
    return lines


def main() -> None:
    """Runs all sections, or the one of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of the table (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="tiny sizes on the CPU, to try the script")
    parser.add_argument("--section", choices=SECTIONS, help="run this one, in this process")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        raise SystemExit("There is no GPU. Try the script with --small.")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    work = Work(torch.device("cpu" if options.small else f"cuda:{rank}"), options.small)
    if options.small:
        torch.set_num_threads(1)
    else:
        torch.cuda.set_device(work.device)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = options.out / "gpu.jsonl"
    if options.section:
        SECTIONS[options.section][1](Report(rows, options.section), work)
        return
    start = time.monotonic()
    if rank == 0:
        rows.unlink(missing_ok=True)
    if "WORLD_SIZE" in os.environ:
        train_on_many(Report(rows, "training, 2.7 B"), work)
        if int(os.environ["RANK"]) > 0:
            return
    else:
        arguments = ["--out", str(options.out)]
        for name, (limit, section) in SECTIONS.items():
            if options.small and "135" in name:
                continue
            if options.small:
                # Importing takes longer than the work.
                with Report(rows, name).trying("section"):
                    section(Report(rows, name), work)
            else:
                run_section(name, rows, arguments, min(limit, LIMIT - (time.monotonic() - start)))
    device = platform.machine() if options.small else torch.cuda.get_device_name()
    title = f"{device}, torch {torch.__version__}, {time.monotonic() - start:.0f} s"
    lines = table([json.loads(line) for line in rows.read_text().splitlines()])
    markdown = ["| " + " | ".join(line) + " |" for line in lines]
    markdown.insert(1, "| --- " * len(lines[0]) + "|")
    (options.out / "gpu.md").write_text(f"{title}\n\n" + "\n".join(markdown) + "\n")
    print(f"{title}\n\n{to_text(lines)}\nWritten to {options.out / 'gpu.md'} and {rows}")


if __name__ == "__main__":
    main()
