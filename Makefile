# Every target makes or reuses a virtual environment by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: race rates test lint docs test-edge clean
.DEFAULT_GOAL := race

race: $(VENV)/.experiments
	$(BIN)/stochopt race digits

rates: $(VENV)/.experiments
	$(BIN)/stochopt rates

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# The same tests on the newest Python found (3.12 or later) with the newest jax.
test-edge:
	@python="$$(.ci/newest-python)" && echo "edge: $$python" && \
	$(MAKE) test PYTHON="$$python" VENV=.venv-edge

clean:
	rm -rf $(VENV) .venv-edge docs/_build race rates

# One stamp per extra; a changed pyproject.toml installs anew.
$(VENV)/.%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@
