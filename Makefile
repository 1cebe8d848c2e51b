# Two commands do everything on bare Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
# ACCEL=gpu installs onnxruntime-gpu and torchvision; torch comes with CUDA from the package index.
ACCEL ?= cpu
VIDEOS ?=
WEIGHTS ?=
IMAGE ?=
# Test processes; each computes with one thread, and one of them has all tests that start Ray.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(ACCEL)
# uv does not read pip's configuration: hand over a local wheel folder, if pip has one.
export UV_FIND_LINKS ?= $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test check lint types test-fast clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode -c constraints.txt -e '.[$(ACCEL)]' --group dev
	$(BIN)/animaray doctor --build
	touch $(STAMP)

demo: setup
	$(BIN)/animaray demo --out demo $(if $(VIDEOS),--videos $(VIDEOS)) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(IMAGE),--image $(IMAGE))

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

test-fast: setup
	$(BIN)/python -m pytest -m "not ray and not slow"

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test-fast

clean:
	rm -rf demo .mypy_cache .ruff_cache .pytest_cache
