"""Identifiers and config keys are the field's terms: former names of the project are not used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("unirs", "encoders", "tasks", "benchmarks", "tests")

# The former name of each concept, and its name now. Only names that are decidable without types are listed.
RENAMED = {
    "Altered": "PerturbedMedia",
    "Alteration": "Perturbation",
    "Asker": "BalancedQuestionSampler",
    "ClueSource": "ClueConfig",
    "Fit": "ResizeSpec",
    "FitMode": "ResizeMode",
    "HubVLM": "HFImageTextModel",
    "MediaKind": "Modality",
    "NamedTask": "TaskConfig",
    "OPEN": "NO_END",
    "Peer": "BenchmarkModel or baseline",
    "Renderer": "PromptEncoder",
    "Reply": "Completion",
    "RunFolder": "ResultsWriter",
    "Said": "Completion",
    "SampleRate": "ThroughputLogger",
    "SavedConfig": "UniRSConfig",
    "SavedPrompt": "PromptConfig",
    "Shown": "VisualInput",
    "Story": "ChangeScenario",
    "TaskItems": "TaskDataset",
    "Tune": "TuningMode",
    "UniRSData": "UniRSDataModule",
    "_go_on": "_decode_step",
    "_idle": "_zero_grad_anchor",
    "_lean": "_imbalance",
    "_looked_at": "_add_vision_features",
    "_pull": "_imbalance_after",
    "_read_shared": "_prefill_prefix",
    "_told": "_logits_from_embeds",
    "_welcome": "_improves_balance",
    "as_unirs": "to_inference",
    "headline": "primary_metric",
    "invent": "sample_scenario",
    "kind_is_asked": "category_is_given",
    "lr_scale": "lr_multipliers",
    "make_clues": "generate_clues",
    # Locals of many files.
    "heard": "text",
    "looked": "features",
    "peer": "baseline",
    "peers": "baselines",
    "picture": "image",
    "pictures": "images",
    "said": "text, texts or answers",
    "saw": "features",
    "seen": "visited, visible or features",
    "told": "logits or text",
}
FORMER_CONFIG_KEYS = {
    "answering": "decoding",
    "attention": "attn_implementation",
    "fit": "resize_mode",
    "frames": "num_frames",
    "kind": "modality",
    "lr_scale": "lr_multipliers",
    "rank": "r",
    "alpha": "lora_alpha",
    "targets": "target_modules",
    "warmup": "warmup_ratio",
}
FORMER_CONFIG_VALUES = {
    ("loss", "answer"): "sample_mean",
    ("loss", "token"): "token_mean",
    ("decoding", "rank"): "loglikelihood",
    ("resize_mode", "resize"): "stretch",
    ("resize_mode", "crop"): "center_crop",
}


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and name of each identifier that a module defines or uses."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield line, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield line, name
            case ast.alias(name=name, asname=asname):
                yield line, asname or name.rpartition(".")[2]
            case ast.MatchAs(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield line, name


def entries(config: object) -> Iterator[tuple[str, object]]:
    """All keys of a config with their values, at any depth."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield str(key), value
            yield from entries(value)
    elif isinstance(config, list):
        for value in config:
            yield from entries(value)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_former_identifier(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: '{name}' is now {RENAMED[name]}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != Path(__file__)
        for line, name in identifiers(ast.parse(path.read_text(encoding="utf-8")))
        if name in RENAMED
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "path", sorted((*ROOT.glob("configs/*.yaml"), *ROOT.glob("benchmarks/suites/*.yaml"))), ids=str
)
def test_no_former_config_key(path: Path) -> None:
    found = []
    for key, value in entries(yaml.safe_load(path.read_text(encoding="utf-8"))):
        if key in FORMER_CONFIG_KEYS:
            found.append(f"key '{key}' is now '{FORMER_CONFIG_KEYS[key]}'")
        if isinstance(value, str) and (key, value) in FORMER_CONFIG_VALUES:
            found.append(f"'{key}: {value}' is now '{key}: {FORMER_CONFIG_VALUES[key, value]}'")
    assert not found, "\n".join(found)


def test_former_names_are_found() -> None:
    source = "from a import Renderer\ndef f(told, *, seen=1):\n    x.headline = Said(peer=2)\n"
    assert {name for _, name in identifiers(ast.parse(source)) if name in RENAMED} == {
        *("Renderer", "told", "seen", "headline", "Said", "peer")
    }
