"""Notes and warnings of Lightning that do not help a user of UniRS, each with the reason why it is hidden."""

import logging
import os
import sys
import warnings

# Beginnings of log messages.
_MESSAGES = (
    "Trainer already configured with model summary",  # by UniRS, as configured
    "TPU available",  # no recipe runs on one
    "💡 Tip:",  # advertises a service
    "Loading `train_dataloader` to estimate",  # precedes every training
    "`weights_only` was not set",  # checkpoints are read by UniRS, which sets it
)
# Regular expressions of warnings.
_WARNINGS = (
    r"Found \d+ module\(s\) in eval mode",  # frozen components stay in evaluation mode
    r"Precision \S+ is not supported by the model summary",  # its estimate of memory is for float32
    "You are trying to `self.log",  # a barebones trainer logs nothing, as configured
)


def hide_notes() -> None:
    """Hides them in this process, and the bars of Hugging Face's downloads and weights if stderr is no terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when the package is imported
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    # Lightning calls a deprecated function of torch.
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGES)
