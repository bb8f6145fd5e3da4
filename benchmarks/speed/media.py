"""Decoding of videos and images: UniRS compared with its other video readers, OpenCV, PyAV and Pillow; later epochs.

    python benchmarks/speed/media.py --videos 10 --images 40

Videos have 5 s of 24 frames per second, 640x640, H.264, drawn like UniRS's synthetic ERA, and are cached in
`data/speed`. By default x264 writes one key frame per video; a second set has one per second. Every side reads 8
frames at the same indices, resizes them with the same function, and has one thread. Most rows have a second one with
the processor time, which other programs hardly affect. Needs `opencv-python-headless`, of the dependency group
`speed`; video readers that are not installed are omitted.
"""

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import process_time

import av
import cv2
import numpy as np
import PIL.Image
import torch
from measure import Row, in_turn, rates, report
from unirs_tasks.synth.events import EVENTS
from unirs_tasks.synth.layout import compose, random_plan
from unirs_tasks.synth.scene import random_acquisition
from unirs_tasks.synth.video import FRAMES as DRAWN
from unirs_tasks.synth.video import SIZE as DRAWN_SIDE
from unirs_tasks.synth.video import WORLD, Camera, Scene
from unirs_tasks.synth.writing import map_items

from unirs import plugins
from unirs.data.frame_cache import FrameCache
from unirs.errors import PluginError
from unirs.tasks.media import STRETCH, Image, Video
from unirs.tasks.sample import Sample
from unirs.tasks.video_reader import DEFAULT_READER, create_reader, read_frames
from unirs.utils.io import write_atomically

DATA = Path("data/speed")
COUNT, FPS, SIDE = 8, 24, 640
SUFFIXES = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}

# Mean difference over a resized frame, in levels of 255: allows other YUV conversions, but not another frame.
TOLERANCE = 2.0

Reader = Callable[[Path], torch.Tensor]


def main() -> None:
    """Measures, and writes `runs/speed/media.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=10, help="how many videos; some are read by each side in turn")
    parser.add_argument("--seconds", type=int, default=5, help="length of a video")
    parser.add_argument("--images", type=int, default=40, help="how many images of each format")
    parser.add_argument("--size", type=int, default=224, help="height and width of the resized frames, in px")
    parser.add_argument("--rounds", type=int, default=5, help="chunks of the videos; both sides read each chunk")
    options = parser.parse_args()
    one_thread()
    size = (options.size, options.size)
    sparse, dense = videos(options.videos, options.seconds)
    readers = Readers(size)
    rows = []
    baselines = {"frame-wise seeking (OpenCV)": readers.seeking, "reading through (PyAV)": readers.through}
    epochs = Epochs(sparse, size)
    seconds = in_turn(epochs.later, epochs.first, warmup=0)
    rows.append(rates("a later epoch: the first", len(sparse), "videos", seconds))
    for paths in (sparse, dense):
        check_videos(readers, paths[:4])
    baselines |= {f"video_reader: {name}": partial(readers.ours, reader=name) for name in other_readers()}
    for paths, keys in ((sparse, "one key frame"), (dense, "one key frame per second")):
        for name, baseline in baselines.items():
            rows += compare(f"8 frames, {keys}: {name}", "videos", readers.ours, baseline, paths, options.rounds)
        what = f"8 frames, {keys}, not resized: frame-wise seeking (OpenCV)"
        rows += compare(what, "videos", partial(read_frames, num_frames=COUNT), seek, paths, options.rounds)
    rows += images(options.images, size)
    report(__file__, rows)


def one_thread() -> None:
    """Limits every library to one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def other_readers() -> list[str]:
    """The installed video readers besides the default."""
    found = []
    for name in plugins.list_plugins("unirs.video_readers"):
        with suppress(PluginError):
            create_reader(name)
            found += [name] if name != DEFAULT_READER else []
    return found


class Readers:
    """Reads 8 frames of a video, uint8 `[8, 3, H, W]`, in three ways.

    Args:
        size: height and width of the frames.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def ours(self, path: Path, reader: str = DEFAULT_READER) -> torch.Tensor:
        """UniRS."""
        return Video(path, COUNT, reader=reader).load_frames(self.size)

    def seeking(self, path: Path) -> torch.Tensor:
        """OpenCV, with a seek to each frame."""
        return self._resized(seek(path))

    def through(self, path: Path) -> torch.Tensor:
        """PyAV, from the first frame to the last."""
        frames = []
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            stream.codec_context.thread_count = 1
            wanted = set(spread(stream.frames))
            for index, frame in enumerate(film.decode(stream)):
                if index in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
        return self._resized(frames)

    def _resized(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        full = [PIL.Image.fromarray(frame) for frame in frames]
        small = [np.asarray(one.resize(self.size[::-1], PIL.Image.Resampling.BICUBIC)) for one in full]
        return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def seek(path: Path) -> list[np.ndarray]:
    """8 frames with OpenCV, with a seek to each.

    Raises:
        SystemExit: a frame is missing.
    """
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = []
    for index in spread(int(film.get(cv2.CAP_PROP_FRAME_COUNT))):
        film.set(cv2.CAP_PROP_POS_FRAMES, index)
        found, frame = film.read()
        if not found:
            raise SystemExit(f"OpenCV finds no frame {index} in {path}. Delete {path.parent} to make it again.")
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return frames


def spread(total: int) -> list[int]:
    """The frame indices of `Video`."""
    return [int(index) for index in np.linspace(0, total - 1, COUNT).round()]


def check_videos(readers: Readers, paths: Sequence[Path]) -> None:
    """Checks that all readers return the same frames, with a tolerance that detects a neighbouring frame.

    Raises:
        SystemExit: frames differ.
    """
    for path in paths:
        truth = readers.through(path).float()
        for name in other_readers():
            if not readers.ours(path, name).equal(readers.ours(path)):
                raise SystemExit(f"The video reader {name} returns other pixels of {path}.")
        moved = min((after - before).abs().mean().item() for before, after in pairwise(truth))
        for reader in (readers.ours, readers.seeking):
            apart = (reader(path).float() - truth).abs().mean((1, 2, 3)).max().item()
            if apart > min(TOLERANCE, moved / 2):
                raise SystemExit(
                    f"{reader.__name__} differs by {apart:.2f} levels in a frame of {path}, whose frames differ by "
                    f"{moved:.2f}. Delete {path.parent} to make it again."
                )


class Work:
    """Reads the next chunk of files at each call, and records the processor time.

    Args:
        reader: reads one file.
        chunks: the files of each call.
    """

    def __init__(self, reader: Callable[[Path], object], chunks: Sequence[Sequence[Path]]) -> None:
        self.reader = reader
        self.chunks = iter(chunks)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Reads a chunk."""
        start = process_time()
        for path in next(self.chunks):
            self.reader(path)
        self.seconds.append(process_time() - start)


def compare(
    name: str,
    unit: str,
    ours: Callable[[Path], object],
    baseline: Callable[[Path], object],
    paths: Sequence[Path],
    rounds: int,
) -> Iterator[Row]:
    """Rows of wall time and of processor time; in each round both sides read the same files, which are cached."""
    for path in paths:
        path.read_bytes()
    length = len(paths) // rounds
    chunks = [paths[index * length : (index + 1) * length] for index in range(rounds)]
    work = Work(ours, chunks), Work(baseline, chunks)
    yield rates(name, length, unit, in_turn(*work, rounds=rounds, warmup=0))
    yield rates(f"{name}, processor time", length, unit, (work[0].seconds, work[1].seconds))


class Epochs:
    """Epochs with a `FrameCache`, each in another order.

    Args:
        paths: videos.
        size: height and width of the cached frames.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int]) -> None:
        self.paths, self.size = paths, size
        self.first()

    def first(self) -> None:
        """The first epoch of a new cache."""
        self.cache = FrameCache(self.size, STRETCH, limit=10**9)
        self.later()

    def later(self) -> None:
        """Another epoch of the last cache."""
        for index in torch.randperm(len(self.paths)).tolist():
            self.cache(Sample("", Video(self.paths[index], COUNT), ()))


def images(count: int, size: tuple[int, int]) -> Iterator[Row]:
    """Rows of images of 256x256, read at their own size and resized.

    Raises:
        SystemExit: pixels differ.
    """
    folder = DATA / "images"
    map_items(partial(_draw_image, folder), range(count), seed=1, description="images")
    baselines: dict[str, tuple[Reader, Reader]] = {
        "Pillow": (_ours, _pillow),
        "OpenCV": (_ours, _opencv),
        "PyAV": (_ours, _pyav),
        "OpenCV, both resized by Pillow": (partial(_ours, size=size), partial(_opencv_resized, size=size)),
        "OpenCV's INTER_AREA, other pixels": (partial(_ours, size=size), partial(_opencv_area, size=size)),
    }
    for suffix in SUFFIXES:
        paths = [folder / f"{number:05d}{suffix}" for number in range(count)]
        for name, (ours, baseline) in baselines.items():
            # FFmpeg converts the colours of JPEG in its own way.
            if name == "PyAV" and suffix == ".jpg":
                continue
            if "other pixels" not in name and not all(torch.equal(ours(path), baseline(path)) for path in paths):
                raise SystemExit(f"{name} reads other pixels from {folder}. Delete the folder to make it again.")
            yield from compare(f"{suffix[1:].upper()} 256x256: {name}", "images", ours, baseline, paths * 5, 5)


def _ours(path: Path, size: tuple[int, int] | None = None) -> torch.Tensor:
    return Image(path).load_frames(size)


def _pillow(path: Path) -> torch.Tensor:
    return _tensor(np.asarray(PIL.Image.open(path).convert("RGB")))


def _opencv(path: Path) -> torch.Tensor:
    return _tensor(_imread(path))


def _opencv_resized(path: Path, size: tuple[int, int]) -> torch.Tensor:
    image = PIL.Image.fromarray(_imread(path))
    return _tensor(np.asarray(image.resize(size[::-1], PIL.Image.Resampling.BICUBIC)))


def _opencv_area(path: Path, size: tuple[int, int]) -> torch.Tensor:
    return _tensor(np.asarray(cv2.resize(_imread(path), size[::-1], interpolation=cv2.INTER_AREA)))


def _imread(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def _pyav(path: Path) -> torch.Tensor:
    with av.open(str(path)) as file:
        (frame,) = file.decode(video=0)
        return _tensor(frame.to_ndarray(format="rgb24"))


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]


def _draw_image(folder: Path, number: int, rng: np.random.Generator) -> None:
    paths = [folder / f"{number:05d}{suffix}" for suffix in SUFFIXES]
    if all(path.exists() for path in paths):
        return
    image = PIL.Image.fromarray(compose(rng, random_plan(rng, "urban")).render(random_acquisition(rng)))
    for path in paths:
        buffer = io.BytesIO()
        image.save(buffer, SUFFIXES[path.suffix])
        write_atomically(path, buffer.getvalue())


def videos(count: int, seconds: int) -> tuple[list[Path], list[Path]]:
    """Videos with one key frame, and the same videos with one per second; generated if they do not exist."""
    folder = DATA / f"videos_{seconds}s"
    folders = folder / "one_key", folder / "key_per_second"
    map_items(partial(_draw_video, folders, seconds * FPS), range(count), seed=0, description="videos")
    sparse, dense = ([folder / f"{number:05d}.mp4" for number in range(count)] for folder in folders)
    return sparse, dense


def _draw_video(folders: tuple[Path, Path], length: int, number: int, rng: np.random.Generator) -> None:
    paths = [folder / f"{number:05d}.mp4" for folder in folders]
    if all(path.exists() for path in paths):
        return
    names = list(EVENTS)
    frames = list(_shots(EVENTS[names[number % len(names)]](rng), Camera.sample(rng), length, rng))
    for path, distance in zip(paths, (None, FPS), strict=True):
        write_atomically(path, _encoded(frames, distance))


def _shots(scene: Scene, camera: Camera, length: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The synthetic clip enlarged to 640x640, slowed down to 24 frames per second, with new grain."""
    scale = SIDE / DRAWN_SIDE
    side = round(WORLD * scale)
    grain = rng.normal(0, 2.5, (SIDE + 64, SIDE + 64, 3)).astype(np.float32)
    path = (*camera.center.T, camera.angle, camera.zoom)
    last = -1
    for time in np.linspace(0, DRAWN - 1, length):
        if int(time) != last:
            last = int(time)
            world = scene.ground.copy()
            for layer in scene.layers:
                layer.draw(world, last)
            world = world.resize((side, side), PIL.Image.Resampling.BICUBIC)
        x, y, angle, zoom = (float(np.interp(time, range(DRAWN), column)) for column in path)
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        left = x * scale + side / 2 - (cos - sin) * SIDE / 2
        top = y * scale + side / 2 - (sin + cos) * SIDE / 2
        affine = (cos, -sin, left, sin, cos, top)
        frame = world.transform((SIDE, SIDE), PIL.Image.Transform.AFFINE, affine, PIL.Image.Resampling.BILINEAR)
        down, right = rng.integers(0, 64, 2)
        noisy = np.asarray(frame) + grain[down : down + SIDE, right : right + SIDE]
        yield noisy.clip(0, 255).astype(np.uint8)


def _encoded(frames: Sequence[np.ndarray], distance: int | None) -> bytes:
    """An MP4 with x264's default settings, except for speed and, if given, the distance of key frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "threads": "1"})
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        if distance is not None:
            stream.gop_size = distance
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return buffer.getvalue()


if __name__ == "__main__":
    main()
