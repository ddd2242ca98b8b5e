# SPDX-License-Identifier: MIT
# make quickstart   MD of formate on copper in LAMMPS with a potential of this project, about ten minutes the first time
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
MODEL := models/formate_cu/model.safetensors

SOURCES := $(shell find CMakeLists.txt pyproject.toml cmake gnn potential datasets training lammps_plugin python \
             tests/CMakeLists.txt tests/files.hpp tests/cuda tests/datasets tests/gnn tests/models tests/potential tests/training -type f ! -path '*/__pycache__/*' 2>/dev/null)

test: build/.tests
	$(BIN)/python tests/run.py --build $(BUILD)

quickstart: build/.quick
	cd examples/quickstart && PATH="$(CURDIR)/$(BIN):$$PATH" python quickstart.py $(CURDIR)/$(MODEL) --output $(CURDIR)/build/quickstart

install: build/.installed

# One build tree holds what the Python package installs and the C++ tests, so nothing is compiled twice.
# The CUDA backend is compiled (where nvcc is found) by `make test` and `make install`, not for the quick start.
INSTALL := $(BIN)/pip install --quiet --no-build-isolation --no-deps --force-reinstall . -C build-dir=$(BUILD) -C cmake.define.ADATOM_WARNINGS_AS_ERRORS=ON

build/.quick: build/.venv $(SOURCES)
	$(INSTALL) -C cmake.define.ADATOM_BUILD_TESTS=OFF -C cmake.define.ADATOM_CUDA=OFF
	touch $@

build/.installed: build/.venv $(SOURCES)
	$(INSTALL) -C cmake.define.ADATOM_BUILD_TESTS=OFF -C cmake.define.ADATOM_CUDA=AUTO
	touch build/.quick $@

build/.tests: build/.venv $(SOURCES)
	$(INSTALL) -C cmake.define.ADATOM_BUILD_TESTS=ON -C cmake.define.ADATOM_CUDA=AUTO
	touch build/.quick build/.installed $@

build/.venv: build/.packages pyproject.toml tests/requirements.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python tests/requirements.py > build/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r build/requirements.txt
	touch $@

build/.packages:
	mkdir -p build
	PYTHON=$(PYTHON) bash .ci/packages
	touch $@

format:
	git ls-files '*.cpp' '*.hpp' '*.cu' | xargs clang-format -i

lint: build/.tests
	git ls-files '*.cpp' | grep -v '^tests/' | xargs clang-tidy --quiet -p $(BUILD)

sanitize: build/.venv
	cmake --preset asan-ubsan && cmake --build --preset asan-ubsan && ctest --preset asan-ubsan

clean:
	rm -rf build .venv
