import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from unirs.data.frame_cache import FrameCache
from unirs.errors import DataError, MediaError
from unirs.tasks.media import Image, ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia
from unirs.tasks.sample import Sample

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")
SIZE = (8, 6)
BYTES = 3 * 8 * 6


def cache_of(limit: int) -> FrameCache:
    return FrameCache(SIZE, ResizeSpec(), limit)


def paint(folder: Path, count: int) -> list[Sample]:
    samples = []
    for number in range(count):
        path = folder / f"{number}.png"
        PIL.Image.new("RGB", (20, 10), (number, 2 * number, 7)).save(path)
        samples.append(Sample(str(number), Image(path), ()))
    return samples


def test_frames_are_cached_within_the_budget(tmp_path: Path) -> None:
    samples = paint(tmp_path, 2)
    expected = [sample.media.load_frames(SIZE) for sample in samples]
    cache = cache_of(2 * BYTES - 1)
    for _ in range(2):
        assert all(torch.equal(cache(sample), frames) for sample, frames in zip(samples, expected, strict=True))
    for sample in samples:
        Path(sample.media.sources[0]).unlink()
    assert torch.equal(cache(samples[0]), expected[0])
    with pytest.raises(MediaError, match=r"1\.png does not exist"):
        cache(samples[1])


def test_perturbed_media_and_frames_over_budget_are_not_cached(tmp_path: Path) -> None:
    (sample,) = paint(tmp_path, 1)
    altered = Sample("blank", PerturbedMedia(Image(Path(sample.media.sources[0])), "blank"), ())
    cache, none = cache_of(10 * BYTES), cache_of(0)
    assert not cache(altered).any()
    assert torch.equal(none(sample), sample.media.load_frames(SIZE))
    Path(sample.media.sources[0]).unlink()
    for empty in (cache, none):
        with pytest.raises(MediaError):
            empty(sample)


class Frames(Dataset[torch.Tensor]):
    def __init__(self, cache: FrameCache, samples: list[Sample]) -> None:
        self.cache = cache
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.cache(self.samples[index]).clone()


class Order:
    """Gives each epoch's samples to the other worker than the epoch before."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.epochs = 0

    def __iter__(self) -> Iterator[int]:
        self.epochs += 1
        yield from range(self.count) if self.epochs % 2 else reversed(range(self.count))

    def __len__(self) -> int:
        return self.count


_SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("spawn", "forkserver")]


@ON_LINUX
@pytest.mark.parametrize("method", ["fork", *_SLOW])
def test_workers_share_decoded_frames(tmp_path: Path, method: str) -> None:
    samples = paint(tmp_path, 6)
    expected = [sample.media.load_frames(SIZE) for sample in samples]
    cache = cache_of(10 * BYTES * len(samples))
    assert torch.equal(cache(samples[0]), expected[0])
    loader = DataLoader(
        Frames(cache, samples),
        batch_size=None,
        sampler=Order(len(samples)),
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=method,
    )
    assert all(torch.equal(frames, other) for frames, other in zip(loader, expected, strict=True))
    for sample in samples:
        Path(sample.media.sources[0]).unlink()
    assert all(torch.equal(frames, other) for frames, other in zip(loader, reversed(expected), strict=True))
    # What the workers decoded is in the first process, too.
    assert all(torch.equal(cache(sample), other) for sample, other in zip(samples, expected, strict=True))


def put_many(cache: FrameCache, samples: list[Sample], barrier: Barrier) -> None:
    barrier.wait()
    for sample in samples:
        cache(sample)


@ON_LINUX
def test_many_writers_at_once(tmp_path: Path) -> None:
    writers = 4
    samples = paint(tmp_path, 200)
    cache = cache_of(2 * BYTES * len(samples))
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(writers)
    # Half of what each writes another one writes as well, at the same time.
    chunks = [samples[25 * number : 25 * number + 100] for number in range(writers)]
    processes = [context.Process(target=put_many, args=(cache, chunk, barrier)) for chunk in chunks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    written = {sample.id: sample for chunk in chunks for sample in chunk}
    expected = {name: sample.media.load_frames(SIZE) for name, sample in written.items()}
    for sample in written.values():
        Path(sample.media.sources[0]).unlink()
    assert all(torch.equal(cache(sample), expected[name]) for name, sample in written.items())


def test_budget_larger_than_memory() -> None:
    with pytest.raises(DataError, match=r"No memory for 1e\+10 GB of frames .* Lower data\.cache_gb"):
        cache_of(10**19)


@ON_LINUX
def test_a_copy_shares_the_memory(tmp_path: Path) -> None:
    (sample,) = paint(tmp_path, 1)
    cache = cache_of(10 * BYTES)
    copy: FrameCache = pickle.loads(pickle.dumps(cache))  # noqa: S301 - its own bytes
    frames = copy(sample)
    Path(sample.media.sources[0]).unlink()
    assert torch.equal(cache(sample), frames)
