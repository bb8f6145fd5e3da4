"""64 questions per image: UniRS compared with LLaVA's `generate`, one by one and in left-padded batches.

    python benchmarks/speed/eval_vqa.py

The components are the same (see components.py), in float32, as are prompts, greedy decoding and the maximum length;
the texts must be identical. Published scripts process one question at a time, with the image each time. UniRS
generates with `UniRS.predict_examples`, as `unirs predict` does. The input of both sides is files, the output texts.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from components import components, images, pixels, questions, token_ids
from measure import Row, in_turn, rates, report
from transformers import LlavaForConditionalGeneration, SiglipImageProcessorPil

from unirs.data.dataset import Example
from unirs.data.prompt_encoder import PromptEncoder
from unirs.inference.api import UniRS
from unirs.models.importers import read_checkpoint
from unirs.tasks.media import Image
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn
from unirs.utils.process import tune_process

PROMPT = PromptTemplate("vqa", "{question}")


class Ours:
    """UniRS: the questions about an image are the turns of one sample."""

    def __init__(self, model: UniRS, media: list[Image], texts: list[str], max_new_tokens: int) -> None:
        self.model = model
        self.max_new_tokens = max_new_tokens
        turns = tuple(Turn(str(number), (), {"question": text}) for number, text in enumerate(texts))
        self.examples = [Example("vqa", Sample(str(index), image, turns)) for index, image in enumerate(media)]

    def __call__(self) -> list[str]:
        """All answers, image by image."""
        rows = self.model.predict_examples(
            {"vqa": PROMPT}, self.examples, max_new_tokens=self.max_new_tokens, batch_size=4
        )
        return [row.text for row, _ in rows]


class Baseline:
    """LLaVA: one question per row, `batch` rows at a time."""

    def __init__(self, folder: Path, ours: Ours, batch: int) -> None:
        self.ours = ours
        self.batch = batch
        self.model = LlavaForConditionalGeneration.from_pretrained(folder / "llava", dtype=torch.float32).eval()
        self.processor = SiglipImageProcessorPil.from_pretrained(folder / "llava")
        self.prompt_encoder = PromptEncoder(ours.model.tokenizer)

    def __call__(self) -> list[str]:
        """All answers, image by image."""
        every = [(example.sample, turn) for example in self.ours.examples for turn in example.sample.turns]
        answers: list[str] = []
        for start in range(0, len(every), self.batch):
            answers += self.answer(every[start : start + self.batch])
        return answers

    @torch.inference_mode()
    def answer(self, batch: list[tuple[Sample, Turn]]) -> list[str]:
        """Answers one batch."""
        tokenizer, tokens = self.ours.model.tokenizer, self.ours.model.model.projector.num_tokens
        rows = []
        for sample, turn in batch:
            single = Sample(sample.id, sample.media, (turn,))
            ((tree, _),) = self.prompt_encoder.encode_prompts(PROMPT, single, 1, tokens)
            rows.append(token_ids(tree, tokenizer))
        longest = max(map(len, rows))
        end = int(tokenizer.eos_token_id)
        ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=torch.cat([pixels(self.processor, sample.media) for sample, _ in batch]),
            max_new_tokens=self.ours.max_new_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        return [text.strip() for text in tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)]


def main() -> None:
    """Compares both sides with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--questions", type=int, default=64, help="about each image (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="rows of the batched baseline (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=4, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny components, to try the script")
    options = parser.parse_args()
    tune_process()
    with components(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        media = images(Path(data) / "rsvqa_lr", options.images)
        ours = Ours(UniRS(*read_checkpoint(folder / "llava")), media, questions(options.questions, 0), options.longest)
        single, batched = Baseline(folder, ours, 1), Baseline(folder, ours, options.batch)
        expected = ours()
        if single() != expected or batched() != expected:
            raise SystemExit("The answers of the two sides differ.")
        rows: list[Row] = []
        for name, baseline in (("one at a time", single), (f"batches of {options.batch}", batched)):
            seconds = in_turn(ours, baseline, rounds=options.rounds, warmup=0)
            rows.append(rates(f"{options.questions} questions per image, {name}", len(expected), "questions", seconds))
    report("eval_vqa.py", rows)


if __name__ == "__main__":
    main()
