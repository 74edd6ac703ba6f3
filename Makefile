# edgevoice for people with a checkout. `make` alone lists the targets.
#
#   PYTHON=python3.12 make demo     another Python (3.11 or newer) for the virtual environment

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
NATIVE := edgevoice/_native.abi3.so
UPSTREAM := edgevoice/upstream/LICENSE.whisper.cpp
CSRC := $(wildcard csrc/*.cpp csrc/*.h csrc/ggml/*.h csrc/*/*.txt csrc/CMakeLists.txt)
FORMATTED := $(wildcard csrc/*.cpp csrc/*.h csrc/*/*.cpp csrc/*/*.h)

.PHONY: help setup packages models demo test lint format check-native wheel deb soak clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: setup ## set everything up, speak to it from recordings, see the intents on MQTT
	@$(RUN)/python samples/demo.py

test: setup lint check-native ## the whole test suite
	@$(RUN)/python -m pytest --numprocesses=2 --dist=loadfile

lint: setup ## style and types
	@$(RUN)/ruff check --quiet .
	@$(RUN)/ruff format --quiet --check .
	@$(RUN)/clang-format --dry-run -Werror $(FORMATTED)
	@$(RUN)/mypy --no-error-summary

format: setup ## put the source in shape
	@$(RUN)/ruff format --quiet .
	@$(RUN)/clang-format -i $(FORMATTED)

check-native: setup ## the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@EDGEVOICE_TEST_MODEL="$$($(RUN)/edgevoice models pull tiny.en)" $(RUN)/python build_native.py --sanitize

soak: setup check-native ## run the engine for long: memory, two hours of the service, reloads, more random tests, fuzzers, wheels, emulated ARM (half an hour and more)
	@$(RUN)/python scripts/soak.py

wheel: $(VENV)/build-tools ## dist/*.whl for any processor of this architecture, or of the one named by ARCH=arm64, ARCH=amd64
	@$(RUN)/python build_native.py --wheel $(ARCH)

deb: setup ## dist/*.deb, the program and the model as Debian packages; ARCH=arm64 for 64-bit ARM
	@$(RUN)/python deploy/debian/build.py $(ARCH)

setup: packages $(VENV)/installed $(NATIVE) $(UPSTREAM) models ## Debian packages, virtual environment, native module, model

models: $(VENV)/installed $(NATIVE) $(UPSTREAM)
	@$(RUN)/edgevoice models pull tiny.en >/dev/null

packages:
	@PYTHON="$(PYTHON)" scripts/debian-packages.sh

# setuptools and cffi first: with them the package installs without a second, isolated environment.
$(VENV)/build-tools: pyproject.toml | packages
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}; choose another with: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip install --disable-pip-version-check "setuptools>=77,<85" "cffi>=2.0,<3"
	@touch $@

$(NATIVE) $(UPSTREAM) &: $(VENV)/build-tools $(CSRC) build_native.py
	@$(RUN)/python build_native.py
	@touch $(NATIVE) $(UPSTREAM)

$(VENV)/installed: pyproject.toml $(VENV)/build-tools | $(NATIVE)
	@echo "installing Python packages into $(VENV)"
	@$(RUN)/python -m pip install --disable-pip-version-check --no-build-isolation --editable '.[test,eval,wake,zeroconf,web,home-assistant]'
	@touch $@

clean: ## remove what was built here; models and the cache stay
	@rm -rf $(VENV) build dist *.egg-info edgevoice/upstream $(NATIVE) .mypy_cache .ruff_cache .pytest_cache .hypothesis
