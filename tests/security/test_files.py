"""Names, paths and formats in hostile files: nothing is written, deleted or opened elsewhere, and nothing hangs."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
import yaml

from unirs import Image, Video
from unirs.errors import UniRSError
from unirs.models.llm import LLMConfig, load_config
from unirs.tasks.config import TaskConfig

Error = Callable[..., str]
OUTSIDE = ("../../../x", "/etc/x", "..", ".", "a/b", "a\\b", ".hidden", "a\0b", "a\nb", "x" * 300)


# Names.


@pytest.mark.parametrize("label", OUTSIDE)
def test_labels_of_tasks(
    label: str, error: Error, write_config: Callable[..., Path], colours: Path, tmp_path: Path
) -> None:
    task = {"name": str(colours / "plugin.py"), "root": str(colours), "label": label}
    victim = tmp_path / "victim.jsonl"
    victim.touch()
    with pytest.raises(UniRSError, match="cannot name a file"):
        TaskConfig.from_config(task)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        yaml.safe_dump({"title": "s", "tasks": [{"title": "t", "task": task, "columns": {"accuracy": "A"}}]})
    )
    out = tmp_path / "deep" / "down" / "out"
    assert "cannot name a file" in error("bench", "--suite", suite, "--model", tmp_path, "--out", out)
    assert "cannot name a file" in error("fit", "--config", write_config(tmp_path / "fit", [task]))
    assert victim.exists()
    assert not out.parent.exists()


@pytest.mark.parametrize(("model", "below", "name"), [("..", "logs", "_"), ("logs/..", "", "_"), (".", "", "model")])
def test_models_of_benchmarks(
    model: str,
    below: str,
    name: str,
    learnt_run: Path,
    colour_tasks: list[dict[str, Any]],
    cli: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    suite = tmp_path / "suite.yaml"
    task = {"title": "t", "task": colour_tasks[1], "columns": {"accuracy": "A"}}
    suite.write_text(yaml.safe_dump({"title": "s", "tasks": [task]}))
    monkeypatch.chdir(learnt_run / below)
    out = tmp_path / "deep" / "out"
    options = ("--limit", 1, "--no-baselines", "--trust-remote-code", "--device", "cpu", "--feature-cache-gb", 0)
    assert cli("bench", "--suite", suite, "--model", model, "--out", out, *options) == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir() if path.is_dir()] == [name]


@pytest.mark.parametrize("name", OUTSIDE)
def test_variants_of_ablations(
    name: str, error: Error, tiny_model: dict[str, Any], colours: Path, tmp_path: Path
) -> None:
    task = {"name": str(colours / "plugin.py"), "root": str(colours), "label": "colours"}
    victim = tmp_path / "x-seed0"
    victim.mkdir()
    base = {"model": tiny_model, "data": {"tasks": [task]}}
    group = {"title": "g", "variants": {"first": {}, name: {}}}
    suite = {
        "title": "s",
        "seeds": [0],
        "columns": {"colours": {"accuracy": "A"}},
        "base": base,
        "groups": {"g": group},
    }
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    assert "cannot name a folder" in error("ablate", "--suite", path, "--out", tmp_path / "out")
    prepared = {name: {"seed": 0}}
    path.write_text(
        yaml.safe_dump(suite | {"groups": {"g": {"title": "g", "variants": {"a": {}}}}, "prepared": prepared})
    )
    assert "cannot name a folder" in error("ablate", "--suite", path, "--out", tmp_path / "out")
    assert victim.is_dir()
    assert not (tmp_path / "out").exists()


def test_task_names_in_metrics(tmp_path: Path, error: Error) -> None:
    document = {"stage": "test", "step": 1, "tasks": {"../../x": {}}, "baselines": {}, "excluded": {}, "evaluated": {}}
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "metrics.json").write_text(json.dumps(document))
    assert "no name of a task" in error("compare", tmp_path, tmp_path)


# Media in annotation files.


def write_image(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 8)).save(path)
    return str(path)


def levir(root: Path, name: str) -> dict[str, Any]:
    row = {"split": "test", "filepath": "test", "filename": name, "changeflag": 0, "sentences": [{"raw": "no change"}]}
    (root / "images").mkdir()
    (root / "LevirCCcaptions.json").write_text(json.dumps({"images": [row]}))
    return {"name": "levir_cc"}


def levir_folder(root: Path, name: str) -> dict[str, Any]:
    spec = levir(root, "secret.png")
    content = json.loads((root / "LevirCCcaptions.json").read_text())
    content["images"][0]["filepath"] = name.removesuffix("secret.png")
    (root / "LevirCCcaptions.json").write_text(json.dumps(content))
    return spec


def jsonl(root: Path, name: str) -> dict[str, Any]:
    (root / "test.jsonl").write_text(json.dumps({"image": name, "question": "?", "answer": "a"}) + "\n")
    return {"name": "jsonl", "splits": ["test"]}


def pairs(root: Path, name: str) -> dict[str, Any]:
    (root / "test.jsonl").write_text(json.dumps({"images": ["a.png", name], "question": "?", "answer": "a"}) + "\n")
    return {"name": "jsonl", "splits": ["test"], "modality": "pair"}


def geochat(root: Path, name: str) -> dict[str, Any]:
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (root / "GeoChat_Instruct.json").write_text(json.dumps([{"image": name, "conversations": talk}]))
    return {"name": "geochat_instruct", "images": "."}


def series(root: Path, name: str) -> dict[str, Any]:
    line = {"images": ["a.png", name], "dates": ["2016", "2017"], "question": "?", "answer": "a"}
    (root / "test.jsonl").write_text(json.dumps(line) + "\n")
    return {"name": "jsonl", "splits": ["test"], "modality": "series"}


def changechat(root: Path, name: str) -> dict[str, Any]:
    (root / "annotations").mkdir()
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (root / "annotations" / "test.json").write_text(json.dumps([{"image": ["a.png", name], "conversations": talk}]))
    return {"name": "changechat"}


def cdvqa(root: Path, name: str) -> dict[str, Any]:
    question = {"id": 0, "img_id": 0, "type": "change_or_not", "question": "?", "answers_ids": [0]}
    for kind, row in (
        ("questions", question),
        ("answers", {"id": 0, "answer": "yes"}),
        ("images", {"id": 0, "file_name": name}),
    ):
        (root / f"Test_{kind}.json").write_text(json.dumps({kind: [row]}))
    return {"name": "cdvqa"}


@pytest.mark.parametrize("write", [levir, levir_folder, jsonl, pairs, series, geochat, changechat, cdvqa])
@pytest.mark.parametrize("escape", ["../../../../../secret.png", "ABSOLUTE", "sub/../../../../../../secret.png"])
def test_media_outside_of_the_root(write: Callable[[Path, str], dict[str, Any]], escape: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    name = escape.replace("ABSOLUTE", str(tmp_path / "secret.png"))
    spec = {**write(root, name), "root": str(root)}
    split: Any = "train" if write is geochat else "test"
    with pytest.raises(UniRSError, match=r"outside of the task's root .*allow_outside_root"):
        TaskConfig.from_config(spec).task.load_split(split)[0]
    allowed = TaskConfig.from_config({**spec, "allow_outside_root": True}).task.load_split(split)
    assert len(allowed[0].media.sources) > 0


def test_links_are_the_users(tmp_path: Path) -> None:
    write_image(tmp_path / "disk" / "a.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk")
    spec = jsonl(root, "images/a.png")
    (sample,) = TaskConfig.from_config({**spec, "root": str(root)}).task.load_split("test")
    assert sample.media.load_frames().shape == (1, 3, 8, 8)


# Videos that are scripts, and URLs.


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server, and the paths that were fetched from it."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fetched.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{one.server_port}", fetched
        one.shutdown()
        thread.join()


def scripts(secret: Path, url: str) -> dict[str, str]:
    return {
        "ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat of a URL": f"ffconcat version 1.0\nfile '{url}/concat.mp4'\n",
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{url}/hls.ts\n#EXT-X-ENDLIST\n",
        "playlist of a file": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        f'<Representation id="1" mimeType="video/mp4"><BaseURL>{url}/dash.mp4</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "image sequence": "P6 1 1 255\n\0\0\0",
        "subtitles": "1\n00:00:00,000 --> 00:00:01,000\nHello\n",
    }


def test_scripts_as_videos(colours: Path, server: tuple[str, list[str]], tmp_path: Path) -> None:
    url, fetched = server
    for name, text in scripts(colours / "red.mp4", url).items():
        path = tmp_path / f"{name}.mp4"
        path.write_text(text)
        for video in (Video(path, 2), Video(path.read_bytes(), 2)):
            with pytest.raises(UniRSError, match=r"none of the formats|does not open|does not decode"):
                video.load_frames()
    assert fetched == []


@pytest.mark.parametrize("name", ["URL/a.mp4", "concat:red.mp4|red.mp4", "subfile,,start,0,end,9,,:red.mp4", "data:,x"])
def test_urls_as_videos(
    name: str, colours: Path, server: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, fetched = server
    name = name.replace("URL", url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.mp4").write_bytes((colours / "red.mp4").read_bytes())
    with pytest.raises(UniRSError, match="does not exist"):
        Video(name, 2).load_frames()
    # A file of that name is no URL either.
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((colours / "red.mp4").read_bytes())
    assert Video(path, 2).load_frames().shape == (2, 3, 64, 64)
    assert fetched == []


# FIFOs and devices.


@pytest.fixture(params=["fifo", "device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Puts a FIFO, or a link to a device without end, under a name."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if request.param == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        return path

    return make


def test_media_without_end(endless: Callable[[str], Path]) -> None:
    for media in (Image(endless("a.png")), Video(endless("a.mp4"), 2)):
        with pytest.raises(UniRSError, match=r"no regular file|is not a file"):
            media.load_frames()
        with pytest.raises(UniRSError, match="no regular file"):
            media.content_key()


def test_annotations_without_end(endless: Callable[[str], Path]) -> None:
    jsonl_root = endless("jsonl/test.jsonl").parent
    levir_root = endless("levir/LevirCCcaptions.json").parent
    (levir_root / "images").mkdir()
    for spec in (
        {"name": "jsonl", "splits": ["test"], "root": str(jsonl_root)},
        {"name": "levir_cc", "root": str(levir_root)},
    ):
        with pytest.raises(UniRSError, match="no regular file"):
            TaskConfig.from_config(spec).task.load_split("test")


def test_configs_and_results_without_end(endless: Callable[[str], Path], error: Error, tmp_path: Path) -> None:
    suite = endless("suite.yaml")
    assert "no regular file" in error("bench", "--suite", suite, "--model", tmp_path)
    assert "no regular file" in error("ablate", "--suite", suite)
    assert "no regular file" in error("score", endless("answers.jsonl"))
    assert "no regular file" in error("compare", endless("run/test/metrics.json").parents[1], tmp_path)
    assert "no regular file" in error("predict", endless("a_run/config.yaml").parent, write_image(tmp_path / "i.png"))
    assert "fit.yaml" in error("fit", "--config", endless("fit.yaml"))


def test_checkpoints_without_end(endless: Callable[[str], Path]) -> None:
    from unirs.models.checkpoint import read_checkpoint

    with pytest.raises(UniRSError, match="no regular file"):
        read_checkpoint(endless("a.ckpt"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_files_of_other_programs_models_without_end(name: str, endless: Callable[[str], Path]) -> None:
    path = endless(f"model/{name}")
    with pytest.raises(UniRSError, match=rf"{name} cannot be read \(it is no regular file\)"):
        load_config(LLMConfig(source=str(path.parent)))


def test_projectors_and_caches_without_end(endless: Callable[[str], Path], colours: Path) -> None:
    from unirs.data.feature_cache import FeatureCache
    from unirs.models.convert_weights import read_projector

    folder = endless("mm_projector/model.safetensors").parent
    (folder / "config.json").write_text('{"mm_projector_type": "mlp_downsample"}')
    with pytest.raises(UniRSError, match="no regular file"):
        read_projector(folder, change=True)
    image, features = Image(colours / "red.png"), torch.ones(1, 2, 3)
    key = image.content_key()
    root = endless(f"cache/{'0' * 16}/{key[:2]}/{key}.safetensors").parents[2]
    cache = FeatureCache(root, "0" * 16, (2, 3), 10**6)
    assert cache.get(image) is None
    cache.put(image, features)
    found = cache.get(image)
    assert found is not None
    assert torch.equal(found, features)


def test_files_of_a_model_without_end(endless: Callable[[str], Path]) -> None:
    from unirs.models.model_files import verify_checksums

    folder = endless("model/a.bin").parent
    (folder / "checksums.json").write_text(json.dumps({"a.bin": "0"}))
    with pytest.raises(UniRSError, match="no regular file"):
        verify_checksums(folder)


# Files that expand.


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
def test_models_with_a_billion_layers(key: str, tmp_path: Path) -> None:
    from unirs.utils.sources import resolve_source

    config = tmp_path / "config.json"
    config.write_text(json.dumps({"text_config": {"inner": {key: 10**9}}}))
    with pytest.raises(UniRSError, match=rf"config\.json: {key} is 1000000000, a model has at most 1000 layers"):
        resolve_source(str(tmp_path))
    with pytest.raises(UniRSError, match="at most 1000 layers"):
        load_config(LLMConfig(source=str(tmp_path)))
    config.write_text(json.dumps({"text_config": {"inner": {key: 1000}}}))
    assert resolve_source(str(tmp_path)) == str(tmp_path)


BOMBS = {
    "sequences": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "merge keys": "a: &a {k: 1}\n"
    + "".join(
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
        for before, name in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "cycle": "a: &a [*a, *a]\n",
    "long text": f"a: &a {'x' * 1_000_000}\nb: &b [{', '.join(['*a'] * 1000)}]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_bombs(bomb: str, error: Error, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BOMBS[bomb])
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    for arguments in (
        ("fit", "--config", path),
        ("bench", "--suite", path, "--model", tmp_path),
        ("ablate", "--suite", path, "--out", tmp_path / "out"),
        ("predict", tmp_path, write_image(tmp_path / "a.png")),
    ):
        assert "aliases expanded" in error(*arguments)


def test_an_alias_is_no_bomb(tmp_path: Path) -> None:
    from unirs.utils.typed_yaml import read_config

    path = tmp_path / "config.yaml"
    path.write_text("a: &a {k: 1}\nb: {<<: *a, m: 2}\nc: [*a, *a]\n")
    assert read_config(path) == {"a": {"k": 1}, "b": {"k": 1, "m": 2}, "c": [{"k": 1}, {"k": 1}]}


def test_rows_of_50_megabytes(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    long = "x" * 50_000_000
    (root / "test.jsonl").write_text(json.dumps({"image": "a.png", "question": long, "answer": "a"}) + "\n")
    spec = levir(root, "a.png")
    content = json.loads((root / "LevirCCcaptions.json").read_text())
    content["images"][0]["sentences"] = [{"raw": long}]
    (root / "LevirCCcaptions.json").write_text(json.dumps(content))
    for task in ({"name": "jsonl", "splits": ["test"]}, spec):
        with pytest.raises(UniRSError, match=r"50,000,\d+ bytes, more than"):
            TaskConfig.from_config({**task, "root": str(root)}).task.load_split("test")


@pytest.mark.parametrize("weight", [1e9, float("inf"), float("nan"), -1])
def test_weights_of_tasks(weight: float, colours: Path) -> None:
    with pytest.raises(UniRSError, match="weight"):
        TaskConfig.from_config({"name": str(colours / "plugin.py"), "root": str(colours), "weight": weight})
