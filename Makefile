# On a machine with only Python >= 3.11: `make demo` and `make test` set up everything they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev

# A file of tests is one process's, which sets up what its tests share once.
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder
# Tests start many processes, which should not compile foreword anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-fast test-vllm check bench soak results clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lora,serve,compare]'
	touch $@

$(DEV): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## train a prefix on the sample task, measure it, show it
	$(BIN)/foreword train recipes/quickstart.yaml

test: $(DEV)  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TOGETHER) -m "not soak" tests plugins/foreword-vllm/tests

test-fast: $(DEV)  ## quick feedback: the cheapest tests of every file
	OMP_NUM_THREADS=1 $(BIN)/pytest $(TOGETHER) -m "not soak and not slow" --within 30

test-vllm: $(DEV)  ## the vLLM plug-in with vLLM on CPUs, in .venv-vllm; skipped where that cannot be had
	$(BIN)/python scripts/test_vllm.py .venv-vllm

check: $(DEV)  ## style, types, structure, recipes, README commands, the wheel
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_recipes.py
	$(BIN)/python scripts/check_readme.py
	$(BIN)/python scripts/check_wheel.py

bench: $(DEV)  ## time against the floor and against PEFT
	$(BIN)/python bench/training.py

soak: $(DEV)  ## long tests
	$(BIN)/pytest -m soak

clean:
	rm -rf $(VENV) .venv-vllm build dist
