"""`auto` as dtype and precision: chosen by the device's instructions, and recorded."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unirs.models.dtypes import bfloat16_unit, resolve_dtype, resolve_encoder, resolve_precision

AMX = {"amx_bf16": True, "avx512_bf16": True}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the processor's capabilities, and the limit of oneDNN's instructions."""

    def set_capabilities(capabilities: dict[str, bool], limit: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        if limit:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)

    return set_capabilities


@pytest.mark.parametrize(
    ("capabilities", "limit", "unit"),
    [
        (AMX, None, "AMX"),
        (AMX, "ALL", "AMX"),
        (AMX, "avx512_core_amx", "AMX"),
        (AMX, "AVX512_CORE_BF16", "AVX512-BF16"),
        (AMX, "AVX512_CORE_FP16", "AVX512-BF16"),
        (AMX, "AVX512_CORE_VNNI", None),
        (AMX, "AVX512_CORE", None),
        (AMX, "AVX2", None),
        (AMX, "AVX2_VNNI_2", None),
        (AMX, "SSE41", None),
        ({"avx512_bf16": True}, None, "AVX512-BF16"),
        ({"avx512_f": True, "avx2": True}, None, None),
        ({"neon": True, "bf16": True}, None, None),
    ],
)
def test_units_of_a_processor(
    processor: Callable[..., None], capabilities: dict[str, bool], limit: str | None, unit: str | None
) -> None:
    processor(capabilities, limit)
    assert bfloat16_unit() == bfloat16_unit("cpu") == unit


def test_a_gpu_that_emulates_bfloat16_has_no_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    # As torch: emulation counts by default.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert bfloat16_unit() is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert bfloat16_unit("gpu") == "GPU"
    # The trainer runs on the processor.
    assert bfloat16_unit("cpu") is None


def test_trained_weights_stay_float32(processor: Callable[..., None]) -> None:
    processor(AMX)
    assert [resolve_dtype("auto", tune) for tune in ("full", "lora", "frozen")] == ["float32", "bfloat16", "bfloat16"]
    assert resolve_dtype("bfloat16", "full") == "bfloat16"
    assert resolve_dtype("float32", "frozen") == "float32"
    assert [resolve_precision(one) for one in ("auto", "32-true", "bf16-true")] == [
        "bf16-mixed",
        "32-true",
        "bf16-true",
    ]
    processor({})
    assert (resolve_dtype("auto", "lora"), resolve_precision("auto")) == ("float32", "32-true")


def test_encoders_with_the_option_get_a_dtype(processor: Callable[..., None]) -> None:
    processor(AMX)
    assert resolve_encoder({"name": "hf", "source": "x"}) == {"name": "hf", "source": "x", "dtype": "bfloat16"}
    assert resolve_encoder({"name": "hf", "tune": "full"}) == {"name": "hf", "tune": "full", "dtype": "float32"}
    assert resolve_encoder({"name": "timm"}) == {"name": "timm"}
    assert resolve_encoder({"tune": "lora"}) == {"tune": "lora"}
    assert resolve_encoder(None) is None


def test_the_config_of_a_run_holds_the_choice(
    processor: Callable[..., None],
    write_config: Callable[..., Path],
    colour_tasks: list[dict[str, Any]],
    tmp_path: Path,
    cli: Callable[..., int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Lightning unsets it if the root logger has no handlers when it is imported; other commands limit the level.
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")
    processor(AMX)
    config = write_config(tmp_path, colour_tasks[:1], data={"feature_cache": str(tmp_path / "features")})
    assert cli("fit", "--config", config) == 0
    assert "Precision bf16-mixed, language model float32: AMX computes bfloat16." in caplog.messages
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (saved["trainer"]["precision"], saved["model"]["llm"]["dtype"]) == ("bf16-mixed", "float32")
    # Tested with the same precision on another processor.
    caplog.clear()
    processor({})
    assert cli("test", "--config", tmp_path / "run" / "config.yaml") == 0
    assert not any(message.startswith("Precision") for message in caplog.messages)
