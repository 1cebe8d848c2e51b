# Two commands do everything on bare Python 3.11, 3.12 or 3.13: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
# ACCEL=gpu installs onnxruntime-gpu and the CUDA build of torch; both also run without a GPU.
ACCEL ?= cpu
VIDEOS ?=
WEIGHTS ?=
IMAGE ?=
# Test processes; each computes with one thread, and one of them has all tests that start Ray.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(ACCEL)
# What was set up before for the other ACCEL.
OTHER_STAMP = $(filter-out $(STAMP),$(wildcard $(VENV)/.installed-*))
# uv does not read pip's configuration: hand over another index or a folder of wheels, if pip has
# one. The folder only for the CPU: the build of torch in it would be taken for the CUDA one's.
pip_setting = $(or $(PIP_$(1)),$(shell $(PYTHON) -m pip config get global.$(2) 2>/dev/null))
INDEX_URL = $(or $(UV_DEFAULT_INDEX),$(call pip_setting,INDEX_URL,index-url))
WHEELS = $(or $(UV_FIND_LINKS),$(if $(filter cpu,$(ACCEL)),$(call pip_setting,FIND_LINKS,find-links)))
SOURCES = VIRTUAL_ENV=$(VENV) UV_DEFAULT_INDEX="$(INDEX_URL)" UV_FIND_LINKS="$(WHEELS)"
UV = $(SOURCES) $(BIN)/uv
# The newest of these is what sites answer to: they are in no lock, and every set-up renews them.
FRESH := yt-dlp yt-dlp-ejs
# Of this torch a CPU build lies on the disk of the machines that test: raise it when theirs is newer.
# OpenCV 5 has no Haar cascades, and any opencv-python writes over the headless one's files.
LOCK_LIMITS := torch==2.13.* opencv-python<5
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test check lint types docs lock lock-check wheel-check test-fast clean
setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock uv
	$(if $(OTHER_STAMP),$(UV) pip uninstall --quiet torch onnxruntime onnxruntime-gpu)
	rm -f $(VENV)/.installed-*
	$(UV) pip install --quiet --compile-bytecode -c requirements.lock \
		$(FRESH:%=--upgrade-package %) -e '.[$(ACCEL)]' --group dev
	$(BIN)/animaray doctor --build
	touch $(STAMP)

demo: setup
	$(BIN)/animaray demo --out demo $(if $(VIDEOS),--videos $(VIDEOS)) $(if $(WEIGHTS),--weights $(WEIGHTS)) $(if $(IMAGE),--image $(IMAGE))

test: setup
	$(BIN)/animaray weights pull --profile permissive || echo "Tests that need these files are skipped where there is no network."
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder

test-fast: setup
	$(BIN)/python -m pytest -m "not ray and not slow"

check: lint types docs lock-check wheel-check

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# The pages of docs/ and the reference of docstrings into build/site, without the network. Fails at a
# broken link or anchor, a page in no menu, a public name without a docstring's place.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# Every package with its version, for all extras, systems and Pythons at once; names no index.
# UPGRADE=1 takes the newest, else what pyproject.toml still allows stays. --no-config: without the
# overrides of pyproject.toml, so that the file also holds for plain pip, which knows none.
lock: $(BIN)/uv
	echo "$(LOCK_LIMITS)" | tr ' ' '\n' | \
		UV_FIND_LINKS= UV_DEFAULT_INDEX="$(INDEX_URL)" $(BIN)/uv pip compile --quiet --no-config \
		pyproject.toml --universal --python-version 3.11 --fork-strategy fewest --all-extras --group dev -c /dev/stdin \
		$(if $(UPGRADE),--upgrade) $(FRESH:%=--no-emit-package %) --no-annotate \
		--custom-compile-command "make lock" --output-file $(or $(LOCK),requirements.lock)

lock-check: setup
	$(SOURCES) $(BIN)/python .ci/check_lock.py

wheel-check: setup
	$(SOURCES) $(BIN)/python .ci/check_wheel.py

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock uv

# What tools made; `demo` holds results of yours, so it stays.
clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache
	@[ ! -e demo ] || echo "demo/ stays: it holds trained weights and results; remove it yourself"
