"""A training run as it lies in its folder, loaded again."""

from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from unirs.data.datamodule import UniRSDataModule
from unirs.errors import UniRSError
from unirs.training.module import UniRSModule


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the highest mean validation score of a run.

    Raises:
        UniRSError: the run has none.
    """
    path = run / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise UniRSError(
            f"{path} does not exist: train first with 'unirs fit', or name a checkpoint with '--ckpt_path'."
        )
    return path


def load_run(run: Path) -> tuple[UniRSModule, UniRSDataModule]:
    """The model with its best weights, and the data of a run.

    Raises:
        UniRSError: the folder holds no run, or the run no checkpoint.
        ModelError: the weights do not fit; lists the keys.
    """
    file = run / "config.yaml"
    if not file.is_file():
        raise UniRSError(f"{run} is not the folder of a run: it has no config.yaml. Train one with 'unirs fit'.")
    checkpoint = best_checkpoint(run)
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    # The model and the data alone: the run's trainer may name devices that this machine does not have.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UniRSModule, "model")
    parser.add_class_arguments(UniRSDataModule, "data")
    parts = parser.instantiate_classes(parser.parse_object({key: config[key] for key in ("model", "data")}))
    parts.model.load_checkpoint(checkpoint)
    return parts.model, parts.data
