"""Short drone clips: a ground drawn once, layers drawn per frame, a drifting camera, H.264 encoding.

The ground is a `WORLD` x `WORLD` px image. Layers change a copy of it for each frame; the camera then cuts a
`SIZE` x `SIZE` px frame out of the copy, with a margin that the camera path never leaves.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from unirs_tasks.synth.paint import finish

FRAMES = 32
FPS = 8
SIZE = 224
MARGIN = 32
WORLD = SIZE + 2 * MARGIN

# Deterministic output needs one thread, and no macroblock-tree rate control, which reads memory that x264 never wrote
# (equal clips differ under glibc's MALLOC_PERTURB_).
_X264 = {"crf": "23", "preset": "ultrafast", "threads": "1", "x264-params": "mbtree=0"}

# Arrival times are quantised to these steps; values beyond the ends change before the clip, or never.
_ARRIVALS = np.linspace(-0.05, 1.05, 256)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Acquisition:
    """The light, haze and sensor noise of one clip; see `paint.finish` for the fields."""

    gain: float
    gamma: float
    tint: tuple[float, float, float]
    haze: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Acquisition:
        """Samples the acquisition of a clip."""
        red, green, blue = rng.uniform(0.97, 1.03, 3).tolist()
        return cls(
            gain=rng.uniform(0.92, 1.08),
            gamma=rng.uniform(0.95, 1.05),
            tint=(red, green, blue),
            haze=rng.uniform(0, 0.08),
        )

    def capture(self, canvas: Floats, seed: int = 0, noise: float = 0.01) -> Image.Image:
        """Converts a canvas `[H, W, 3]` to an image. Equal seeds give equal sensor noise."""
        rng = np.random.default_rng(seed)
        pixels = finish(canvas, rng, gain=self.gain, gamma=self.gamma, tint=self.tint, haze=self.haze, noise=noise)
        return Image.fromarray(pixels)


@dataclass(frozen=True)
class Sprite:
    """A small image with transparency, pasted by its centre.

    Attributes:
        colour: RGB.
        alpha: L, of equal size.
    """

    colour: Image.Image
    alpha: Image.Image

    def turned(self, angle: float) -> Sprite:
        """Returns the sprite rotated by `angle` rad, from the x axis towards the y axis (y points down)."""
        degrees = -np.degrees(angle).item()
        return Sprite(
            *(each.rotate(degrees, Image.Resampling.BILINEAR, expand=True) for each in (self.colour, self.alpha))
        )


def sprite(
    draw: Callable[[Floats, np.random.Generator], None], side: int, seed: int, acquisition: Acquisition
) -> Sprite:
    """Makes a sprite from a function that draws on a canvas.

    The function draws once on black and once on white; their difference is the transparency, including cast shadows.

    Args:
        draw: draws around the middle of a canvas, in ways that depend only on the generator.
        side: height and width of the canvas in px.
        seed: seed of the generator that `draw` gets.
        acquisition: the acquisition of the clip.
    """
    black, white = np.zeros((side, side, 3), np.float32), np.ones((side, side, 3), np.float32)
    for canvas in (black, white):
        draw(canvas, np.random.default_rng(seed))
    alpha = np.clip(1 - (white - black).mean(axis=2), 0, 1)
    colour = black / np.maximum(alpha, 1e-3)[..., None]
    return Sprite(
        acquisition.capture(np.clip(colour, 0, 1), noise=0),
        Image.fromarray((alpha * 255).round().astype(np.uint8)),
    )


class Layer(Protocol):
    """A component that changes or moves over the ground."""

    def draw(self, world: Image.Image, frame: int) -> None:
        """Draws this layer's content of a frame on `world`, in place."""
        ...


@dataclass(frozen=True)
class MovingSprites:
    """N moving sprites with a position in each frame.

    Attributes:
        sprites: the different sprites.
        sprite_index: int `[T, N]`, index of the sprite to draw; -1 for none.
        xy: float `[T, N, 2]`, the centres in px of the world.
    """

    sprites: Sequence[Sprite]
    sprite_index: npt.NDArray[np.int64]
    xy: Floats

    def draw(self, world: Image.Image, frame: int) -> None:
        """Pastes the sprites in order, except those outside the frame."""
        sprite_index, xy = self.sprite_index[frame], self.xy[frame]
        visible = (sprite_index >= 0) & (np.abs(xy - WORLD / 2) < WORLD / 2 + self._reach()).all(axis=1)
        for index, (x, y) in zip(sprite_index[visible].tolist(), xy[visible].tolist(), strict=True):
            current = self.sprites[index]
            width, height = current.alpha.size
            world.paste(current.colour, (round(x - width / 2), round(y - height / 2)), current.alpha)

    def _reach(self) -> float:
        """Half the side of the largest sprite, px."""
        return max(max(each.alpha.size) for each in self.sprites) / 2


@dataclass(frozen=True)
class Transition:
    """An area that changes pixel by pixel into its final state: water, ash, stubble, a building.

    Attributes:
        after: the world in its final state.
        arrival: `[WORLD, WORLD]`, the progress (0..1) at sprite_index each pixel turns.
        progress: `[T]`, the progress of each frame.
    """

    after: Image.Image
    arrival: Floats
    progress: Floats

    def draw(self, world: Image.Image, frame: int) -> None:
        """Draws the pixels that have changed by this frame, with a soft front."""
        softness = 0.015
        done = np.clip((self.progress[frame] - _ARRIVALS) * (255 / softness), 0, 255)
        world.paste(self.after, mask=self._steps.point(done.astype(int).tolist()))

    @cached_property
    def _steps(self) -> Image.Image:
        """For each pixel, the number of the step in `_ARRIVALS` at sprite_index it turns."""
        steps = (self.arrival - np.float32(_ARRIVALS[0])) / np.float32(_ARRIVALS[1] - _ARRIVALS[0])
        return Image.fromarray(np.clip(steps, 0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Camera:
    """The camera's path over the world.

    Attributes:
        center: `[T, 2]`, centre of the frame, px from the world's centre.
        angle: `[T]`, rotation of the frame in rad.
        zoom: `[T]`, world px per frame px.
    """

    center: Floats
    angle: Floats
    zoom: Floats

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Camera:
        """Samples a path: drift, sway and jitter of at most a tenth of the frame, a slight rotation and zoom."""
        time = np.linspace(-0.5, 0.5, FRAMES)
        heading, drift = rng.uniform(0, 2 * np.pi), rng.uniform(6, 16)
        sway = np.sin(time[:, None] * rng.uniform(4, 9, 2) + rng.uniform(0, 2 * np.pi, 2)) * rng.uniform(0.5, 2, 2)
        line = time[:, None] * drift * np.array([np.cos(heading), np.sin(heading)])
        center = line + sway + rng.normal(0, 0.35, (FRAMES, 2)).clip(-1, 1)
        angle = rng.uniform(-0.03, 0.03) + time * rng.uniform(-0.06, 0.06)
        zoom = rng.uniform(0.97, 1.02) + time * rng.uniform(-0.05, 0.05)
        return cls(center.astype(np.float32), angle.astype(np.float32), zoom.astype(np.float32))

    @classmethod
    def still(cls) -> Camera:
        """A static camera over the centre of the world."""
        return cls(np.zeros((FRAMES, 2), np.float32), np.zeros(FRAMES, np.float32), np.ones(FRAMES, np.float32))

    def crop(self, world: Image.Image, frame: int) -> Image.Image:
        """Crops a frame, `SIZE` x `SIZE` px, from the world."""
        cos = float(np.cos(self.angle[frame]) * self.zoom[frame])
        sin = float(np.sin(self.angle[frame]) * self.zoom[frame])
        x, y = (self.center[frame] + WORLD / 2).tolist()
        left, top = x - (cos - sin) * SIZE / 2, y - (sin + cos) * SIZE / 2
        # The mean of the nearest pixels of two places half a pixel apart moves in steps of half a pixel, at a fraction
        # of the cost of bilinear sampling.
        one, other = (
            world.transform((SIZE, SIZE), Image.Transform.AFFINE, (cos, -sin, left + step, sin, cos, top + step))
            for step in (-0.25, 0.25)
        )
        return Image.blend(one, other, 0.5)


@dataclass(frozen=True)
class Scene:
    """The content of a clip.

    Attributes:
        ground: the world without layers, `WORLD` x `WORLD` px.
        layers: changing and moving components, in drawing order.
    """

    ground: Image.Image
    layers: Sequence[Layer]


def render(scene: Scene, camera: Camera) -> npt.NDArray[np.uint8]:
    """Renders a clip as uint8 `[FRAMES, SIZE, SIZE, 3]`."""
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    for index in range(FRAMES):
        world = scene.ground.copy()
        for layer in scene.layers:
            layer.draw(world, index)
        frames[index] = np.asarray(camera.crop(world, index))
    return frames


def encode(frames: npt.NDArray[np.uint8], path: Path) -> None:
    """Writes frames `[T, H, W, 3]` as an H.264 MP4; the bytes depend on the frames only."""
    # In memory first: the muxer would otherwise seek and patch the file with many small writes.
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(buffer.getvalue())
