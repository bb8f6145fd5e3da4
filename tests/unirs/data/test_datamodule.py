import json
import math
import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from unirs.data.datamodule import UniRSDataModule
from unirs.data.dataset import Example
from unirs.data.processor import Processor
from unirs.data.sampler import MixtureSampler
from unirs.errors import DataError, PluginError
from unirs.models.llm import train_tokenizer
from unirs.tasks.config import TaskConfig
from unirs.tasks.media import Media, ResizeSpec
from unirs.tasks.perturbation import PerturbedMedia

Cli = Callable[..., int]

# Sizes and weights of groups that are not all empty.
MIXTURES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12).map(lambda quarters: quarters / 4)), min_size=1
).filter(lambda groups: sum(round(size * weight) for size, weight in groups) > 0)


def epoch(sampler: MixtureSampler, number: int = 0) -> list[int]:
    sampler.set_epoch(number)
    return [draw.example for draw in sampler]


def mixture(
    groups: Sequence[tuple[int, float]], replicas: int = 1, rank: int = 0, seed: int = 0, batch: int = 4
) -> MixtureSampler:
    sizes, weights = zip(*groups, strict=True)
    return MixtureSampler(sizes, weights, replicas, rank, seed, batch)


@given(MIXTURES, st.integers(0, 3))
def test_epoch_has_each_sample_weight_times(groups: list[tuple[int, float]], number: int) -> None:
    sampler = mixture(groups)
    counts = Counter(epoch(sampler, number))
    assert len(sampler) == counts.total()
    start = 0
    for size, weight in groups:
        draws = [counts.pop(index, 0) for index in range(start, start + size)]
        assert sum(draws) == round(size * weight)
        assert set(draws) <= {math.floor(weight), math.ceil(weight)}
        start += size
    assert not counts


@given(MIXTURES, st.integers(1, 24), st.integers(0, 3))
def test_every_batch_has_nearly_the_same_mixture(groups: list[tuple[int, float]], batch: int, number: int) -> None:
    order = epoch(mixture(groups), number)
    ends = list(accumulate(size for size, _ in groups))
    for start in range(0, len(order) - batch + 1, batch):
        held = Counter(bisect_right(ends, index) for index in order[start : start + batch])
        for group, (size, weight) in enumerate(groups):
            assert abs(held[group] - batch * round(size * weight) / len(order)) < len(groups) + 1


@settings(max_examples=50)
@given(MIXTURES, st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31))
@example([(1, 1.0)], 4, 1, 0)
@example([(8, 1.0), (8, 1.0)], 2, 4, 0)
def test_processes_share_each_step_and_its_groups(
    groups: list[tuple[int, float]], replicas: int, batch: int, seed: int
) -> None:
    whole = epoch(mixture(groups, seed=seed))
    shares = [epoch(mixture(groups, replicas, rank, seed, batch)) for rank in range(replicas)]
    assert {len(share) for share in shares} == {math.ceil(len(whole) / replicas)}
    ends = list(accumulate(size for size, _ in groups))
    for start in range(0, len(shares[0]), batch):
        step = [share[start : start + batch] for share in shares]
        # The order is repeated if it does not divide evenly.
        positions = range(start * replicas, start * replicas + sum(map(len, step)))
        assert sorted(chain(*step)) == sorted(whole[position % len(whole)] for position in positions)
        for group in range(len(groups)):
            held = [sum(bisect_right(ends, index) == group for index in one) for one in step]
            assert max(held) - min(held) <= 1


@given(MIXTURES, st.integers(1, 3), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_resumes_at_a_batch(groups: list[tuple[int, float]], replicas: int, batch: int, taken: int) -> None:
    whole = list(mixture(groups, replicas, replicas - 1, 0, batch))
    resumed = mixture(groups, replicas, replicas - 1, 0, batch)
    resumed.start = taken * batch
    assert list(resumed) == whole[taken * batch :]
    assert list(resumed) == whole


def test_order_depends_on_seed_and_epoch_only() -> None:
    groups = [(40, 1.0), (40, 0.5)]
    first = epoch(mixture(groups))
    assert first == epoch(mixture(groups))
    sampler = mixture(groups)
    second = epoch(sampler, 1)
    assert second != first
    # Also another random half of the second group.
    assert {index for index in first if index >= 40} != {index for index in second if index >= 40}
    assert epoch(sampler, 0) == first
    assert epoch(mixture(groups, seed=1)) != first
    assert first != sorted(first)


def test_empty_mixture() -> None:
    with pytest.raises(DataError, match="mixture is empty"):
        mixture([(3, 0.0), (0, 1.0)])


def clues(media: Sequence[Media]) -> dict[Media, str]:
    return {one: f"about {Path(one.sources[0]).name}" for one in media}


def with_processor(data: UniRSDataModule) -> UniRSDataModule:
    tokenizer = train_tokenizer([], 300)
    data.processor = Processor(tokenizer, (16, 16), ResizeSpec(), (1, 1), 1, fuse_pairs=True, generate_clues=clues)
    return data


def decoded(loader: Any) -> list[tuple[Example, torch.Tensor]]:  # noqa: ANN401 - its dataset has a length
    """Examples and frames of a loader, before they are collated."""
    items = (loader.dataset[index] for index in loader.sampler)
    return [(example, visual.frames) for example, visual in items]


def examples_of(loaders: Sequence[Any]) -> list[Example]:
    return [example for loader in loaders for example, _ in decoded(loader)]


@pytest.fixture
def many_turns(colours: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """A task with 7, 1 and 3 questions about an image."""
    shutil.copy(colours / "red.png", tmp_path)
    rows = [
        {"id": str(row), "files": ["red.png"], "turns": [(f"{row}.{turn}", "yes") for turn in range(count)]}
        for row, count in enumerate((7, 1, 3))
    ]
    (tmp_path / "image.json").write_text(json.dumps(rows))
    return [{"name": str(colours / "plugin.py"), "root": str(tmp_path), "label": "many"}]


def test_evaluation_keeps_all_questions_about_an_image_together(many_turns: list[dict[str, Any]]) -> None:
    data = with_processor(UniRSDataModule(many_turns, max_turns=3, blank_media=False))
    assert [len(item.sample.turns) for item in examples_of(data.test_dataloader())] == [7, 1, 3]


def test_images_with_many_questions_become_several_samples(many_turns: list[dict[str, Any]]) -> None:
    data = with_processor(UniRSDataModule(many_turns, max_turns=3, blank_media=False))
    items = list(examples_of([data.train_dataloader()]))
    assert Counter(item.sample.id for item in items) == {"0": 3, "1": 1, "2": 1}
    assert max(len(item.sample.turns) for item in items) == 3
    turns_of = sorted(turn.id for item in items for turn in item.sample.turns)
    assert turns_of == sorted(turn.id for sample in data.split("many", "train") for turn in sample.turns)
    # The seven questions are split evenly.
    assert sorted(len(item.sample.turns) for item in items if item.sample.id == "0") == [2, 2, 3]


def test_validation_takes_a_fixed_random_subset(colours: Path, tmp_path: Path) -> None:
    shutil.copy(colours / "red.png", tmp_path)
    rows = [{"id": str(row), "files": ["red.png"], "turns": [("?", "yes")]} for row in range(100)]
    (tmp_path / "image.json").write_text(json.dumps(rows))
    spec = {"name": str(colours / "plugin.py"), "root": str(tmp_path)}

    def chosen(seed: int) -> list[int]:
        loaders = with_processor(UniRSDataModule([spec], val_samples=20, seed=seed)).val_dataloader()
        return [int(item.sample.id) for item in examples_of(loaders)]

    assert chosen(0) == chosen(0) == sorted(set(chosen(0)))
    assert len(chosen(0)) == 20
    assert chosen(0) != chosen(1)
    # Files may alternate between categories, which every n-th sample would miss.
    assert 5 <= sum(row % 2 for row in chosen(0)) <= 15
    every = with_processor(UniRSDataModule([spec], val_samples=None)).val_dataloader()
    assert [int(item.sample.id) for item in examples_of(every)] == list(range(100))


def test_clues_of_the_configured_tasks_and_uses(colour_tasks: list[dict[str, Any]]) -> None:
    uses = ("always", "test", "never")
    data = with_processor(
        UniRSDataModule([{**task, "clue": use} for task, use in zip(colour_tasks, uses, strict=True)])
    )

    def clued(loaders: Sequence[Any]) -> set[tuple[str, bool, bool]]:
        return {
            (item.task, isinstance(item.sample.media, PerturbedMedia), item.clue != "") for item in examples_of(loaders)
        }

    assert clued([data.train_dataloader()]) == {("image", False, True), ("pair", False, False), ("video", False, False)}
    assert clued(data.val_dataloader()) == {("image", False, True), ("pair", False, True), ("video", False, False)}
    # The baseline without visual input gets no clue.
    assert {entry for entry in clued(data.test_dataloader()) if entry[1]} == {
        ("image", True, False),
        ("pair", True, False),
        ("video", True, False),
    }


def test_media_are_augmented_in_training_only(tmp_path: Path, colours: Path) -> None:
    corner = Pillow.new("RGB", (16, 16))
    corner.paste((255, 255, 255), (0, 0, 4, 8))
    corner.save(tmp_path / "corner.png")
    rows = [{"id": str(row), "files": ["corner.png"], "turns": [("?", "yes")]} for row in range(64)]
    (tmp_path / "image.json").write_text(json.dumps(rows))
    spec = {"name": str(colours / "plugin.py"), "root": str(tmp_path), "augment": True}
    data = with_processor(UniRSDataModule([spec], batch_size=64))
    views = torch.stack([frames for _, frames in decoded(data.train_dataloader())]).flatten(1).unique(dim=0)
    assert len(views) == 8
    assert (views.sum(1) == views[0].sum()).all()
    still = [frames for loader in data.val_dataloader() for _, frames in decoded(loader)]
    assert torch.stack(still).flatten(1).unique(dim=0).shape[0] == 1


def test_test_loaders_have_all_samples_then_blank_frames(colour_tasks: list[dict[str, Any]]) -> None:
    data = with_processor(UniRSDataModule(colour_tasks))
    items = [item for loader in data.test_dataloader() for item in decoded(loader)]
    assert [one.task for one, _ in items] == [name for name in ("image", "pair", "video") for _ in range(4)] * 2
    assert [isinstance(one.sample.media, PerturbedMedia) for one, _ in items] == [False] * 12 + [True] * 12
    for (one, frames), (_, blank) in zip(items[:12], items[12:], strict=True):
        assert torch.equal(frames, one.sample.media.load_frames((16, 16)))
        assert blank.shape == frames.shape
        assert not blank.any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "rsvqa_lr", "wieght": 2}, r"no option 'wieght'"),
        ({"name": "era", "frame": 2}, r"no option 'frame'\. Did you mean 'num_frames'"),
        ({"name": "levir-cc"}, r"Unknown plugin 'levir-cc'.*Did you mean 'levir_cc'"),
        ({"root": "somewhere"}, r"needs a name.*Known: .*era, .*levir_cc"),
        ({"name": "era", "clue": "tets"}, r"'era': option 'clue' is 'tets'.*Did you mean 'test'"),
        ({"name": "era", "augment": "maybe"}, r"'era': option 'augment' is 'maybe', it must be bool"),
        ({"name": "era", "weight": -1}, r"'era': weight is -1\.0, it must be float, 0 or more"),
        (
            {"name": "era", "weight": "much", "label": "videos"},
            r"'videos': option 'weight' is 'much'",
        ),
        ({"name": "era", "weight": float("nan")}, r"'era': weight is nan"),
        ({"name": "era", "weight": float("inf")}, r"'era': weight is inf"),
        ({"name": "era", "weight": True}, r"'era': option 'weight' is True, it must be float"),
        ({"name": "era", "synthetic": True}, r"'era': option 'synthetic' is True, it must be SyntheticConfig \| None"),
        ({"name": "era", "synthetic": {"sise": 3}}, r"'era': option 'synthetic' is .*sise"),
        ({"name": "era", "synthetic": {"size": "big"}}, r"'era': option 'synthetic' is .*big"),
        ({"name": "era", "synthetic": {"size": -1}}, r"'era': synthetic\.size is -1"),
    ],
)
def test_wrong_options_of_a_task(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        TaskConfig.from_config(spec)


def test_names_and_roots_of_tasks(colours: Path) -> None:
    plain = TaskConfig.from_config({"name": "era"})
    assert (plain.name, plain.root, plain.weight) == ("era", Path("data/era"), 1.0)
    assert TaskConfig.from_config({"name": "era", "label": "short", "weight": 2}).name == "short"
    assert TaskConfig.from_config({"name": f"{colours}/plugin.py:build", "root": "."}).name == "plugin"


def test_two_tasks_of_equal_name() -> None:
    with pytest.raises(PluginError, match=r"Several tasks are named era.*label"):
        UniRSDataModule([{"name": "era"}, {"name": "rsvqa_lr"}, {"name": "era", "num_frames": 4}])
    assert list(UniRSDataModule([{"name": "era"}, {"name": "era", "label": "era4", "num_frames": 4}]).tasks) == [
        "era",
        "era4",
    ]


def test_no_tasks() -> None:
    with pytest.raises(PluginError, match=r"data\.tasks is empty"):
        UniRSDataModule([])


def test_missing_data_are_named_with_a_download_hint(tmp_path: Path) -> None:
    data = UniRSDataModule([{"name": "levir_cc", "root": str(tmp_path)}])
    with pytest.raises(DataError, match="'levir_cc': missing") as caught:
        data.prepare_data()
    for text in (str(tmp_path / "LevirCCcaptions.json"), str(tmp_path / "images"), "https://", "synthetic: {size:"):
        assert text in str(caught.value)
    without = UniRSDataModule([{"name": "rsvqa_hr", "root": str(tmp_path)}])
    with pytest.raises(DataError, match="'rsvqa_hr': missing") as caught:
        without.prepare_data()
    # It has no synthetic form to offer.
    assert "synthetic" not in str(caught.value)


def test_synthetic_data_are_made_once_and_nothing_is_overwritten(tmp_path: Path) -> None:
    root = tmp_path / "data" / "levir_cc"
    spec = {"name": "levir_cc", "root": str(root), "synthetic": {"size": 2, "seed": 5}}
    UniRSDataModule([spec]).prepare_data()
    written = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    assert len(UniRSDataModule([spec]).split("levir_cc", "train")) == 2
    UniRSDataModule([spec | {"synthetic": {"size": 3, "seed": 6}}]).prepare_data()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()} == written
    # Half a data set is the user's to mend.
    shutil.rmtree(root / "images")
    with pytest.raises(DataError, match=f"missing {root / 'images'}"):
        UniRSDataModule([spec]).prepare_data()
    assert [path.name for path in root.iterdir()] == ["LevirCCcaptions.json"]


def test_empty_split(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text("[]")
    data = UniRSDataModule([{"name": str(colours / "plugin.py"), "root": str(tmp_path), "label": "none"}])
    with pytest.raises(DataError, match="'none' has no samples in split 'val'"):
        data.split("none", "val")


# What users meet: bad files under a real training.


def break_picture(root: Path) -> tuple[str, str]:
    for path in (root / "Images_LR").iterdir():
        path.write_bytes(b"no image")
    return "does not decode", "Replace the file"


def drop_answer(root: Path) -> tuple[str, str]:
    path = root / "LR_split_train_questions.json"
    content = json.loads(path.read_text())
    rows = content["questions"]
    index = next(index for index, row in enumerate(rows) if row["active"] and row["type"] == "presence")
    rows[index]["answers_ids"] = []
    path.write_text(json.dumps(content))
    return f"{path}, row {index}: Expected `array` of length >= 1 - at `$.answers_ids`", "Correct the row"


def shrink_second(root: Path) -> tuple[str, str]:
    for path in (root / "images" / "train" / "B").iterdir():
        Pillow.new("RGB", (128, 256)).save(path)
    return "differ in size", "Crop or resample"


def ask_many_frames(root: Path) -> tuple[str, str]:  # noqa: ARG001
    return "frames, 99 are needed", "Set num_frames to at most"


@pytest.mark.parametrize(
    ("task", "damage", "options"),
    [
        ("rsvqa_lr", break_picture, {}),
        ("rsvqa_lr", drop_answer, {}),
        ("levir_cc", shrink_second, {}),
        ("era", ask_many_frames, {"num_frames": 99}),
    ],
)
def test_bad_data_stop_training_with_one_message(
    task: str,
    damage: Callable[[Path], tuple[str, str]],
    options: dict[str, Any],
    synthetic: Path,
    tmp_path: Path,
    cli: Cli,
    write_config: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / task
    shutil.copytree(synthetic / task, root)
    what, remedy = damage(root)
    config = write_config(tmp_path, [{"name": task, "root": str(root)} | options])
    assert cli("fit", "--config", config) == 1
    messages = [line for line in capfd.readouterr().err.splitlines() if line.startswith("unirs: error:")]
    assert len(messages) == 1
    assert what in messages[0]
    assert remedy in messages[0]
    assert str(root) in messages[0]
    left = [path.name for path in (tmp_path / "run").rglob("*")]
    assert "test" not in left
    assert not [name for name in left if name.endswith((".ckpt", ".partial"))]


def test_bad_data_stop_a_test_without_results(
    colours: Path,
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Cli,
    write_config: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "colours"
    shutil.copytree(colours, root)
    config = write_config(tmp_path, [colour_tasks[0] | {"root": str(root)}])
    assert cli("fit", "--config", config) == 0
    (root / "blue.png").write_bytes((root / "blue.png").read_bytes()[:60])
    assert cli("test", "--config", config) == 1
    assert f"unirs: error: Image {root / 'blue.png'} does not decode" in capfd.readouterr().err
    assert not (tmp_path / "run" / "test").exists()
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []
