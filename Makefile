# Two commands do everything on a fresh machine with Python 3.11+, make and git: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint picture clean

demo: .venv/installed  ## train a reward model, then run DPO, on generated pictures (under 5 minutes on 2 cores)
	$(BIN)/python examples/demo.py

test: .venv/installed  ## every test but the slow ones
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: .venv/installed  ## the slow ones: hundreds of random forests, the examples from end to end
	$(BIN)/python -m pytest -q -m slow

lint: .venv/installed  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

picture: .venv/installed  ## assets/pack.png, the README's picture
	$(BIN)/python examples/pictures.py

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "vlmpack needs Python 3.11 or newer; say which with: make PYTHON=python3.12"; exit 1; }
	@echo "setting up .venv (once; torch is large, so this takes a few minutes)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

clean:  ## everything that was generated
	rm -rf .venv outputs build *.egg-info .pytest_cache .ruff_cache .hypothesis
