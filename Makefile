# Set-up needs Python >= 3.11, git and make; everything else goes into .venv.
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: reproduce test test-all test-processors test-notebooks test-shapes coverage lint notebooks clean

reproduce: .venv/core
	.venv/bin/alignkit reproduce

# Tests start many processes: with bytecode kept, none compiles the package anew.
test test-all test-processors test-notebooks test-shapes coverage: export PYTHONDONTWRITEBYTECODE =

test: .venv/dev
	.venv/bin/python -m pytest -n auto --dist loadfile -m "not slow"

test-all: .venv/dev
	.venv/bin/python -m pytest

# Other processors, as the arithmetic libraries may be told to play them; worker processes inherit the environment.
test-processors: .venv/dev
	@failed=0; for setting in "" \
	  "ONEDNN_MAX_CPU_ISA=AVX2" \
	  "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2" \
	  "ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=AVX2"; do \
	  echo "Tests under $${setting:-no setting} ..."; \
	  env $$setting .venv/bin/python -m pytest -n auto --dist loadfile -m "not slow" || failed=1; \
	done; exit $$failed

test-notebooks: .venv/dev .venv/notebooks
	.venv/bin/python -m pytest tests/test_notebooks.py

# The engine's tests again, with the shapes of tensors checked at every call.
test-shapes: .venv/dev
	.venv/bin/python -m pytest --shapes -n auto --dist loadfile -m "not slow" \
	  tests/networks tests/rules tests/measures tests/numerics tests/training

# Which lines and branches the default tests reach, processes that they start included; below the floor it fails.
coverage: .venv/dev
	.venv/bin/python -m pytest -n auto --dist loadfile -m "not slow" --cov

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

notebooks: .venv/notebooks
	.venv/bin/jupyter lab studies/notebooks

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "alignkit needs Python 3.11 or newer; $(PYTHON) is older. Name another: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing alignkit into .venv (once; torch is large) ..."
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/dev: .venv/core
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

.venv/notebooks: .venv/core
	$(PIP_INSTALL) --editable '.[notebooks]'
	@touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
