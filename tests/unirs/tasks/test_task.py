from dataclasses import replace

import pytest

from unirs.errors import PluginError
from unirs.metrics.classification import Top1
from unirs.metrics.vqa import VqaAccuracy
from unirs.tasks.media import Image
from unirs.tasks.prompt import PromptTemplate
from unirs.tasks.sample import LazySamples, Sample, TaskSplit, Turn
from unirs.tasks.task import Task

TASK = Task(
    modality="image",
    load_split=lambda _: TaskSplit([]),
    prompt=PromptTemplate("vqa", "{question}"),
    metric=VqaAccuracy(),
    required_paths=(),
    download_hint="nowhere",
)


def test_choices_for_all_by_category_or_none() -> None:
    assert TASK.choices_for("presence") == ()
    assert replace(TASK, choices=("a", "b")).choices_for("presence") == ("a", "b")
    by_kind = replace(TASK, choices={"presence": ("yes", "no")})
    assert (by_kind.choices_for("presence"), by_kind.choices_for("count")) == (("yes", "no"), ())


def test_choices_that_reveal_the_answer_or_repeat_raise() -> None:
    with pytest.raises(PluginError, match="Choices by category would reveal the answer: with the metric 'top1'"):
        replace(TASK, metric=Top1(("a",)), choices={"a": ("a",)})
    for choices in (("a", "b", "a"), {"presence": ("a", "a")}):
        with pytest.raises(PluginError, match="The choice 'a' is given twice"):
            replace(TASK, choices=choices)


def sample(index: int) -> Sample:
    return Sample(str(index), Image("a.png"), tuple(Turn(f"{index}-{n}", ("yes",)) for n in range(index + 1)))


def test_lazy_samples_are_built_on_access() -> None:
    made: list[int] = []

    def make(index: int) -> Sample:
        made.append(index)
        return sample(index)

    split = TaskSplit(LazySamples(make, [1, 2, 3]))
    assert [split.turns(index) for index in range(3)] == [1, 2, 3]
    assert (len(split), made) == (3, [])
    assert split[-1] == sample(2)
    assert made == [2]
    assert split[:2] == [sample(0), sample(1)]
    assert list(split) == [sample(0), sample(1), sample(2)]
    with pytest.raises(IndexError):
        split[3]


def test_turns_of_samples_in_memory() -> None:
    assert TaskSplit([sample(0), sample(4)]).turns(1) == 5
    assert sample(0).media.sources == ("a.png",)
