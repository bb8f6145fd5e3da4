"""Damaged and hostile files end in a result or in one error that names the file: no traceback, no hang, no other file.

`make fuzz` runs 10,000 cases. The environment changes what runs: `FUZZ_SEED`, `FUZZ_COUNT` (cases of all targets
together), `FUZZ_TARGET` and `FUZZ_INDEX` (one case).
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.cases import run_case
from tests.fuzz.targets import TARGETS

SEED, COUNT = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_COUNT", "500"))
_CHUNK = 250


def chunks() -> list[tuple[str, range]]:
    """Targets and ranges of indices, which the workers of pytest-xdist share."""
    chosen = [TARGETS[os.environ["FUZZ_TARGET"]]] if "FUZZ_TARGET" in os.environ else list(TARGETS.values())
    if "FUZZ_INDEX" in os.environ:
        index = int(os.environ["FUZZ_INDEX"])
        return [(target.name, range(index, index + 1)) for target in chosen]
    total = sum(target.share for target in chosen)
    counts = {target.name: -(-COUNT * target.share // total) for target in chosen}
    return [
        (name, range(start, min(start + _CHUNK, count)))
        for name, count in counts.items()
        for start in range(0, count, _CHUNK)
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "indices"), chunks(), ids=lambda value: value if isinstance(value, str) else str(value.start)
)
def test_hostile_files_end_in_a_result_or_an_error(
    name: str,
    indices: range,
    build_once: Callable[[str, Callable[[Path], object]], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A damaged config may name pretrained weights, which are not downloaded here.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    target = TARGETS[name]
    valid = build_once(f"fuzz-{name}", target.write)
    assert not run_case(target, valid, SEED, None)
    faults = {index: fault for index in indices if (fault := run_case(target, valid, SEED, index))}
    kinds = Counter(fault.strip().splitlines()[-1] for fault in faults.values())
    shown = [f"FUZZ_SEED={SEED} FUZZ_TARGET={name} FUZZ_INDEX={index}\n{fault}" for index, fault in faults.items()]
    assert not faults, "\n".join([f"{len(faults)} of {len(indices)} cases: {kinds.most_common()}", *shown[:20]])
