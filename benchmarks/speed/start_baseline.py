"""The baseline of `start.py`: a bare LightningCLI program with the model components and the data of `unirs fit`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import timm
import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

PROMPT = "Please briefly describe the main changes between the above two remote sensing images.\n"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}

Example = tuple[torch.Tensor, list[int], list[int]]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class Captioner(LightningModule):
    """Puts the visual tokens of both images of a pair before the text, and trains on the sentences.

    Args:
        encoder: a timm model.
        layer: its feature map.
        options: of the timm model.
        llm: config of a causal language model, `model_type` and its options.
        lr: learning rate.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, encoder: str, layer: int, options: dict[str, Any], llm: dict[str, Any], lr: float = 1e-4
    ) -> None:
        super().__init__()
        self.lr = lr
        backbone: Any = timm.create_model(
            encoder, pretrained=False, features_only=True, out_indices=(layer,), **options
        )
        self.encoder = backbone.to(memory_format=torch.channels_last)
        self.llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**llm), attn_implementation="sdpa")
        dim, width = backbone.feature_info.channels()[-1], self.llm.config.hidden_size
        self.projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        colours: Any = timm.get_pretrained_cfg(encoder)
        self.register_buffer("mean", 255 * torch.tensor(colours.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(colours.std).view(3, 1, 1))

    def training_step(self, batch: Batch) -> torch.Tensor:
        """The mean loss of a batch: frames `[B, 2, 3, H, W]`, ids and labels `[B, T]`."""
        frames, ids, labels = batch
        x = ((frames.flatten(0, 1) - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        tokens = self.projector(self.encoder(x)[0].flatten(2).transpose(1, 2))  # [2B, L, D]
        tokens = tokens.reshape(len(frames), -1, tokens.shape[-1])
        embeddings = torch.cat([tokens, self.llm.get_input_embeddings()(ids)], dim=1)
        padded = torch.cat([labels.new_full(tokens.shape[:2], -100), labels], dim=1)
        loss: torch.Tensor = self.llm(inputs_embeds=embeddings, labels=padded, use_cache=False).loss
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


class Pairs(LightningDataModule):
    """The training pairs of a LEVIR-CC folder, their five sentences behind each other.

    Args:
        root: the folder.
        size: height and width of the frames in pixels.
        batch_size: pairs a batch.
        vocab_size: of the tokenizer, which is trained on the sentences.
    """

    def __init__(self, root: Path, size: int, batch_size: int, vocab_size: int) -> None:
        super().__init__()
        self.root, self.size, self.batch_size, self.vocab_size = root, size, batch_size, vocab_size

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Reads the sentences and trains the tokenizer."""
        rows = json.loads((self.root / "LevirCCcaptions.json").read_text(encoding="utf-8"))["images"]
        self.rows = [row for row in rows if row["split"] == "train"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(SPECIAL.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((text for row in self.rows for text in [PROMPT, *_sentences(row)]), trainer)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)

    def train_dataloader(self) -> DataLoader[Any]:
        """Pairs in random order."""
        examples = _Examples(self)
        return DataLoader(examples, self.batch_size, shuffle=True, collate_fn=_collate)


class _Examples(torch.utils.data.Dataset[Example]):
    def __init__(self, data: Pairs) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data.rows)

    def __getitem__(self, index: int) -> Example:
        row, size = self.data.rows[index], (self.data.size, self.data.size)
        folder = self.data.root / "images" / row["filepath"]
        frames = []
        for time in "AB":
            with PIL.Image.open(folder / time / row["filename"]) as image:
                frames.append(np.asarray(image.convert("RGB").resize(size, PIL.Image.Resampling.BICUBIC)))
        prompt = self.data.tokenizer.encode(PROMPT)
        answer = self.data.tokenizer.encode("\n".join(_sentences(row)) + SPECIAL["eos_token"])
        labels = [-100] * len(prompt) + answer
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2), prompt + answer, labels


def _sentences(row: dict[str, Any]) -> list[str]:
    return [" ".join(sentence["tokens"]) for sentence in row["sentences"]]


def _collate(examples: Sequence[Example]) -> Batch:
    frames, ids, labels = zip(*examples, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return (
        torch.stack(frames),
        pad([torch.tensor(row) for row in ids], batch_first=True),
        pad([torch.tensor(row) for row in labels], batch_first=True, padding_value=-100),
    )


if __name__ == "__main__":
    LightningCLI(Captioner, Pairs, auto_configure_optimizers=False, seed_everything_default=0)
