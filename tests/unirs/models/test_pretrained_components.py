"""Runs whose components come from folders: adapters, added tokens, clues, and checkpoints without frozen weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unirs import Image, UniRS
from unirs.models.llm import LLMConfig, build_llm, train_tokenizer
from unirs.models.tuning import Lora, adapters_off, has_adapters

Cli = Callable[..., int]
WriteConfig = Callable[..., Path]

TEXTS = ["[vqa] Which colour?", "Is it red?", "red green blue white yes no", "from red to green", "a blue video"]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model with its tokenizer, as a hub has it."""
    folder = tmp_path_factory.mktemp("llm")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=300,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    # Wide enough for what it says to depend on what it sees.
    model.lm_head.weight.data.mul_(20)
    model.save_pretrained(folder)
    train_tokenizer(TEXTS, 300).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora_run(
    tmp_path_factory: pytest.TempPathFactory,
    llm: Path,
    colour_tasks: list[dict[str, Any]],
    cli: Cli,
    write_config: WriteConfig,
) -> Path:
    """A run with adapters, added tokens and clues of the model itself with its adapters off; read it only."""
    folder = tmp_path_factory.mktemp("lora")
    image, pair, video = colour_tasks
    tasks = [{**image, "clue": "always"}, {**pair, "clue": "test"}, {**video, "augment": True}]
    language = {
        "source": str(llm),
        "tune": "lora",
        "lora": {"r": 4},
        "add_tokens": ["<clue>", "</clue>", "[vqa]"],
    }
    clue = {"max_new_tokens": 3, "cache": str(folder / "clues.sqlite")}
    config = write_config(folder, tasks, model={"llm": language, "clue": clue})
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    return folder / "run"


def rows(run: Path, task: str) -> list[dict[str, Any]]:
    lines = (run / "test" / "predictions" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_clues_of_the_configured_tasks(lora_run: Path) -> None:
    for task in ("image", "pair"):
        clued = [row for row in rows(lora_run, task) if row["clue"]]
        assert clued
        assert all(f"<clue>{row['clue']}</clue>" in row["prompt"] for row in clued)
    assert {row["clue"] for row in rows(lora_run, "video")} == {""}
    # No clue for the baseline without visual input.
    assert {row["clue"] for row in rows(lora_run, "image.blank")} == {""}


def test_checkpoints_contain_trained_weights(lora_run: Path, llm: Path) -> None:
    saved = torch.load(lora_run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    language = [key for key in saved if key.startswith("model.llm.")]
    assert language
    assert all("lora_" in key or "trainable_tokens" in key for key in language)
    assert sum(saved[key].nbytes for key in language) < (llm / "model.safetensors").stat().st_size / 2


def test_other_frozen_weights_are_rejected(
    lora_run: Path, llm: Path, tmp_path: Path, cli: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(llm, tmp_path / "llm")
    model = LlamaForCausalLM.from_pretrained(other)
    model.model.norm.weight.data += 0.1
    model.save_pretrained(other)
    run = shutil.copytree(lora_run, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    assert str(llm) in config
    (run / "config.yaml").write_text(config.replace(str(llm), str(other)))
    assert cli("predict", run, lora_run.parent / "absent.png") == 1
    assert cli("test", "--config", run / "config.yaml", "--trainer.default_root_dir", run) == 1
    assert "trained with other frozen weights" in capfd.readouterr().err


def test_saved_model_has_its_adapters(lora_run: Path, colours: Path, tmp_path: Path) -> None:
    model = UniRS.from_pretrained(lora_run, device="cpu", trust_remote_code=True)
    model.save_pretrained(tmp_path / "saved")
    images = [Image(colours / f"{name}.png") for name in ("red", "blue")]
    loaded = UniRS.from_pretrained(tmp_path / "saved", device="cpu")
    first, again = (one.predict(images, "Which colour?", clue="a square") for one in (model, loaded))
    assert [(a.text, a.logprobs) for a in first] == [(a.text, a.logprobs) for a in again]
    with adapters_off(loaded.model):
        plain = loaded.predict(images, "Which colour?", clue="a square")
    assert [a.logprobs for a in plain] != [a.logprobs for a in first]
    assert loaded.predict(images, "Which colour?", clue="a square") == again


def test_merged_model_answers_the_same(lora_run: Path, colours: Path, tmp_path: Path, cli: Cli) -> None:
    model = UniRS.from_pretrained(lora_run, device="cpu", trust_remote_code=True)
    model.save_pretrained(tmp_path / "merged", merge=True)
    assert has_adapters(model.model)
    merged = UniRS.from_pretrained(tmp_path / "merged", device="cpu")
    assert not has_adapters(merged.model)
    images = [Image(colours / f"{name}.png") for name in ("red", "blue")]
    first, again = (one.predict(images, "Which colour?", clue="a square") for one in (model, merged))
    assert [answer.text for answer in again] == [answer.text for answer in first]
    for expected, answer in zip(first, again, strict=True):
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert cli("convert", lora_run, "--trust-remote-code", tmp_path / "converted", "--merge") == 0
    weights = "model.safetensors"
    assert (tmp_path / "converted" / weights).read_bytes() == (tmp_path / "merged" / weights).read_bytes()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's use of it
def test_exported_adapter_of_a_run(lora_run: Path, llm: Path, tmp_path: Path, cli: Cli) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer

    assert cli("convert", lora_run, "--trust-remote-code", tmp_path / "adapter", "--adapter") == 0
    base = LlamaForCausalLM.from_pretrained(llm)
    base.resize_token_embeddings(len(AutoTokenizer.from_pretrained(tmp_path / "adapter")), mean_resizing=False)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    trained = UniRS.from_pretrained(lora_run, device="cpu", trust_remote_code=True).model.llm
    ids = torch.arange(280, 303)[None]
    torch.testing.assert_close(loaded(ids).logits, trained(ids).logits)
    # An earlier adapter is replaced; anything else stays.
    assert cli("convert", lora_run, "--trust-remote-code", tmp_path / "adapter", "--adapter") == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert cli("convert", lora_run, "--trust-remote-code", tmp_path / "mine", "--adapter") == 1
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_saved_model_generates_its_clue(lora_run: Path, colours: Path) -> None:
    model = UniRS.from_pretrained(lora_run, device="cpu", trust_remote_code=True)
    (answer,) = model.predict([Image(colours / "red.png")], "Which colour?", details=False)
    (row,) = (row for row in rows(lora_run, "image") if row["id"] == "image0-0")
    assert (answer.text, answer.clue, answer.prompt) == (row["text"], row["clue"], row["prompt"])
    assert model.predict([Image(colours / "red.png")], "Which colour?", clue=False)[0].clue == ""


def test_another_models_clues(
    learnt_run: Path, colour_tasks: list[dict[str, Any]], tmp_path: Path, cli: Cli, write_config: WriteConfig
) -> None:
    tasks = [{**colour_tasks[1], "clue": "test"}]
    clue = {"source": str(learnt_run), "cache": str(tmp_path / "clues.sqlite")}
    config = write_config(tmp_path, tasks, model={"clue": clue, "trust_remote_code": True})
    assert cli("fit", "--config", config) == 0
    assert cli("test", "--config", config) == 0
    assert [row["clue"] for row in rows(tmp_path / "run", "pair")][:1] != [""]


def test_added_tokens(llm: Path) -> None:
    model, tokenizer = build_llm(
        LLMConfig(source=str(llm), tune="lora", lora=Lora(r=2), add_tokens=["<clue>", "[vqa]"])
    )
    assert tokenizer is not None
    ids = tokenizer("[vqa] <clue>", add_special_tokens=False)["input_ids"]
    new = [tokenizer.vocab[token] for token in ("[vqa]", "<clue>")]
    assert [id_ for id_ in ids if id_ in new] == new
    embedded = model.get_input_embeddings()(torch.tensor(new))
    assert embedded.requires_grad
    assert model.get_output_embeddings()(torch.zeros(1, 32)).shape[1] == len(tokenizer)
    assert not model.get_input_embeddings()(torch.tensor([5])).abs().isnan().any()


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_gradient_checkpointing_has_the_same_losses(llm: Path, tune: Any) -> None:  # noqa: ANN401 - a literal
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model, _ = build_llm(LLMConfig(source=str(llm), tune=tune, gradient_checkpointing=checkpointing))
        embeddings = model.get_input_embeddings()(torch.arange(3, 9)[None]).detach().requires_grad_()
        model.train()(inputs_embeds=embeddings, use_cache=False).logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


def test_bfloat16_weights_and_float32_adapters(llm: Path) -> None:
    model, _ = build_llm(LLMConfig(source=str(llm), tune="lora", dtype="bfloat16"))
    dtypes = {p.requires_grad: p.dtype for p in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
