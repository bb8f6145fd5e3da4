import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from unirs.errors import MediaError
from unirs.tasks.inputs import as_media
from unirs.tasks.media import Image, Pair, ResizeMode, ResizeSpec, Video, frame_labels
from unirs.tasks.perturbation import PERTURBATIONS, PerturbedMedia
from unirs.tasks.series import Series

SIZE = (32, 48)
FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpg": {"quality": 95},
    "tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "jpeg.tif": {"compression": "jpeg"},
    "bmp": {},
    "webp": {"lossless": True},
}


def noise(height: int = 32, width: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    Pillow.fromarray(pixels).save(path, **FORMATS[path.name.partition(".")[2]])
    return path


def write_video(path: Path, frames: int = 24, *, faststart: bool = False) -> Path:
    """Frame i is grey of level 10 * i, in H.264 with B-frames and a key frame every 8 frames."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 32, "yuv420p", 8
        stream.thread_count = 1
        for index in range(frames):
            array = np.full((32, 64, 3), 10 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


class TestImage:
    @pytest.mark.parametrize("name", ["png", "tif", "lzw.tif", "bmp", "webp"])
    def test_lossless_pixels_arrive_unchanged(self, tmp_path: Path, name: str) -> None:
        pixels = noise()
        frames = Image(write_picture(tmp_path / f"a.{name}", pixels)).load_frames(SIZE)
        assert frames.dtype == torch.uint8
        assert frames.is_contiguous()
        assert torch.equal(frames, torch.from_numpy(pixels).permute(2, 0, 1)[None])

    def test_resizes_to_height_and_width(self, tmp_path: Path) -> None:
        pixels = np.zeros((40, 60, 3), dtype=np.uint8)
        pixels[:20] = 255
        frames = Image(write_picture(tmp_path / "a.png", pixels)).load_frames((20, 10))
        assert frames.shape == (1, 3, 20, 10)
        assert frames[0, :, :8].min() > 200
        assert frames[0, :, 12:].max() < 50

    @pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "CMYK"])
    def test_any_eight_bit_mode_becomes_rgb(self, tmp_path: Path, mode: str) -> None:
        path = tmp_path / "a.tif"
        Pillow.new("RGB", (48, 32), (255, 255, 255)).convert(mode).save(path)
        frames = Image(path).load_frames(SIZE)
        assert frames.shape == (1, 3, *SIZE)
        assert frames.min() == 255

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
    def test_more_than_eight_bits_is_an_error(self, tmp_path: Path, dtype: type) -> None:
        path = write_picture(tmp_path / "a.tif", np.full((32, 48), 3000, dtype=dtype))
        with pytest.raises(MediaError, match=r"a\.tif has more than 8 bits"):
            Image(path).load_frames(SIZE)

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"no\.png does not exist"):
            Image(tmp_path / "no.png").load_frames(SIZE)

    @pytest.mark.parametrize("content", [b"", b"not a picture", b"II*\x00", b"\x89PNG\r\n\x1a\n"])
    def test_a_file_that_is_not_an_image_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"a\.png does not decode"):
            Image(path).load_frames(SIZE)

    def test_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").mkdir()
        with pytest.raises(MediaError, match=r"a\.png does not decode"):
            Image(tmp_path / "a.png").load_frames(SIZE)

    @pytest.mark.parametrize("name", list(FORMATS))
    @given(share=st.floats(0.0, 0.98))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_truncated_file_is_an_error_not_a_partial_image(self, tmp_path: Path, name: str, share: float) -> None:
        path = write_picture(tmp_path / f"a.{name}", noise())
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(MediaError, match=r"a\..* does not decode"):
            Image(path).load_frames(SIZE)


class TestPair:
    def test_before_is_the_first_frame(self, tmp_path: Path) -> None:
        before, after = noise(seed=1), noise(seed=2)
        media = Pair(write_picture(tmp_path / "a.png", before), write_picture(tmp_path / "b.png", after))
        frames = media.load_frames(SIZE)
        assert torch.equal(frames, torch.from_numpy(np.stack([before, after])).permute(0, 3, 1, 2))
        assert len(frames) == media.num_frames == 2
        assert media.sources == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))

    def test_unequal_sizes_name_both_files(self, tmp_path: Path) -> None:
        media = Pair(write_picture(tmp_path / "a.png", noise()), write_picture(tmp_path / "b.png", noise(48, 48)))
        with pytest.raises(MediaError, match=r"a\.png is 48x32, .*b\.png is 48x48"):
            media.load_frames(SIZE)

    @pytest.mark.parametrize("missing", ["a", "b"])
    def test_missing_image_is_named(self, tmp_path: Path, missing: str) -> None:
        for name in {"a", "b"} - {missing}:
            write_picture(tmp_path / f"{name}.png", noise())
        with pytest.raises(MediaError, match=rf"{missing}\.png does not exist"):
            Pair(tmp_path / "a.png", tmp_path / "b.png").load_frames(SIZE)


class TestVideo:
    @pytest.mark.parametrize(("count", "shown"), [(1, [0]), (2, [0, 23]), (3, [0, 12, 23]), (24, list(range(24)))])
    def test_frames_are_spread_from_first_to_last(self, tmp_path: Path, count: int, shown: list[int]) -> None:
        frames = Video(write_video(tmp_path / "a.mp4"), count).load_frames(SIZE)
        assert frames.shape == (count, 3, *SIZE)
        levels = frames.float().mean((1, 2, 3)) / 10
        assert levels.round().int().tolist() == shown

    def test_resizes_to_height_and_width(self, tmp_path: Path) -> None:
        assert Video(write_video(tmp_path / "a.mp4"), 2).load_frames((8, 10)).shape == (2, 3, 8, 10)

    def test_too_few_frames_names_their_number(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", frames=5)
        with pytest.raises(MediaError, match=r"a\.mp4 has 5 frames, 8 are needed"):
            Video(path).load_frames(SIZE)

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"no\.mp4 does not exist"):
            Video(tmp_path / "no.mp4").load_frames(SIZE)

    def test_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.mp4").mkdir()
        with pytest.raises(MediaError, match=r"a\.mp4 is not a file"):
            Video(tmp_path / "a.mp4").load_frames(SIZE)

    @pytest.mark.parametrize("content", [b"", b"not a video " * 100, b"\x00\x00\x00\x18ftypmp42"])
    def test_a_file_that_is_not_a_video_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"a\.mp4 does not open"):
            Video(path).load_frames(SIZE)

    @pytest.mark.parametrize("faststart", [False, True])
    @pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7])
    def test_truncated_file_is_an_error(self, tmp_path: Path, share: float, faststart: bool) -> None:
        path = write_video(tmp_path / "a.mp4", faststart=faststart)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(MediaError, match=r"a\.mp4 does not"):
            Video(path).load_frames(SIZE)

    @pytest.mark.parametrize("faststart", [False, True])
    def test_a_file_truncated_anywhere_never_gives_wrong_frames(self, tmp_path: Path, faststart: bool) -> None:
        path = write_video(tmp_path / "a.mp4", faststart=faststart)
        content, whole = path.read_bytes(), Video(path).load_frames(SIZE)
        refused = 0
        for lost in range(1, 700, 20):
            path.write_bytes(content[:-lost])
            try:
                # Truncated trailing metadata does no harm.
                assert torch.equal(Video(path).load_frames(SIZE), whole)
            except MediaError:
                refused += 1
        assert refused > 20

    def test_blanked_middle_is_an_error(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", faststart=True)
        content = bytearray(path.read_bytes())
        begin = content.index(b"mdat") + 1000
        content[begin : begin + 400] = bytes(400)
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"a\.mp4 does not decode"):
            Video(path).load_frames(SIZE)


class TestOwnSize:
    def test_picture(self, tmp_path: Path) -> None:
        pixels = noise(20, 30)
        frames = Image(write_picture(tmp_path / "a.png", pixels)).load_frames()
        assert torch.equal(frames, torch.from_numpy(pixels).permute(2, 0, 1)[None])

    def test_pair(self, tmp_path: Path) -> None:
        before, after = noise(20, 30, seed=1), noise(20, 30, seed=2)
        media = Pair(write_picture(tmp_path / "a.png", before), write_picture(tmp_path / "b.png", after))
        assert torch.equal(media.load_frames(), torch.from_numpy(np.stack([before, after])).permute(0, 3, 1, 2))

    def test_video(self, tmp_path: Path) -> None:
        media = Video(write_video(tmp_path / "a.mp4"), 3)
        assert torch.equal(media.load_frames(), media.load_frames((32, 64)))


def test_modalities_are_explicit() -> None:
    path = Path("a")
    assert [Image(path).modality, Pair(path, path).modality, Video(path).modality] == ["image", "pair", "video"]
    assert [Image(path).sources, Video(path).sources] == [("a",), ("a",)]
    assert [Image(path).num_frames, Video(path).num_frames] == [1, 8]


class TestResize:
    """An image of 40x20 pixels, its left half red and its right half blue, resized to a square of 20."""

    @pytest.fixture
    def wide_image(self, tmp_path: Path) -> Image:
        pixels = np.zeros((20, 40, 3), dtype=np.uint8)
        pixels[:, :20, 0] = 255
        pixels[:, 20:, 2] = 255
        return Image(write_picture(tmp_path / "wide.png", pixels))

    def test_resize_stretches(self, wide_image: Image) -> None:
        (frame,) = wide_image.load_frames((20, 20))
        assert frame[0, :, :8].min() == 255
        assert frame[2, :, 12:].min() == 255

    def test_pad_adds_equal_borders(self, wide_image: Image) -> None:
        (frame,) = wide_image.load_frames((20, 20), ResizeSpec("pad", (1, 2, 3)))
        assert frame[:, :3].permute(1, 2, 0).reshape(-1, 3).unique(dim=0).tolist() == [[1, 2, 3]]
        assert frame[:, 17:].permute(1, 2, 0).reshape(-1, 3).unique(dim=0).tolist() == [[1, 2, 3]]
        assert frame[0, 7:13, :8].min() == 255

    @pytest.mark.parametrize("shape", [(31, 64), (64, 31), (50, 50), (100, 7)])
    def test_pad_is_that_of_llava(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        (frame,) = Image(write_picture(tmp_path / "a.png", pixels)).load_frames(
            (48, 48), ResizeSpec("pad", (122, 116, 104))
        )
        size = {"height": 48, "width": 48}
        processor = LlavaImageProcessorPil(
            do_pad=True,
            image_mean=[122.5 / 255, 116.5 / 255, 104.5 / 255],
            size=size,
            do_center_crop=False,
            do_rescale=False,
            do_normalize=False,
        )
        (expected,) = processor(Pillow.fromarray(pixels), return_tensors="pt").pixel_values
        assert torch.equal(frame, expected.to(torch.uint8))

    def test_an_image_too_long_to_be_padded_is_named(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "long.png", np.zeros((2, 20_000, 3), dtype=np.uint8))
        with pytest.raises(MediaError, match=r"long\.png: An image of 20000x2 pixels that is padded has more than"):
            Image(path).load_frames((20, 20), ResizeSpec("pad"))

    def test_center_crop_cuts_both_ends(self, wide_image: Image) -> None:
        (frame,) = wide_image.load_frames((20, 20), ResizeSpec("center_crop"))
        assert frame[0, :, :9].min() == 255
        assert frame[2, :, 11:].min() == 255

    @pytest.mark.parametrize("mode", ["resize", "pad", "center_crop"])
    def test_an_image_of_the_right_size_is_unchanged(self, tmp_path: Path, mode: ResizeMode) -> None:
        pixels = noise()
        media = Image(write_picture(tmp_path / "a.png", pixels))
        assert torch.equal(media.load_frames(SIZE, ResizeSpec(mode)), media.load_frames())


class TestPerturbed:
    @pytest.fixture
    def video(self, tmp_path: Path) -> Video:
        return Video(write_video(tmp_path / "a.mp4"), 4)

    def test_black(self, video: Video) -> None:
        black = PerturbedMedia(video, "blank")
        assert (black.modality, black.sources, black.num_frames) == ("video", video.sources, 4)
        assert torch.equal(black.load_frames(SIZE), torch.zeros_like(video.load_frames(SIZE)))

    def test_swapped(self, tmp_path: Path) -> None:
        pair = Pair(*(write_picture(tmp_path / f"{n}.png", noise(seed=n)) for n in range(2)))
        assert torch.equal(PerturbedMedia(pair, "swap_times").load_frames(SIZE), pair.load_frames(SIZE).flip(0))

    def test_first_frame_repeated(self, video: Video) -> None:
        frames = PerturbedMedia(video, "repeat_first").load_frames(SIZE)
        assert torch.equal(frames, video.load_frames(SIZE)[:1].expand(4, -1, -1, -1))

    def test_shuffled_is_never_the_original_order(self, tmp_path: Path) -> None:
        orders = set()
        for name in "abcdef":
            video = Video(write_video(tmp_path / f"{name}.mp4"), 3)
            shuffled = PerturbedMedia(video, "shuffle_frames")
            levels = shuffled.load_frames((8, 8)).float().mean((1, 2, 3))
            assert torch.equal(shuffled.load_frames((8, 8)), shuffled.load_frames((8, 8)))
            assert levels.sort().values.tolist() == video.load_frames((8, 8)).float().mean((1, 2, 3)).tolist()
            order = tuple(levels.argsort().tolist())
            assert order != (0, 1, 2)
            orders.add(order)
        assert len(orders) > 1


class TestSeries:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> list[Path]:
        sizes = ((32, 48), (32, 48), (20, 60))
        return [write_picture(tmp_path / f"{n}.png", noise(*size, seed=n)) for n, size in enumerate(sizes)]

    def test_images_of_any_size_in_order(self, paths: list[Path]) -> None:
        series = Series(paths, ["2016-05", "2017-05", "2018-06"])
        assert (series.modality, series.num_frames, series.sources) == ("series", 3, tuple(map(str, paths)))
        each = torch.cat([Image(path).load_frames((8, 10), ResizeSpec("pad")) for path in paths])
        assert torch.equal(series.load_frames((8, 10), ResizeSpec("pad")), each)
        # Without a size, that of the first one.
        assert torch.equal(series.load_frames()[:2], torch.cat([Image(path).load_frames() for path in paths[:2]]))
        assert torch.equal(series.load_frames()[2:], Image(paths[2]).load_frames(SIZE))

    def test_labels(self, paths: list[Path]) -> None:
        assert frame_labels(Series(paths)) == ("Image 1:", "Image 2:", "Image 3:")
        dated = Series(paths[:2], ["2016-05", "after the flood"])
        assert frame_labels(dated) == ("Image 1, 2016-05:", "Image 2, after the flood:")
        # The dates stay where they are: the model is told wrong ones.
        assert frame_labels(PerturbedMedia(dated, "shuffle_frames")) == frame_labels(dated)
        assert frame_labels(PerturbedMedia(Image(paths[0]), "blank")) == frame_labels(Pair(*paths[:2])) == ()

    def test_key_and_pickle(self, paths: list[Path]) -> None:
        one, other = Series(paths, ["1", "2", "3"]), Series(paths, ["1", "2", "4"])
        assert len({one, other, Series(paths), Series(paths[::-1]), Series(paths, ["1", "2", "3"])}) == 4
        keys = {media.content_key() for media in (one, other, Series(paths), Series(paths[::-1]), Series(paths[:2]))}
        assert len(keys | {Pair(*paths[:2]).content_key()}) == 6
        assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - written in this test
        assert Series([path.read_bytes() for path in paths]).content_key() == Series(paths).content_key()
        assert torch.equal(Series([noise(seed=0), paths[1]]).load_frames(SIZE), Series(paths[:2]).load_frames(SIZE))

    def test_perturbed(self, paths: list[Path]) -> None:
        series = Series(paths, ["1", "2", "3"])
        frames, shuffled = series.load_frames(SIZE), PerturbedMedia(series, "shuffle_frames").load_frames(SIZE)
        assert not torch.equal(shuffled, frames)
        assert sorted(frame.sum().item() for frame in shuffled) == sorted(frame.sum().item() for frame in frames)
        assert set(PERTURBATIONS["series"]) == {"blank", "repeat_first", "shuffle_frames"}

    @pytest.mark.parametrize(
        ("images", "dates", "message"),
        [
            (["a.png"], None, "two or more images, got 1"),
            ("a.png", None, "not a str"),
            (np.zeros((2, 8, 8, 3), np.uint8), None, "not a ndarray"),
            (["a.png", 3], None, "cannot be a int"),
            (["a.png", "b.png"], ["2016"], r"2 images of a series have the dates \['2016'\]"),
            (["a.png", "b.png"], "16", "have the dates '16'"),
            (["a.png", "b.png"], 2016, "have the dates 2016"),
            (["a.png", "b.png"], ["2016", 2017], "'2016-05', not 2017"),
            (["a.png", "b.png"], ["2016", " "], "'2016-05', not ' '"),
            (["a.png", "b.png"], ["2016", "20\n17"], "on one line"),
        ],
    )
    def test_unclear_series(self, images: Any, dates: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
        with pytest.raises(MediaError, match=message):
            Series(images, dates)

    def test_a_missing_image_is_named(self, paths: list[Path]) -> None:
        with pytest.raises(MediaError, match=r"no\.png does not exist"):
            Series([paths[0], "no.png"]).load_frames(SIZE)


def all_forms(path: Path) -> list[Any]:
    """One image in every supported form."""
    pixels = np.asarray(Pillow.open(path))
    tensor = torch.from_numpy(pixels.copy())
    return [
        path,
        str(path),
        path.read_bytes(),
        Pillow.open(path),
        pixels,
        pixels.transpose(2, 0, 1),
        pixels.astype(np.float32) / 255,
        tensor,
        tensor.permute(2, 0, 1).float() / 255,
    ]


class TestSources:
    def test_frames_do_not_depend_on_the_form_of_the_source(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "a.png", noise())
        expected = Image(path).load_frames((20, 20))
        for form in all_forms(path):
            assert torch.equal(Image(form).load_frames((20, 20)), expected)
            assert torch.equal(Pair(form, path).load_frames((20, 20)), expected.expand(2, -1, -1, -1))
            video = Video([form, path, form], 2)
            assert torch.equal(video.load_frames((20, 20)), expected.expand(2, -1, -1, -1))

    def test_gray_is_repeated(self) -> None:
        gray = noise()[:, :, 0]
        expected = torch.from_numpy(gray).expand(1, 3, -1, -1)
        for form in (gray, gray[:, :, None], gray[None], Pillow.fromarray(gray)):
            assert torch.equal(Image(form).load_frames(), expected)

    def test_equal_pixels_are_equal_media(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "a.png", noise())
        in_memory = {Image(form) for form in all_forms(path)[3:]}
        assert len(in_memory) == 1
        assert len({one.content_key() for one in in_memory}) == 1
        assert Image(path.read_bytes()).content_key() == Image(path).content_key()
        assert Image(noise(seed=1)).content_key() != Image(noise(seed=2)).content_key()
        assert Image(noise(32, 48)) != Image(noise(48, 32))
        media = Pair(noise(), path)
        assert pickle.loads(pickle.dumps(media)) == media  # noqa: S301 - written in this test

    def test_video_bytes_and_arrays(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4")
        frames = Video(path, 24).load_frames()
        assert torch.equal(Video(path.read_bytes(), 24).load_frames(), frames)
        assert torch.equal(Video(frames, 3).load_frames(), Video(path, 3).load_frames())
        assert Video(frames).num_frames == 24

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (np.zeros((8, 8, 4), np.uint8), r"shape \[8, 8, 4\]"),
            (np.zeros((3, 8, 3), np.uint8), r"shape \[3, 8, 3\]"),
            (np.zeros((8,), np.uint8), r"shape \[8\]"),
            (np.zeros((0, 8, 3), np.uint8), r"shape \[0, 8, 3\]"),
            (np.zeros((8, 8), np.uint16), "uint16.*scale them to 8 bits"),
            (np.zeros((8, 8), np.bool_), "bool"),
            (np.full((8, 8), np.nan), "values nan to nan"),
            (np.full((8, 8), 200.0), r"values 200\.0 to 200\.0"),
            (Pillow.new("I;16", (8, 8)), "more than 8 bits"),
            (3, "cannot be a int"),
            (None, "cannot be a NoneType"),
        ],
    )
    def test_unclear_images(self, value: Any, message: str) -> None:  # noqa: ANN401 - wrong on purpose
        with pytest.raises(MediaError, match=message):
            Image(value)

    def test_unclear_videos(self) -> None:
        with pytest.raises(MediaError, match="2 frames are given, 3 are needed"):
            Video([noise(), noise()], 3)
        with pytest.raises(MediaError, match="cannot have 0 frames"):
            Video("a.mp4", 0)
        with pytest.raises(MediaError, match="4 axes"):
            Video(noise())
        with pytest.raises(MediaError, match="images of a video differ in size"):
            Video([noise(), noise(48, 48)]).load_frames(SIZE)


class TestAsMedia:
    def test_clear_values(self, tmp_path: Path) -> None:
        path = write_picture(tmp_path / "a.png", noise())
        for form in all_forms(path):
            if not isinstance(form, bytes):
                assert as_media(form) == Image(form)
                assert as_media((form, path)) == Pair(form, path)
                assert as_media((form, path, form)) == Series([form, path, form])
        assert as_media("a.mp4", 3) == Video("a.mp4", 3)
        assert as_media(Image("a.png")) == Image("a.png")

    @pytest.mark.parametrize("value", [b"bytes", "a.txt", (noise(),), [noise()], np.zeros((2, 8, 8, 3), np.uint8), 3])
    def test_unclear_values(self, value: object) -> None:
        with pytest.raises(MediaError, match=r"Image\("):
            as_media(value)


def test_importing_media_loads_no_heavy_package() -> None:
    program = "import sys, unirs.tasks.media; print(sorted({'torch', 'numpy', 'PIL', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
