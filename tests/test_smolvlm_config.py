"""The recipe of SmolVLM, with a model of random weights that has the original's visual tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.test_configs import ROOT, scaled_down
from tests.unirs.models.hf_families import write_smolvlm
from unirs.inference.api import UniRS
from unirs.tasks.media import Pair

RECIPE = ROOT / "configs" / "smolvlm.yaml"


def test_recipe_of_smolvlm(
    tmp_path: Path,
    synthetic: Path,
    cli: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("fit", "--config", RECIPE, "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init"] == "models/smolvlm"
    (tmp_path / "checkpoint").mkdir()
    # Image, patches and scale of SmolVLM-256M: 64 visual tokens per image.
    write_smolvlm(tmp_path / "checkpoint", side=512, patch=16, scale=4)
    assert cli("convert", tmp_path / "checkpoint", "models/smolvlm") == 0
    config = scaled_down(yaml.safe_load(RECIPE.read_text(encoding="utf-8")), {}, synthetic, tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    assert cli("fit", "--config", "small.yaml") == 0
    trained = UniRS.from_pretrained(tmp_path / "run", device="cpu")
    assert trained.processor.tokens_per_image == 64
    image = synthetic / "levir_cc" / "images" / "test" / "A" / "test_000004.png"
    (completion,) = trained.predict([Pair(image, image)], "What changed?", max_new_tokens=2)
    # A pair takes the visual tokens of one image.
    assert completion.prompt.count("<|visual|>") == 1
