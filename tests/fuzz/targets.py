"""What is fuzzed: valid files, and the code that reads them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.fuzz.cases import Target
from tests.fuzz.files import call, write_image, write_json, write_lines
from tests.fuzz.models import MODEL_TARGETS
from tests.tasks import (
    test_captions,
    test_changechat,
    test_dior_rsvg,
    test_earthvqa,
    test_fmow_series,
    test_lrs_vqa,
    test_vrsbench,
    test_xbd,
)
from unirs import plugins
from unirs.errors import UniRSError

ROOT = Path(__file__).parents[2]


def _video(name: str, codec: str, folder: Path, step: int = 20) -> None:
    import av

    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 32, 32, "yuv420p", 1
        stream.gop_size = 4
        for index in range(9):
            frame = np.full((32, 32, 3), index * step, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


# Tasks.


def _check(name: str, options: Mapping[str, object], folder: Path) -> None:
    """`unirs tasks check` without the contact sheet, which takes longer than the rest."""
    from unirs.evaluation.task_check import check_task

    report = check_task(plugins.create("unirs.tasks", {"name": name, "root": folder, **options}))
    text = "\n".join(report.lines())
    if report.problems:
        raise UniRSError(text)


def _check_and_draw(folder: Path) -> None:
    call("tasks", "check", "jsonl", "--root", folder)


def _rsvqa(prefixes: tuple[str, ...], images: tuple[str, ...], file_names: bool, folder: Path) -> None:
    types = ("presence", "comp") if not file_names else ("change_or_not", "increase_or_not")
    for start, prefix in enumerate(prefixes):
        ids = range(4 * start, 4 * start + 4)
        rows: dict[str, list[dict[str, Any]]] = {
            "questions": [
                {
                    "id": key,
                    "img_id": key // 2,
                    "type": types[key % 2],
                    "question": f"Is {key} there?",
                    "answers_ids": [key],
                    "active": True,
                }
                for key in ids
            ],
            "answers": [
                {"id": key, "question_id": key, "answer": ("no", "yes")[key % 2], "active": True} for key in ids
            ],
            "images": [{"id": key, "file_name": f"{key}.png", "active": True} for key in sorted({i // 2 for i in ids})],
        }
        for name, content in rows.items():
            write_json(folder, f"{prefix}_{name}.json", {name: content})
        for row in rows["images"]:
            for where in images:
                write_image(folder, where.format(row["id"]), 20 * int(str(row["id"])))


def _levir(folder: Path) -> None:
    rows = []
    for index, split in enumerate(("train", "train", "val", "test")):
        name = f"{split}_{index}.png"
        for time in "AB":
            write_image(folder, f"images/{split}/{time}/{name}", 30 * index + ord(time))
        sentences = [{"raw": f"a road {n} appears", "tokens": ["a", "road", str(n), "appears"]} for n in range(2)]
        row = {"filepath": split, "filename": name, "split": split, "changeflag": index % 2, "sentences": sentences}
        rows.append(row | {"imgid": index, "sentids": [0, 1]})
    write_json(folder, "LevirCCcaptions.json", {"images": rows, "dataset": "LEVIR_CC"})


def _geochat(folder: Path) -> None:
    rows = []
    for index in range(3):
        write_image(folder, f"images/{index}.png", 40 * index)
        texts = ("<image>\n[refer] Where?", "left", "And how many?", "3")
        conversations = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
        rows.append({"id": index, "image": f"{index}.png", "conversations": conversations})
    write_json(folder, "GeoChat_Instruct.json", rows)


def _jsonl(fields: tuple[str, ...], folder: Path) -> None:
    for start, split in enumerate(("train", "val", "test")):
        rows = []
        for index in range(3):
            names = [f"{split}{index}{field}.png" for field in fields]
            for shade, name in enumerate(names):
                write_image(folder, name, 70 * start + 20 * index + 3 * shade)
            media: dict[str, Any] = {"image": names[0]} if len(fields) == 1 else {"images": names}
            if len(fields) > 2:
                media["dates"] = [f"{2016 + number}-05" for number in range(len(fields))]
            row = {**media, "question": f"Which {index}?", "answer": "yes", "references": ["yes", "no"]}
            rows.append(row | {"category": "yes", "id": f"{split}-{index}"})
        write_lines(folder, f"{split}.jsonl", rows)


def _changechat(folder: Path) -> None:
    test_changechat.write(folder, test_changechat.FILES)
    rows = []
    for index in range(3):
        images = [f"train/{time}/{index}.png" for time in "AB"]
        for shade, name in enumerate(images):
            write_image(folder, f"images/{name}", 5 + 20 * index + shade)
        rows.append(test_changechat.row("", test_changechat.CAPTION, f"A road {index}.", image=images))
    write_json(folder, "annotations/train.json", rows)


def _xbd(folder: Path) -> None:
    buildings = [test_xbd.building(damage, *test_xbd.SQUARE) for damage in ("destroyed", "no-damage", "un-classified")]
    for split in ("train", "hold", "test"):
        test_xbd.write(folder, split, *buildings)


def _fmow(folder: Path) -> None:
    for split in ("train", "val"):
        for name in ("zoo", "dam"):
            for number in range(2):
                test_fmow_series.write(folder, split, name, test_fmow_series.UNORDERED, place=f"{name}_{number}")


def _crsvqa(folder: Path) -> None:
    (folder / "text").mkdir(parents=True)
    for index in range(6):
        write_image(folder, f"image/{index}.png", 30 * index)
        text = f"What is the theme of {index}?\nAirport\nHow many planes are there?\n{index}\n"
        (folder / "text" / f"{index}.txt").write_text(text)
    _splits(folder, [(str(index), ("train", "val", "test")[index % 3]) for index in range(6)])


def _scenes(folder: Path) -> None:
    names = [f"{scene}/{index}.png" for scene in ("River_Lake", "farm") for index in range(5)]
    for index, name in enumerate(names):
        write_image(folder, f"scenes/{name}", 20 * index)
    _splits(folder, [(name, ("train", "train", "val", "test")[index % 4]) for index, name in enumerate(names)])


def _splits(folder: Path, rows: list[tuple[str, str]]) -> None:
    (folder / "splits.csv").write_text("file,split\n" + "".join(f"{file},{split}\n" for file, split in rows))


def _check_scenes(folder: Path) -> None:
    _check("scene_folder", {"split_file": folder / "splits.csv"}, folder / "scenes")
    _check("scene_folder", {}, folder / "scenes")


def _era(folder: Path) -> None:
    names = ("Train/Fire/0.mp4", "Train/Fire/1.mp4", "Train/Police_Chase/2.mp4", "Test/Parade-Protest/3.mp4")
    for index, name in enumerate(names):
        _video(name, "libx264", folder, 15 + index)


# Media.

_IMAGES: Mapping[str, Mapping[str, object]] = {
    "png": {},
    "jpg": {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
    "tif": {"compression": "tiff_lzw"},
    "bmp": {},
    "gif": {},
    "webp": {"lossless": True},
}


def _read_images(folder: Path) -> None:
    from unirs.tasks.media import Image, ResizeSpec

    for path in sorted(folder.iterdir()):
        image = Image(path)
        image.load_frames()
        image.load_frames((8, 10), ResizeSpec("pad"))
        image.content_key()


def _read_videos(folder: Path) -> None:
    from unirs.tasks.media import Video

    for path in sorted(folder.iterdir()):
        video = Video(path, 3)
        video.load_frames((8, 8))
        video.content_key()


# Requests to the service.


def _request(folder: Path) -> None:
    import base64

    write_image(folder, "image.png", 40)
    content = base64.b64encode((folder / "image.png").read_bytes()).decode()
    (folder / "image.png").unlink()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}
    message = {"role": "user", "content": [image, {"type": "text", "text": "Is there a road?"}, image]}
    options = {"max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stream": False, "n": 1}
    more = {"modality": "series", "dates": ["2016", "2017"], "choices": ["yes", "no"], "clue": "a road"}
    write_json(folder, "request.json", {"model": "run", "messages": [message], **options, **more})


def _parse_request(folder: Path) -> None:
    from unirs.serve.errors import as_request_error
    from unirs.serve.media import DecodedMedia
    from unirs.serve.request import RequestLimits, parse_request
    from unirs.tasks.media import STRETCH

    path = folder / "request.json"
    if not path.is_file():
        return
    try:
        DecodedMedia(parse_request(path.read_bytes(), "run", RequestLimits()).media, (8, 8), STRETCH).decode()
    except UniRSError as error:
        failure = as_request_error(error)
        assert 400 <= failure.status < 500
        json.dumps(failure.body()).encode()


# Suites and configs.


def _copy_yaml(source: str, folder: Path) -> None:
    # JSON is YAML: mutations of JSON serve both.
    content = yaml.safe_load((ROOT / source).read_text(encoding="utf-8"))
    (folder / "config.yaml").write_text(json.dumps(content), encoding="utf-8")


def _read_suite(folder: Path) -> None:
    from unirs.evaluation.benchmark_tables import bench_tables, json_report, to_text
    from unirs.evaluation.suite import Suite
    from unirs.utils.typed_yaml import read_yaml

    suite = read_yaml(folder / "config.yaml", Suite)
    layout = bench_tables(suite, {})
    to_text(layout)
    json_report(layout, suite)


def _read_ablations(folder: Path) -> None:
    from unirs.evaluation.ablation_suite import AblationSuite, make_plan
    from unirs.utils.typed_yaml import read_yaml

    for run in make_plan(read_yaml(folder / "config.yaml", AblationSuite)).trainings:
        run.resolved(folder)


def _parse_config(folder: Path) -> None:
    if (folder / "config.yaml").is_fifo():
        return  # A shell's <(...), which is a file for users.
    with contextlib.suppress(SystemExit):
        call("fit", "--config", folder / "config.yaml", "--print_config")


# Answers.


def _rows(folder: Path, stem: str, wrong: int) -> None:
    rows = [
        {
            "id": f"q{index}",
            "task": "fuzz",
            "media": [f"{index // 2}.png"],
            "category": ("presence", "comp")[index % 2],
            "prompt": "Is it?",
            "clue": "",
            "text": "no" if index == wrong else "yes",
            "normalized": "yes",
            "references": ["yes", "a yes"],
            "score": 1.0,
        }
        for index in range(4)
    ]
    write_lines(folder, stem, rows)


def _answers(folder: Path) -> None:
    _rows(folder, "answers.jsonl", 1)
    write_lines(folder, "references.jsonl", [{"question_id": f"q{n}", "answer": "yes", "type": "x"} for n in range(4)])


def _score(folder: Path) -> None:
    path, out = folder / "answers.jsonl", folder / "out"
    calls: tuple[tuple[object, ...], ...] = (
        ("--as", "exact", "--out", out, "--allow-missing"),
        ("--as", "exact", "--references", folder / "references.jsonl"),
        ("--as", "top1"),
    )
    for options in calls:
        call("score", path, *options)


def _published(folder: Path) -> None:
    """Answers as other programs write them, a vocabulary, and WordNet's files."""
    row = {"question": "q", "answer": "yes", "annotation": "yes", "vqa_type": "presence"}
    write_lines(folder, "earthdial.jsonl", [row, row | {"answer": "12 roads, no", "annotation": "2"}])
    box = {"question": "q", "answer": "[[1, 2, 30, 40, 90]][[5, 6]]", "gt_bbox": "[[1, 2, 30, 40, 0]]"}
    write_lines(folder, "boxes.jsonl", [box | {"size_group": size} for size in ("small", "large")])
    captions = {f"caption{index}": "there is no difference" for index in range(5)}
    write_lines(folder, "captions.jsonl", [{"question": "q", "answer": "a road is built", **captions}] * 2)
    vrsbench = {"image_id": "a.png", "question": "q", "answer": "{<1><2><3><4>}", "ground_truth": "{<1><2><30><4>}"}
    rows = [vrsbench | {"question_id": index, "type": "ref", "is_unique": bool(index)} for index in range(2)]
    write_lines(folder, "vrsbench.jsonl", rows)
    write_json(folder, "vocab.json", {"<UNK>": 1, "road": 2, "there": 3})
    for part in ("noun", "verb", "adj", "adv"):
        (folder / "wordnet").mkdir(exist_ok=True)
        (folder / "wordnet" / f"index.{part}").write_text("road n 1 1 @ 1 1 00000010\nyes n 1 1 @ 1 1 00000010\n")
        (folder / "wordnet" / f"{part}.exc").write_text("roads road\n")


def _score_published(folder: Path) -> None:
    options = [f"vocabulary={folder / 'vocab.json'}", f"wordnet={folder / 'wordnet'}", "meteor=false"]
    for name in ("earthdial", "boxes", "captions", "vrsbench"):
        arguments = [word for option in options for word in ("--option", option)]
        call("score", folder / f"{name}.jsonl", "--as", "all", *arguments, "--out", folder / "out")


def _runs(folder: Path) -> None:
    for run, wrong in (("a", 1), ("b", 2)):
        _rows(folder, f"{run}/test/predictions/fuzz.jsonl", wrong)
        numbers = {"value": 0.75, "ci_low": 0.5, "ci_high": 1.0, "n": 4}
        metrics = {"stage": "test", "step": 1, "tasks": {"fuzz": {"accuracy": numbers}}}
        more: dict[str, Any] = {"baselines": {}, "excluded": {"fuzz": {}}, "evaluated": {"fuzz": {"comp": 2}}}
        write_json(folder, f"{run}/test/metrics.json", metrics | more)
        write_json(folder, f"{run}/config.yaml", {"data": {"tasks": [{"name": "jsonl", "label": "fuzz"}]}})


def _compare(folder: Path) -> None:
    call("compare", folder / "a", folder / "b", "--resamples", 50, "--out", folder / "out.md")


def _task(name: str, write: Callable[[Path], object], plugin: str = "", **options: object) -> Target:
    return Target(name, write, partial(_check, plugin or name, options), keys=_SPLITS)


_SPLITS = ("train", "val", "test")
_LR, _HR = (tuple(f"{prefix}_split_{split}" for split in _SPLITS) for prefix in ("LR", "USGS"))

TARGETS = {
    target.name: target
    for target in (
        _task("rsvqa_lr", partial(_rsvqa, _LR, ("Images_LR/{}.tif",), False)),
        _task("rsvqa_hr", partial(_rsvqa, _HR, ("Data/{}.tif",), False), protocol="rsvqa"),
        _task("cdvqa", partial(_rsvqa, ("Train", "Val", "Test"), ("im1/{}.png", "im2/{}.png"), True)),
        _task("levir_cc", _levir, meteor=False),
        _task("geochat_instruct", _geochat, images="images"),
        _task("geochat_skipping", _geochat, "geochat_instruct", images="images", skip_bad_rows=True, dialogue=True),
        _task("jsonl_image", partial(_jsonl, ("",)), "jsonl"),
        Target("contact_sheet", partial(_jsonl, ("",)), _check_and_draw, 1, _SPLITS),
        _task("jsonl_pair", partial(_jsonl, ("a", "b")), "jsonl", modality="pair", metric="caption"),
        _task("jsonl_top1", partial(_jsonl, ("",)), "jsonl", metric="top1", choices=["yes", "no"]),
        _task("jsonl_series", partial(_jsonl, ("a", "b", "c")), "jsonl", modality="series"),
        _task("changechat", _changechat, meteor=False),
        _task("xbd", _xbd),
        _task("fmow_series", _fmow),
        _task("crsvqa", _crsvqa, split_file=Path("splits.csv")),
        _task("era", _era, num_frames=2),
        *(_task(name, partial(test_captions.write, name=name), meteor=False) for name in ("rsicd", "nwpu_captions")),
        *(_task(f"vrsbench_{one}", test_vrsbench.write, "vrsbench", subtask=one) for one in ("vqa", "referring")),
        _task("vrsbench_skipping", test_vrsbench.write, "vrsbench", skip_bad_rows=True),
        _task("dior_rsvg", test_dior_rsvg.write),
        _task("earthvqa", test_earthvqa.write),
        _task("lrs_vqa", partial(test_lrs_vqa.write, rows=[test_lrs_vqa.row(number) for number in range(4)])),
        Target("scene_folder", _scenes, _check_scenes, keys=_SPLITS),
        *(
            Target(f"image_{ending}", partial(write_image, name=f"image.{ending}", options=options), _read_images)
            for ending, options in _IMAGES.items()
        ),
        *(
            Target(f"video_{ending}", partial(_video, f"video.{ending}", codec), _read_videos)
            for ending, codec in (("mp4", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("mkv", "libx264"))
        ),
        Target("request", _request, _parse_request),
        Target("suite", partial(_copy_yaml, "benchmarks/suites/paper.yaml"), _read_suite),
        Target("ablations", partial(_copy_yaml, "benchmarks/suites/ablations.yaml"), _read_ablations),
        Target("score", _answers, _score, 20),
        Target("protocols", _published, _score_published, 20),
        Target("compare", _runs, _compare, 20),
        Target(
            "fit_config",
            partial(_copy_yaml, "configs/quickstart.yaml"),
            _parse_config,
            4,
            ("model.", "data.", "trainer."),
        ),
        *MODEL_TARGETS,
    )
}
"""By name."""
