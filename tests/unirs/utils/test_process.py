import os
import subprocess
import sys

FAULTS = """
import resource, sys
from unirs.utils.process import tune_process
if sys.argv[1] == "tuned":
    tune_process()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(1 << 26)
before = faults()
for _ in range(20):
    bytearray(1 << 26)
print(faults() - before)
"""


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_", "GOMP_"))}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=True)


def test_memory_of_freed_tensors_is_kept() -> None:
    default, tuned = (int(run(FAULTS, mode).stdout) for mode in ("default", "tuned"))
    assert tuned < default / 10


def test_variables_of_the_environment_have_precedence() -> None:
    assert int(run(FAULTS, "tuned", MALLOC_ARENA_MAX="4").stdout) > 1000


def test_waiting_threads_of_openmp_sleep_soon() -> None:
    code = "from unirs.cli.main import main\ntry:\n    main(['--version'])\nexcept SystemExit:\n    import torch"
    assert "GOMP_SPINCOUNT = '5000'" in run(code, OMP_DISPLAY_ENV="verbose").stderr


RELEASED = """
from unirs.utils.process import release_memory, tune_process
tune_process()
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
before = resident()
texts = [bytearray(100_000) for _ in range(1000)]
last = bytearray(100_000)
del texts
kept = resident() - before
release_memory()
print(kept, resident() - before)
"""


def test_freed_memory_is_released() -> None:
    kept, left = map(int, run(RELEASED).stdout.split())
    assert left < kept / 10
