# SPDX-License-Identifier: MIT
# make quickstart   MD of CO on copper in LAMMPS with an imported potential, about ten minutes the first time
# make test         every test: C++, Python, LAMMPS, examples, README; the last line counts them
# make format lint sanitize clean
# Both of the first do all set-up: Debian packages through apt where some are missing, Python packages into .venv, build in build/.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: quickstart test install packages format lint sanitize clean

PYTHON ?= python3
JOBS ?= $(shell nproc)
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
BUILD := build/release
BIN := .venv/bin
IMPORT_BIN := .venv-import/bin
MODEL := build/models/sevennet-0-cu-c-o.safetensors

SOURCES := $(shell find CMakeLists.txt pyproject.toml cmake gnn potential datasets training lammps_plugin python \
             tests/CMakeLists.txt tests/datasets tests/gnn tests/models tests/potential tests/training -type f ! -path '*/__pycache__/*' 2>/dev/null)

test: build/.installed
	$(BIN)/python tests/run.py --build $(BUILD)

quickstart: $(MODEL) build/.installed
	cd examples/quickstart && PATH="$(CURDIR)/$(BIN):$$PATH" python quickstart.py $(CURDIR)/$(MODEL) --output $(CURDIR)/build/quickstart

install: build/.installed

# One build tree holds what the Python package installs and the C++ tests, so nothing is compiled twice.
build/.installed: build/.venv $(SOURCES)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --force-reinstall . \
	  -C build-dir=$(BUILD) -C cmake.define.ADATOM_BUILD_TESTS=ON -C cmake.define.ADATOM_WARNINGS_AS_ERRORS=ON
	touch $@

build/.venv: build/.packages pyproject.toml tests/requirements.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python tests/requirements.py > build/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r build/requirements.txt
	touch $@

build/.packages:
	mkdir -p build
	PYTHON=$(PYTHON) bash .ci/packages
	touch $@

# SevenNet-0 comes inside the package sevenn, whose checkpoints only torch reads. Both stay in an environment of their own, which sees
# the package adatom of .venv behind its own packages. It is installed while the engine compiles, and not needed once the model file is there.
$(MODEL): $(wildcard python/adatom/importers/*.py)
	$(MAKE) -j2 build/.installed build/.venv-import
	mkdir -p $(@D)
	$(IMPORT_BIN)/python -m adatom import sevennet 7net-0 -o $@ --elements Cu,C,O

build/.venv-import: examples/quickstart/import-requirements.txt | build/.venv
	test -x $(IMPORT_BIN)/python || $(PYTHON) -m venv .venv-import
	$(IMPORT_BIN)/pip install --quiet --disable-pip-version-check --progress-bar off --no-compile -r $<
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(IMPORT_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/adatom-environment.pth"
	touch $@

format:
	git ls-files '*.cpp' '*.hpp' | xargs clang-format -i

lint: build/.installed
	git ls-files '*.cpp' | grep -v '^tests/' | xargs clang-tidy --quiet -p $(BUILD)

sanitize: build/.venv
	cmake --preset asan-ubsan && cmake --build --preset asan-ubsan && ctest --preset asan-ubsan

clean:
	rm -rf build .venv .venv-import
