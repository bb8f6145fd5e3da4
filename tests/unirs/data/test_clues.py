from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unirs
from unirs.data.clues import CLUE_PROMPTS, ClueCache, clean_clue, generate_clues
from unirs.errors import DataError, MediaError
from unirs.tasks.media import Image, Media, Modality, Pair, Video
from unirs.tasks.prompt import CLUE_END, CLUE_START, VISUAL


class Speaker:
    """Completes each prompt with its arguments, and records the batches; raises at a given batch."""

    def __init__(self, fingerprint: str = "weights", stop: int | None = None) -> None:
        self.fingerprint = fingerprint
        self.batches: list[list[Media]] = []
        self._stop = stop

    def generate(self, media: Sequence[Media], questions: Sequence[str], max_new_tokens: int) -> list[str]:
        if len(self.batches) == self._stop:
            raise KeyboardInterrupt
        self.batches.append(list(media))
        prompts = zip(media, questions, strict=True)
        return [f"{self.fingerprint} {one.modality} {question} {max_new_tokens}" for one, question in prompts]


@pytest.fixture
def cache(tmp_path: Path) -> ClueCache:
    return ClueCache(tmp_path / "made" / "clues.sqlite")


@pytest.fixture
def media(tmp_path: Path) -> list[Media]:
    """Five images, two pairs and two videos; nothing decodes the files."""
    root = tmp_path / "data"
    root.mkdir()
    for index in range(9):
        (root / str(index)).write_bytes(bytes([index]) * 100)
    images = [Image(root / str(index)) for index in range(5)]
    pairs = [Pair(root / "5", root / "6"), Pair(root / "6", root / "5")]
    return [*images[:2], *pairs, *images[2:], Video(root / "7", 4), Video(root / "8", 4)]


def test_batches_have_one_modality(media: list[Media], cache: ClueCache) -> None:
    vlm = Speaker()
    clues = generate_clues(vlm, media, cache=cache, batch_size=2, max_new_tokens=9)
    assert clues == {one: f"weights {one.modality} {CLUE_PROMPTS[one.modality]} 9" for one in media}
    assert [[one.modality for one in batch] for batch in vlm.batches] == [
        ["image", "image"],
        ["image", "image"],
        ["image"],
        ["pair", "pair"],
        ["video", "video"],
    ]


def test_equal_media_are_described_once(media: list[Media], tmp_path: Path) -> None:
    vlm = Speaker()
    twin = tmp_path / "twin"
    shutil.copy(Path(media[0].sources[0]), twin)
    clues = generate_clues(vlm, [media[0], media[0], Image(twin)], cache=None)
    assert list(clues) == [media[0], Image(twin)]
    assert sum(map(len, vlm.batches)) == 1


def test_no_cache_generates_all_anew(media: list[Media]) -> None:
    vlm = Speaker()
    assert generate_clues(vlm, media, cache=None) == generate_clues(vlm, media, cache=None)
    assert sum(map(len, vlm.batches)) == 2 * len(media)


def test_moved_files_are_cached(media: list[Media], cache: ClueCache, tmp_path: Path) -> None:
    made = generate_clues(Speaker(), media, cache=cache)
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = [Image(tmp_path / "moved" / Path(one.sources[0]).name) for one in media if isinstance(one, Image)]
    again = Speaker()
    assert list(generate_clues(again, moved, cache=cache).values()) == [
        clue for one, clue in made.items() if one.modality == "image"
    ]
    assert again.batches == []


def test_changed_files_are_not_cached(media: list[Media], cache: ClueCache) -> None:
    generate_clues(Speaker(), media, cache=cache)
    Path(media[0].sources[0]).write_bytes(b"\x00" * 99 + b"\x01")
    again = Speaker()
    generate_clues(again, media, cache=cache)
    assert again.batches == [[media[0]]]


@pytest.mark.parametrize(
    ("weights", "prompts", "length"),
    [
        ("others", CLUE_PROMPTS, 48),
        ("weights", {modality: prompt + " Please." for modality, prompt in CLUE_PROMPTS.items()}, 48),
        ("weights", CLUE_PROMPTS, 47),
    ],
)
def test_other_weights_prompts_or_lengths_are_not_cached(
    media: list[Media], cache: ClueCache, weights: str, prompts: dict[Modality, str], length: int
) -> None:
    first = generate_clues(Speaker(), media, cache=cache)
    other = generate_clues(Speaker(weights), media, cache=cache, prompts=prompts, max_new_tokens=length)
    assert not set(first.values()) & set(other.values())
    known = Speaker(weights, stop=0)
    assert generate_clues(known, media, cache=cache, prompts=prompts, max_new_tokens=length) == other
    assert generate_clues(Speaker(stop=0), media, cache=cache) == first


def test_an_interruption_keeps_finished_batches(media: list[Media], cache: ClueCache) -> None:
    images = [one for one in media if one.modality == "image"]
    with pytest.raises(KeyboardInterrupt):
        generate_clues(Speaker(stop=2), images, cache=cache, batch_size=2)
    rest = Speaker()
    assert list(generate_clues(rest, images, cache=cache, batch_size=2)) == images
    assert rest.batches == [images[4:]]


def test_progress_bar_only_if_clues_are_generated(
    media: list[Media], cache: ClueCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rich then treats stderr as a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    generate_clues(Speaker(), media[:4], cache=cache, progress=False)
    generate_clues(Speaker(), media[:4], cache=cache)
    assert capsys.readouterr().err == ""
    generate_clues(Speaker(), media, cache=cache)
    printed = capsys.readouterr()
    assert "clues" in printed.err
    assert f"{len(media) - 4}/{len(media) - 4}" in printed.err
    assert printed.out == ""


def test_modality_without_a_prompt(media: list[Media]) -> None:
    with pytest.raises(DataError, match=r"no clue prompt for pair media.*Known: image"):
        generate_clues(Speaker(), media, cache=None, prompts={"image": "What?"})


def test_every_modality_has_a_prompt() -> None:
    assert set(CLUE_PROMPTS) == {"image", "pair", "video", "series"}
    assert len(set(CLUE_PROMPTS.values())) == 4


class TestMediaKey:
    def test_key_depends_on_content_and_order_only(self, media: list[Media], tmp_path: Path) -> None:
        copy = Path(shutil.copytree(tmp_path / "data", tmp_path / "copy"))
        assert (
            Pair(copy / "5", copy / "6").content_key() == Pair(tmp_path / "data/5", tmp_path / "data/6").content_key()
        )
        assert len({one.content_key() for one in media}) == len(media)

    def test_key_depends_on_modality_and_frames(self, media: list[Media]) -> None:
        path = Path(media[0].sources[0])
        variants: list[Media] = [Image(path), Pair(path, path), Video(path, 1), Video(path, 2)]
        assert len({one.content_key() for one in variants}) == 4

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MediaError, match=r"no\.png cannot be read \(No such file"):
            Image(tmp_path / "no.png").content_key()


class TestClean:
    @pytest.mark.parametrize(
        ("text", "clean"),
        [
            ("  A road\n\nand\ttwo   houses. ", "A road and two houses."),
            (f"{CLUE_START}A road{CLUE_END} [vqa] Is it?", "A road [vqa] Is it?"),
            (f"one{VISUAL}two", "one two"),
            (f"<cl{CLUE_START}ue>", "<cl ue>"),
            (" \u2028 ", ""),
            ("<think>\nTwo?\n</think>\n\nA road.", "A road."),
        ],
    )
    def test_examples(self, text: str, clean: str) -> None:
        assert clean_clue(text) == clean

    @given(st.lists(st.sampled_from([CLUE_START, CLUE_END, VISUAL, "<", "cl", "ue>", "/", "|", " ", "\n"]) | st.text()))
    def test_one_line_without_markers(self, texts: list[str]) -> None:
        clean = clean_clue("".join(texts))
        assert not any(marker in clean for marker in (CLUE_START, CLUE_END, VISUAL))
        assert len(clean.splitlines()) <= 1
        assert clean == clean.strip()
        assert "  " not in clean
        assert clean_clue(clean) == clean

    @given(st.text(st.characters(exclude_characters="<>|", exclude_categories=["C", "Z"])))
    def test_other_text_is_kept(self, word: str) -> None:
        assert clean_clue(word) == word


WRITER = """
import sys
from pathlib import Path
from unirs.data.clues import ClueCache

own, cache = sys.argv[1], ClueCache(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for batch in range(30):
    keys = [f"{own}-{batch}-{n}" for n in range(8)]
    cache.put_many({key: key for key in keys} | {"both": own})
    assert cache.get_many([*keys, "both", "none"]).keys() == {*keys, "both"}
"""


class TestCache:
    def test_stored_clues_are_read(self, cache: ClueCache) -> None:
        assert cache.get_many(["a"]) == {}
        cache.put_many({"a": "A road.", "b": "", "c": "日本 \N{BEETLE}"})
        cache.put_many({"a": "Two roads."})
        cache.put_many({})
        found = ClueCache(cache.path).get_many(["a", "b", "c", "d"])
        assert found == {"a": "Two roads.", "b": "", "c": "日本 \N{BEETLE}"}

    @settings(max_examples=20)
    @given(clues=st.dictionaries(st.text(), st.text(), max_size=5))
    def test_any_text_round_trips(self, tmp_path_factory: pytest.TempPathFactory, clues: dict[str, str]) -> None:
        cache = ClueCache(tmp_path_factory.mktemp("any") / "c")
        cache.put_many(clues)
        assert cache.get_many(clues) == clues

    def test_two_processes_write_at_once(self, cache: ClueCache) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(unirs.__file__).parents[1])}
        pipe = subprocess.PIPE
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, own, str(cache.path)],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=environment,
            )
            for own in "ab"
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 2
        keys = [f"{own}-{batch}-{n}" for own in "ab" for batch in range(30) for n in range(8)]
        assert cache.get_many(keys) == {key: key for key in keys}
        assert cache.get_many(["both"])["both"] in "ab"

    def test_interrupted_write_stores_nothing(self, cache: ClueCache) -> None:
        class Interrupted(dict[str, str]):
            def items(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
                yield "a", "new"
                yield "b", "new"
                raise KeyboardInterrupt

        cache.put_many({"a": "old"})
        with pytest.raises(KeyboardInterrupt):
            cache.put_many(Interrupted())
        assert cache.get_many(["a", "b"]) == {"a": "old"}

    @pytest.mark.parametrize("position", ["begin", "middle", "end"])
    def test_a_damaged_file_is_named(self, cache: ClueCache, position: str) -> None:
        clues = {str(n): "x" * 100 for n in range(500)}
        cache.put_many(clues)
        content = bytearray(cache.path.read_bytes())
        match position:
            case "begin":
                content[:100] = b"not a database " * 6 + b"0123456789"
            case "middle":
                content[4096 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4096)
            case "end":
                del content[len(content) // 2 :]
        cache.path.write_bytes(content)
        with pytest.raises(DataError, match=r"clues\.sqlite is damaged \(.*Delete the file"):
            cache.get_many(clues)
        cache.path.unlink()
        cache.put_many(clues)
        assert cache.get_many(clues) == clues

    def test_a_file_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for path in (tmp_path, tmp_path / "file" / "clues.sqlite"):
            with pytest.raises(DataError, match=rf"{path} cannot be used \(.*Name one in a folder"):
                ClueCache(path).get_many(["a"])


def test_importing_loads_no_heavy_package() -> None:
    heavy = "('torch', 'numpy', 'transformers')"
    code = f"import sys, unirs.data.clues; print([name for name in {heavy} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(Path(unirs.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]"
