# Everything from nothing but Python (3.11 or newer) and make. The first call installs into .venv, later ones do not.
#   make demo    the whole loop on the embedded model; ends with the verdict and the path of its report
#   make test    the tests; make test-slow plays those with kills and races
#   make check   ruff, mypy --strict, the layer test
# On Linux without a GPU, a much smaller download: make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check

help:
	@sed -n '2,5p' Makefile | cut -c3-

demo: $(STAMP)
	$(BIN)/aifb run shapes/dspo

test: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-slow: $(STAMP)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
