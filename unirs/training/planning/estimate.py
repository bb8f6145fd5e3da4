"""From measured times of a few batches to the time, memory and disk of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from unirs.errors import UniRSError, did_you_mean
from unirs.utils.tables import to_text

# Relative error of a total that a few batches cannot exclude.
_TOLERANCE = 0.25

_SECONDS = {"d": 86400, "h": 3600, "min": 60, "s": 1}


@dataclass(frozen=True)
class Seconds:
    """A duration in seconds: of the fastest measured batch, on average, and of the slowest."""

    low: float
    mean: float
    high: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Seconds:
        """The duration whose measurements are `times`."""
        return cls(min(times), sum(times) / len(times), max(times))

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.low + other.low, self.mean + other.mean, self.high + other.high)

    def __mul__(self, factor: float) -> Seconds:
        return Seconds(self.low * factor, self.mean * factor, self.high * factor)

    def at_least(self, other: Seconds) -> Seconds:
        """The longer of two durations that run at the same time."""
        return Seconds(max(self.low, other.low), max(self.mean, other.mean), max(self.high, other.high))


ZERO = Seconds(0, 0, 0)


@dataclass(frozen=True)
class Pieces:
    """Measured times of one example.

    Attributes:
        read: decoding of its media, tokenization and collation.
        read_cached: the same with its media in the cache.
        encode: the frozen encoder; 0 if training it is part of `compute`.
        compute: the rest of a training step, or of the answer.
        cache: what is cached: `features` on disk, which are encoded once, or `frames` in memory.
        cached_bytes: size of a media item in the cache.
    """

    read: Seconds
    read_cached: Seconds
    encode: Seconds
    compute: Seconds
    cache: Literal["features", "frames"]
    cached_bytes: float


@dataclass(frozen=True)
class Stage:
    """The examples of one task that a run goes through, `passes` times.

    Attributes:
        name: `training`, `validation`, `test`, or a test with perturbed media.
        task: the task's name.
        samples: number of media items with their questions.
        examples: number of examples; a sample with many questions becomes several.
        questions: number of questions.
        passes: how often, a training task's weight included.
        pieces: times of one example.
    """

    name: str
    task: str
    samples: float
    examples: float
    questions: float
    passes: float
    pieces: Pieces

    def with_samples(self, samples: float) -> Stage:
        """The same with another number of samples of the same composition."""
        factor = samples / self.samples
        examples, questions = self.examples * factor, self.questions * factor
        return replace(self, samples=samples, examples=examples, questions=questions)

    @property
    def draws(self) -> float:
        """Number of examples in all passes."""
        return self.examples * self.passes

    @property
    def distinct(self) -> float:
        """Number of media items that are read at least once."""
        return min(self.samples, self.draws)


@dataclass(frozen=True)
class Machine:
    """What the estimate needs of machine and config.

    Attributes:
        devices: number of processes, a device each.
        num_workers: processes of a loader, in each process; 0 reads between the steps.
        feature_cache_bytes: disk space for features; 0 if they are not cached.
        frame_cache_bytes: memory for frames, in each process.
        start: seconds until the first step: the model, the annotations and the tokenizer.
        clue: seconds for the clue of one media item.
        memory: name of the memory that is measured, and its peak in bytes.
        checkpoint_bytes: size of a checkpoint.
        checkpoints: their number.
    """

    devices: int
    num_workers: int
    feature_cache_bytes: float
    frame_cache_bytes: float
    start: float
    clue: Seconds
    memory: tuple[str, float]
    checkpoint_bytes: float = 0
    checkpoints: int = 2


@dataclass(frozen=True)
class Plan:
    """The estimate of a run.

    Attributes:
        stages: with the duration of each.
        seconds: of the whole run: `low` and `high` are the range to expect.
        memory: peak in bytes, of each process.
        disk: bytes by content.
        devices: number of processes.
        assumptions: sentences.
    """

    stages: tuple[tuple[Stage, Seconds], ...]
    start: float
    seconds: Seconds
    memory: Mapping[str, float]
    disk: Mapping[str, float]
    devices: int
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plan for JSON: seconds and bytes."""
        stages = [
            {key: value for key, value in asdict(stage).items() if key != "pieces"}
            | {"seconds": asdict(seconds), "seconds_per_example": asdict(stage.pieces)}
            for stage, seconds in self.stages
        ]
        return asdict(self) | {"stages": stages}

    def to_text(self) -> str:
        """A table of the stages, and a line each for time, memory and disk."""
        rows = [["stage", "task", "samples", "questions", "passes", "time"]]
        rows.append(["start", "", "", "", "", format_range(Seconds(self.start, self.start, self.start))])
        for stage, seconds in self.stages:
            counts = f"{stage.samples:,.0f}", f"{stage.questions:,.0f}", f"{stage.passes:.3g}"
            rows.append([stage.name, stage.task, *counts, format_range(seconds)])
        devices = f"{self.devices} device" + "s" * (self.devices > 1)
        lines = [
            to_text(rows),
            "",
            f"Total: {format_range(self.seconds)} on {devices}",
            "Memory of each process: " + ", ".join(f"{name} {_size(size)}" for name, size in self.memory.items()),
            "Disk: " + (", ".join(f"{name} {_size(size)}" for name, size in self.disk.items() if size) or "little"),
            *(f"- {text}" for text in self.assumptions),
        ]
        return "\n".join(lines)


def override_counts(stages: Sequence[Stage], counts: Mapping[str, float], *, questions: bool = False) -> list[Stage]:
    """Replaces numbers of samples, or of questions, by `TASK` (its training, or else all stages) or `TASK.STAGE`.

    Raises:
        UniRSError: a name is none of a stage.
    """
    changed = list(stages)
    for name, count in counts.items():
        task, _, given = (name, "", "") if any(one.task == name for one in stages) else name.rpartition(".")
        own = {one.name.split(" ")[0] for one in stages if one.task == task}
        wanted = {given} if given else {"training"} & own or own
        found = [i for i, one in enumerate(stages) if one.task == task and one.name.split(" ")[0] in wanted]
        if not found:
            known = [text for one in stages for text in (one.task, f"{one.task}.{one.name.split(' ')[0]}")]
            raise UniRSError(f"The run has no '{name}'. {did_you_mean(name, dict.fromkeys(known))}")
        for index in found:
            one = changed[index]
            changed[index] = one.with_samples(count * one.samples / one.questions if questions else count)
    return changed


def estimate(stages: Sequence[Stage], machine: Machine, assumptions: Sequence[str] = ()) -> Plan:
    """Estimates a run.

    Media are read and encoded once if they fit into the cache, and a share of them on each pass if not. Loaders with
    workers read while the device computes. More devices divide all times but that of the start.
    """
    sizes = {
        cache: sum(one.distinct * one.pieces.cached_bytes for one in stages if one.pieces.cache == cache)
        for cache in ("features", "frames")
    }
    budgets = {"features": machine.feature_cache_bytes, "frames": machine.frame_cache_bytes * machine.devices}
    cached = {cache: min(sizes[cache], budgets[cache]) for cache in sizes}
    rows = []
    for stage in stages:
        pieces, draws, distinct = stage.pieces, stage.draws, stage.distinct
        share = cached[pieces.cache] / sizes[pieces.cache] if sizes[pieces.cache] else 1.0
        anew = distinct + (draws - distinct) * (1 - share)
        loading = pieces.read * anew + pieces.read_cached * (draws - anew)
        encoding = pieces.encode * (anew if pieces.cache == "features" else draws)
        computing = encoding + pieces.compute * draws
        workers = machine.num_workers
        seconds = (loading * (1 / workers)).at_least(computing) if workers else loading + computing
        rows.append((stage, (seconds + machine.clue * distinct) * (1 / machine.devices)))
    total = sum((seconds for _, seconds in rows), Seconds(machine.start, machine.start, machine.start))
    mean = total.mean
    total = Seconds(min(total.low, mean * (1 - _TOLERANCE)), mean, max(total.high, mean * (1 + _TOLERANCE)))
    name, peak = machine.memory
    memory = {f"{name} (measured peak)": peak}
    if cached["frames"]:
        memory["RAM (cached frames)"] = cached["frames"] / machine.devices
    disk = {"features": cached["features"], "checkpoints": machine.checkpoint_bytes * machine.checkpoints}
    notes = list(assumptions)
    if machine.devices > 1:
        notes.append(f"{machine.devices} devices are {machine.devices} times as fast as the measured one.")
    if sizes["features"] > cached["features"]:
        notes.append(
            f"The features need {_size(sizes['features'])}, more than the feature cache may hold "
            f"({_size(machine.feature_cache_bytes)}): raise feature_cache_gb to encode each input once."
        )
    return Plan(tuple(rows), machine.start, total, memory, disk, machine.devices, tuple(notes))


def format_range(seconds: Seconds) -> str:
    """A duration as text with two digits: `1.2 to 1.6 h`."""
    units = ("d", 2 * 86400), ("h", 3600), ("min", 60), ("s", 0)
    unit = next(name for name, size in units if seconds.high >= size)
    low, high = (_round(value / _SECONDS[unit]) for value in (seconds.low, seconds.high))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _round(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{round(value, -1):.0f}"


def _size(size: float) -> str:
    unit, factor = next((u, f) for u, f in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)) if size >= f or f == 1e6)
    return f"{_round(size / factor)} {unit}"
