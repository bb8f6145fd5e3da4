import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unirs_tasks.levir_cc import build as build_levir_cc
from unirs_tasks.rsvqa import build_lr
from unirs_tasks.synth import levir, paint, rsvqa
from unirs_tasks.synth.layout import ScenePlan, compose, random_plan
from unirs_tasks.synth.rsvqa import BalancedQuestionSampler, SceneFacts, extract_facts
from unirs_tasks.synth.scene import SIZE, Acquisition, Area, Building, Road, Scene, Tree, random_acquisition
from unirs_tasks.synth.sentences import describe_changes
from unirs_tasks.synth.writing import generator, map_items, new_folder

from unirs.errors import DataError
from unirs.metrics.caption import describes_change
from unirs.tasks.task import SplitName

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
SUN = paint.Sun(5.5, 0.8)


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows(root: Path, split: str, name: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((root / f"LR_split_{split}_{name}.json").read_text())[name]
    return content


def joined(root: Path, split: str) -> list[tuple[int, str, str, str]]:
    """Image id, type, question and answer, joined by id as the real files must be."""
    answers = {row["id"]: row for row in rows(root, split, "answers") if row["active"]}
    out = []
    for question in rows(root, split, "questions"):
        if question["active"]:
            (answer,) = (answers[number] for number in question["answers_ids"])
            assert answer["question_id"] == question["id"]
            out.append((question["img_id"], question["type"], question["question"], answer["answer"]))
    return out


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vqa") / "rsvqa_lr"
    rsvqa.write(root, 16, seed=1)
    return root


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captions") / "levir_cc"
    levir.write(root, 12, seed=1)
    return root


@pytest.fixture(scope="module")
def facts() -> list[SceneFacts]:
    return [
        extract_facts(compose(rng, random_plan(rng, "urban" if index % 2 else "rural")))
        for index, rng in enumerate(generator(0, index) for index in range(240))
    ]


# RSVQA-LR


def test_vqa_files_join_by_id_and_images_exist(vqa: Path) -> None:
    image_ids: set[int] = set()
    for split, count in zip(SPLITS, (16, 8, 8), strict=True):
        images = {row["id"]: row for row in rows(vqa, split, "images") if row["active"]}
        assert len(images) == count
        assert not image_ids & images.keys()
        image_ids |= images.keys()
        joined_rows = joined(vqa, split)
        for number, row in images.items():
            with Image.open(vqa / "Images_LR" / f"{number}.tif") as file:
                assert (file.format, file.mode, file.size) == ("TIFF", "RGB", (256, 256))
            assert 7 <= len(row["questions_ids"]) <= 12
            assert len(row["questions_ids"]) == sum(image == number for image, *_ in joined_rows)
    assert len(list((vqa / "Images_LR").iterdir())) == len(image_ids)


def test_vqa_files_have_inactive_rows_with_only_an_id(vqa: Path) -> None:
    for split in SPLITS:
        for name in ("questions", "answers", "images"):
            inactive = [row for row in rows(vqa, split, name) if not row["active"]]
            assert inactive
            assert all(row.keys() == {"id", "active"} for row in inactive)


def test_vqa_answers_are_not_in_the_order_of_the_questions(vqa: Path) -> None:
    questions = [row["answers_ids"][0] for row in rows(vqa, "train", "questions") if row["active"]]
    answers = [row["id"] for row in rows(vqa, "train", "answers") if row["active"]]
    assert sorted(questions) == sorted(answers)
    assert questions != answers


def test_vqa_does_not_depend_on_the_number_of_processes(
    vqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    rsvqa.write(tmp_path / "again", 16, seed=1)
    assert digest(tmp_path / "again") == digest(vqa)


def test_another_seed_gives_other_images(vqa: Path, tmp_path: Path) -> None:
    rng = generator(2, 0)
    scene = compose(rng, random_plan(rng, "urban"))
    Image.fromarray(scene.render(random_acquisition(rng))).save(tmp_path / "0.tif")
    assert (tmp_path / "0.tif").read_bytes() != (vqa / "Images_LR" / "0.tif").read_bytes()


def test_answers_are_balanced_by_type_and_wording(facts: list[SceneFacts]) -> None:
    sampler = BalancedQuestionSampler(np.random.default_rng(0))
    questions = [question for known in facts for question in sampler.sample(known)]
    by_type: dict[str, Counter[str]] = defaultdict(Counter)
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        by_type[question.category][question.answer] += 1
        by_text[question.text][question.answer] += 1
    assert set(by_type) == {"presence", "comp", "count", "rural_urban"}
    for question_type, (one, other) in (
        ("presence", ("yes", "no")),
        ("comp", ("yes", "no")),
        ("rural_urban", ("rural", "urban")),
    ):
        total = by_type[question_type].total()
        assert total >= 240
        assert abs(by_type[question_type][one] - by_type[question_type][other]) <= 0.04 * total
    for text, answers in by_text.items():
        if not any(answer.isdigit() for answer in answers):
            assert abs(max(answers.values()) * 2 - answers.total()) <= 1, text
    buckets: Counter[str] = Counter()
    for answer, count in by_type["count"].items():
        assert 0 <= int(answer) <= 100
        buckets["0" if answer == "0" else "1-10" if int(answer) <= 10 else "11-100"] += count
    assert min(buckets.values()) >= 0.25 * buckets.total()
    assert len(buckets) == 3


def test_answers_follow_from_the_facts_of_an_image() -> None:
    known = SceneFacts("rural", {"building": 3, "road": 0, "tree": 12}, {("building", "top"): True})
    expected = {
        "Is there a building?": "yes",
        "Is a road present?": "no",
        "Are there trees in the image?": "yes",
        "Are there more buildings than trees?": "no",
        "Are there less buildings than trees?": "yes",
        "Is the number of trees equal to the number of buildings?": "no",
        "Is there a building at the top of the image?": "yes",
        "Is it a rural or an urban area?": "rural",
        "How many trees are there?": "12",
    }
    descriptions = {
        q.text: q.answer
        for seed in range(150)
        for q in BalancedQuestionSampler(np.random.default_rng(seed)).sample(known)
    }
    assert expected.items() <= descriptions.items()
    assert not any("water" in text for text in descriptions)


def test_sentences_state_whether_something_changed(captions: Path) -> None:
    for row in json.loads((captions / "LevirCCcaptions.json").read_text())["images"]:
        for sentence in row["sentences"]:
            assert describes_change(" ".join(sentence["tokens"])) == bool(row["changeflag"]), sentence["raw"]


def test_comparisons_have_a_clear_margin() -> None:
    known = SceneFacts("urban", {"building": 20, "tree": 18, "vehicle": 19}, {})
    for seed in range(20):
        assert all(q.category != "comp" for q in BalancedQuestionSampler(np.random.default_rng(seed)).sample(known))


def test_trees_of_a_forest_are_not_counted() -> None:
    rng = np.random.default_rng(4)
    scene = compose(rng, ScenePlan("rural", forests=1, trees=9))
    known = extract_facts(scene)
    assert known.counts["forest"] == 1
    assert "tree" not in known.counts


def test_the_tasks_read_the_written_data(vqa: Path, captions: Path) -> None:
    for split, count in zip(SPLITS, (16, 8, 8), strict=True):
        samples = build_lr(vqa).load_split(split)
        assert len(samples) == count
        assert samples[0].media.load_frames((32, 32)).shape == (1, 3, 32, 32)
    for split, count in zip(SPLITS, (12, 8, 8), strict=True):
        pairs = build_levir_cc(captions).load_split(split)
        assert Counter(turn.category for sample in pairs for turn in sample.turns) == {
            "changed": count // 2,
            "unchanged": count // 2,
        }


# Scenes


@pytest.mark.parametrize("seed", range(6))
def test_things_are_large_enough_and_buildings_stand_on_free_land(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = compose(rng, ScenePlan("urban", houses=20, large_buildings=1, roads=3, waters=1, trees=15))
    buildings = [thing for thing in scene.things if isinstance(thing, Building)]
    assert len(buildings) >= 8
    taken = np.zeros((SIZE, SIZE), np.float32)
    for thing in scene.things:
        if isinstance(thing, Road):
            assert thing.width >= 6
            taken = np.maximum(taken, paint.stroke_mask(thing.path, thing.width, SIZE, SIZE))
        if isinstance(thing, Area) and thing.land_use == "water":
            assert np.ptp(thing.outline, axis=0).min() >= 16
            taken = np.maximum(taken, paint.polygon_mask(thing.outline, SIZE, SIZE))
        if isinstance(thing, Tree):
            assert thing.radius >= 4
    for building in buildings:
        assert min(building.length, building.width) >= 12
        mask = paint.polygon_mask(building.outline, SIZE, SIZE)
        assert (np.minimum(mask, taken)).sum() < 1
        taken = np.maximum(taken, mask)


def test_an_edited_scene_differs_only_where_it_was_edited() -> None:
    scene = compose(np.random.default_rng(0), ScenePlan("rural", houses=3, roads=1))
    house = next(thing for thing in scene.things if isinstance(thing, Building))
    acquisition = Acquisition(noise=0.0)
    changed = (scene.render(acquisition) != scene.without([house]).render(acquisition)).any(axis=2)
    y, x = np.nonzero(changed)
    assert changed.any()
    assert np.hypot(x - house.center[0], y - house.center[1]).max() < 2 * house.length
    assert (scene.without([house]).added([house]).render(acquisition) == scene.render(acquisition)).all()


@pytest.mark.parametrize("shift", [(2.0, 0.0), (0.0, -2.0), (1.5, 0.5)])
def test_a_shift_moves_the_image_by_that_many_pixels(shift: tuple[float, float]) -> None:
    scene = Scene("rural", "grass", 0, (Building((120.0, 130.0), 60, 40, 0.0, 3),))
    still, moved = (scene.render(Acquisition(noise=0.0, shift=way)).astype(float) for way in ((0.0, 0.0), shift))
    errors = {}
    for dx in range(-3, 4):
        for dy in range(-3, 4):
            errors[dx, dy] = np.abs(np.roll(still, (dy, dx), (0, 1))[8:-8, 8:-8] - moved[8:-8, 8:-8]).mean()
    best = min(errors, key=lambda key: errors[key])
    assert np.hypot(best[0] - shift[0], best[1] - shift[1]) <= 0.75


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
    angle=st.floats(-10, 10),
    length=st.floats(3, 90),
    elevation=st.floats(0.4, 1.57),
    azimuth=st.floats(0, 7),
    seed=st.integers(0, 1000),
)
def test_objects_draw_only_near_their_position(
    x: float, y: float, angle: float, length: float, elevation: float, azimuth: float, seed: int
) -> None:
    sun = paint.Sun(azimuth, elevation)
    y_grid, x_grid = np.mgrid[:80, :100] + 0.5
    away = np.hypot(x_grid - x, y_grid - y) > 3 * length + 8
    drawings: list[Callable[[paint.Array, np.random.Generator], None]] = [
        lambda canvas, rng: paint.building(canvas, rng, (x, y), length, 0.7 * length, angle, sun),
        lambda canvas, rng: paint.tree(canvas, rng, (x, y), length / 2, sun, "autumn"),
        lambda canvas, rng: paint.vehicle(canvas, rng, (x, y), angle, length, sun),
        lambda canvas, rng: paint.area(canvas, rng, paint.rectangle((x, y), length, length, angle), "water"),
    ]
    for drawing in drawings:
        canvas = np.full((80, 100, 3), 0.5, np.float32)
        drawing(canvas, np.random.default_rng(seed))
        assert (canvas >= 0).all()
        assert (canvas <= 1.2).all()
        assert (canvas[away] == 0.5).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["grass", "forest", "water", "crop_ripe"]), st.integers(1, 70), st.integers(1, 70))
def test_textures_have_the_given_size_and_range(cover: paint.Cover, height: int, width: int) -> None:
    made = paint.texture(np.random.default_rng(0), cover, height, width, "winter")
    assert made.shape == (height, width, 3)
    assert made.dtype == np.float32
    assert 0 <= made.min() <= made.max() <= 1


def test_masks_cover_the_area_of_their_shapes() -> None:
    square = paint.polygon_mask([(10, 10), (40, 10), (40, 30), (10, 30)], 64, 64)
    assert square.sum() == pytest.approx(600, rel=0.03)
    assert square[20, 20] == 1
    assert square[5, 5] == 0
    line = paint.stroke_mask([(-10, 32), (80, 32)], 6, 64, 64)
    assert line.sum() == pytest.approx(6 * 64, rel=0.06)


def test_a_shadow_falls_away_from_the_sun() -> None:
    canvas = np.full((60, 60, 3), 0.8, np.float32)
    paint.shadow(canvas, paint.polygon_mask([(25, 25), (35, 25), (35, 35), (25, 35)], 60, 60), 8, paint.Sun(0.0, 0.8))
    assert canvas[40, 30, 0] < 0.5
    assert canvas[20, 30, 0] == np.float32(0.8)


@pytest.mark.parametrize(
    ("azimuth", "dx", "dy"), [(0.0, 0, 1), (np.pi / 2, -1, 0), (np.pi, 0, -1), (3 * np.pi / 2, 1, 0)]
)
def test_a_building_shades_the_ground_along_its_whole_side(azimuth: float, dx: int, dy: int) -> None:
    canvas = np.full((80, 80, 3), 0.8, np.float32)
    paint.building(canvas, np.random.default_rng(0), (40, 40), 24, 24, 0.0, paint.Sun(azimuth, 0.7))
    for along in (-8, 0, 8):
        x, y = 40 + 14 * dx + along * abs(dy), 40 + 14 * dy + along * abs(dx)
        assert canvas[y, x, 0] < 0.5
        assert canvas[80 - y, 80 - x, 0] == np.float32(0.8)


# LEVIR-CC


def test_caption_file_has_the_real_format_and_half_of_the_pairs_unchanged(captions: Path) -> None:
    entries = json.loads((captions / "LevirCCcaptions.json").read_text())["images"]
    assert Counter(entry["split"] for entry in entries) == {"train": 12, "val": 8, "test": 8}
    ids = [sentence["sentid"] for entry in entries for sentence in entry["sentences"]]
    assert ids == list(range(5 * len(entries)))
    for entry in entries:
        assert entry["filepath"] == entry["split"]
        assert re.fullmatch(rf"{entry['split']}_\d{{6}}\.png", entry["filename"])
        assert entry["sentids"] == [sentence["sentid"] for sentence in entry["sentences"]]
        assert len({sentence["raw"] for sentence in entry["sentences"]}) == 5
        for sentence in entry["sentences"]:
            assert sentence["raw"] == " ".join(sentence["tokens"]) + " ."
            assert all(re.fullmatch("[a-z]+", token) for token in sentence["tokens"])
            assert sentence["imgid"] == entry["imgid"]
        for time in "AB":
            with Image.open(captions / "images" / entry["filepath"] / time / entry["filename"]) as file:
                assert (file.format, file.mode, file.size) == ("PNG", "RGB", (256, 256))
    for split in SPLITS:
        flags = [entry["changeflag"] for entry in entries if entry["split"] == split]
        assert sum(flags) * 2 == len(flags)


def test_captions_do_not_depend_on_the_number_of_processes(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    levir.write(tmp_path / "again", 12, seed=1)
    assert digest(tmp_path / "again") == digest(captions)


def middle_of_change(before: Scene, after: Scene) -> tuple[float, float, float]:
    """Share of the image that changed under the same acquisition, and the centre of the change, all in 0..1."""
    acquisition = Acquisition(noise=0.0)
    difference = np.abs(before.render(acquisition).astype(int) - after.render(acquisition)).max(axis=2) > 16
    y, x = np.nonzero(difference)
    return float(difference.mean()), float(x.mean() / SIZE), float(y.mean() / SIZE)


@pytest.mark.parametrize("seed", range(24))
def test_each_change_is_visible_at_the_location_in_its_sentences(seed: int) -> None:
    scenario = levir.sample_scenario(generator(7, seed), changed=True)
    assert 1 <= len(scenario.changes) <= 2
    empty = Scene("rural", "grass", 0)
    for change in scenario.changes:
        assert not {id(thing) for thing in change.before} & {id(thing) for thing in scenario.after.things}
        assert {id(thing) for thing in change.before} <= {id(thing) for thing in scenario.before.things}
        assert {id(thing) for thing in change.after} <= {id(thing) for thing in scenario.after.things}
        share, x, y = middle_of_change(empty.added(change.before), empty.added(change.after))
        assert share >= 0.025
        words = " ".join(
            describe_changes(generator(seed), [(change.topic, change.appears, change.location)], 5)
        ).split()
        for word, holds in (
            ("left", x < 0.45),
            ("right", x > 0.55),
            ("top", y < 0.45),
            ("bottom", y > 0.55),
            ("center", 0.35 < x < 0.65 and 0.35 < y < 0.65),
            ("middle", 0.35 < x < 0.65 and 0.35 < y < 0.65),
        ):
            assert word not in words or holds, (change.topic, word, x, y)


@pytest.mark.parametrize("seed", range(4))
def test_only_cars_differ_in_an_unchanged_pair(seed: int) -> None:
    scenario = levir.sample_scenario(generator(8, seed), changed=False)
    lasting = [
        {id(thing) for thing in scene.things if isinstance(thing, Area | Building | Road | Tree)}
        for scene in (scenario.before, scenario.after)
    ]
    assert lasting[0] == lasting[1]
    assert not scenario.changes


def test_pixel_differences_do_not_reveal_changed_pairs() -> None:
    differences, changed = [], []
    for index in range(64):
        rng = generator(9, index)
        scenario = levir.sample_scenario(rng, index % 2 == 0)
        pair = [
            scene.render(random_acquisition(rng, moved=True)).astype(np.float32)
            for scene in (scenario.before, scenario.after)
        ]
        differences.append(np.abs(pair[0] - pair[1]).mean())
        changed.append(index % 2 == 0)
    predicted_changed = np.array(differences)[None] > np.sort(differences)[:, None]
    accuracy = (predicted_changed == np.array(changed)).mean(axis=1)
    assert max(accuracy.max(), 1 - accuracy.min()) <= 0.70


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_sentences_are_short_and_varied_and_name_the_changes(seed: int) -> None:
    events: list[Any] = [("many houses", True, "top left"), ("a pond", False, "right")]
    sentences = describe_changes(np.random.default_rng(seed), events, 5)
    assert len(set(sentences)) == 5
    for sentence in sentences:
        assert 6 <= len(sentence.split()) <= 16
        assert not re.search(
            r"(houses|buildings) (are|have been) (removed|demolished)|(houses|buildings) disappear", sentence
        )
        assert not re.search(r"(pond|area|lake) (appears|is dug|has appeared)", sentence)


def test_the_vocabulary_is_small() -> None:
    words: set[str] = set()
    for seed in range(150):
        rng = generator(3, seed)
        changes = levir.sample_scenario(rng, seed % 10 > 0).changes
        events = [(change.topic, change.appears, change.location) for change in changes]
        words.update(" ".join(describe_changes(rng, events, 5)).split())
    assert 60 < len(words) <= 120


# Writing


@pytest.mark.parametrize("write", [rsvqa.write, levir.write])
def test_a_folder_that_is_not_empty_is_an_error(write: Callable[[Path, int, int], None], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not an empty folder"):
        write(tmp_path / "data", 1, 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "mine.txt"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(levir, "write_json", interrupt)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        levir.write(tmp_path / "data", 1, 0)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled_and_missing_parents_are_created(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", tmp_path / "a" / "b"):
        with new_folder(root) as folder:
            (folder / "file").write_text("x")
            assert not (root / "file").exists()
        assert (root / "file").read_text() == "x"
        assert [path.name for path in root.parent.iterdir() if path.name.startswith(".")] == []


def draw(item: int, rng: np.random.Generator) -> tuple[int, int]:
    return item, int(rng.integers(2**31))


def test_items_have_their_own_random_generators(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Progress is shown on terminals only; this makes the captured stderr a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    results = map_items(draw, [5, 6, 7], seed=3, description="some items")
    assert [item for item, _ in results] == [5, 6, 7]
    assert len({value for _, value in results}) == 3
    assert results == map_items(draw, [5, 6, 7], seed=3, description="some items", processes=1)
    assert results != map_items(draw, [5, 6, 7], seed=4, description="some items")
    captured = capsys.readouterr()
    assert "some items" in captured.err
    assert captured.out == ""
