# Two commands do everything on a fresh machine with Python 3.11+, make and git: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint picture notebook browser clean

demo: .venv/installed  ## train a reward model, then run DPO, on generated pictures (under 5 minutes on 2 cores)
	$(BIN)/python examples/demo.py

test: .venv/installed browser  ## every test but the slow ones
	$(BIN)/python -m pytest -q -n auto --dist loadfile

test-slow: .venv/installed  ## the slow ones: hundreds of random forests, the examples from end to end
	$(BIN)/python -m pytest -q -m slow

lint: .venv/installed  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

picture: .venv/installed  ## assets/pack.png, the README's picture, and page.png, a page in a browser
	$(BIN)/python examples/pictures.py

notebook: .venv/installed  ## examples/inspect_masks.ipynb, its outputs made anew
	PYTHONWARNINGS=ignore $(BIN)/python -c "import nbformat, nbclient; path = 'examples/inspect_masks.ipynb'; tour = nbformat.read(path, 4); \
		nbclient.NotebookClient(tour, record_timing=False, resources={'metadata': {'path': 'examples'}}).execute(); \
		nbformat.write(tour, path)"

browser:  ## headless Chromium, in which pages are tested; installed on Debian, as root, if it is missing
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "installing Chromium for the tests of pages" \
			&& { export DEBIAN_FRONTEND=noninteractive; apt-get install -y -qq chromium chromium-driver || { apt-get update -qq \
			&& apt-get install -y -qq chromium chromium-driver; }; } >/dev/null 2>&1; } \
		|| echo "no Chromium: tests of pages are skipped (Debian: apt-get install chromium chromium-driver)"

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
