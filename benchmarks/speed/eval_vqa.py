"""64 questions on each picture: UniRS against LLaVA's `generate`, question by question and in left-padded batches.

    python benchmarks/speed/eval_vqa.py

The parts are the same (see parts.py), in float32, and so are prompts, greedy decoding and the longest answer; the texts
must be identical. Published scripts ask question by question, with the picture each time. UniRS answers through
`UniRS.predict_examples`, which `unirs bench` and `predict` use: files in, texts out, on both sides.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import Row, in_turn, rates, report
from parts import parts, pictures, pixels, questions, token_ids
from transformers import LlavaForConditionalGeneration, SiglipImageProcessorPil

from unirs.data.dataset import Example
from unirs.data.prompt_encoder import PromptEncoder
from unirs.inference.api import UniRS
from unirs.models.importers import read_checkpoint
from unirs.tasks.media import Image
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import Sample, Turn

ASK = PromptTemplate("vqa", "{question}")


class Ours:
    """UniRS: a picture's questions are the turns of one sample."""

    def __init__(self, model: UniRS, shown: list[Image], asked: list[str], longest: int) -> None:
        self.model = model
        self.longest = longest
        turns = tuple(Turn(str(number), (), {"question": text}) for number, text in enumerate(asked))
        self.items = [Example("vqa", Sample(str(index), media, turns)) for index, media in enumerate(shown)]

    def __call__(self) -> list[str]:
        """All answers, picture by picture."""
        rows = self.model.predict_examples({"vqa": ASK}, self.items, max_new_tokens=self.longest, batch_size=4)
        return [row.text for row, _ in rows]


class Baseline:
    """LLaVA: a question a row, `batch` rows at a time."""

    def __init__(self, folder: Path, ours: Ours, batch: int) -> None:
        self.ours = ours
        self.batch = batch
        self.model = LlavaForConditionalGeneration.from_pretrained(folder / "llava", dtype=torch.float32).eval()
        self.processor = SiglipImageProcessorPil.from_pretrained(folder / "llava")
        self.prompt_encoder = PromptEncoder(ours.model.tokenizer)

    def __call__(self) -> list[str]:
        """All answers, picture by picture."""
        every = [(item.sample, turn) for item in self.ours.items for turn in item.sample.turns]
        answers: list[str] = []
        for start in range(0, len(every), self.batch):
            answers += self.answer(every[start : start + self.batch])
        return answers

    @torch.inference_mode()
    def answer(self, asked: list[tuple[Sample, Turn]]) -> list[str]:
        """Answers one batch."""
        tokenizer, tokens = self.ours.model.tokenizer, self.ours.model.model.projector.num_tokens
        rows = []
        for sample, turn in asked:
            alone = Sample(sample.id, sample.media, (turn,))
            ((sequence, _),) = self.prompt_encoder.encode_prompts(ASK, alone, 1, tokens)
            rows.append(token_ids(sequence, tokenizer))
        longest = max(map(len, rows))
        end = int(tokenizer.eos_token_id)
        ids = torch.tensor([[end] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            pixel_values=torch.cat([pixels(self.processor, sample.media) for sample, _ in asked]),
            max_new_tokens=self.ours.longest,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        return [text.strip() for text in tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)]


def main() -> None:
    """Compares what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--questions", type=int, default=64, help="on each picture (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="rows of the batched baseline (default: %(default)s)")
    parser.add_argument("--longest", type=int, default=4, help="tokens of an answer (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny parts, to try the script")
    options = parser.parse_args()
    with parts(tiny=options.tiny) as folder, TemporaryDirectory() as data:
        shown = pictures(Path(data) / "rsvqa_lr", options.pictures)
        ours = Ours(UniRS(*read_checkpoint(folder / "llava")), shown, questions(options.questions, 0), options.longest)
        single, batched = Baseline(folder, ours, 1), Baseline(folder, ours, options.batch)
        expected = ours()
        if single() != expected or batched() != expected:
            raise SystemExit("The two sides answer differently.")
        rows: list[Row] = []
        for name, baseline in (("each question alone", single), (f"batches of {options.batch}", batched)):
            seconds = in_turn(ours, baseline, rounds=options.rounds, warmup=0)
            rows.append(rates(f"{options.questions} questions a picture, {name}", len(expected), "questions", seconds))
    report("eval_vqa.py", rows)


if __name__ == "__main__":
    main()
