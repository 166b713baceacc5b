# make explore and make test do all the set-up on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check \
	--constraint constraints.txt

.PHONY: explore test test-integrations fuzz test-torch check format bench calibrate viability truth remedies
.PHONY: architectures theory alarms images lesson vendor clean

# torch comes first and pinned: an unpinned one would bring gigabytes of CUDA libraries.
$(VENV)/base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) --editable ".[app]"
	touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) --editable ".[app,dev]"
	touch $@

$(VENV)/bench: $(VENV)/dev
	$(PIP) --editable ".[app,dev,bench]"
	touch $@

# Node is a Python package here, and npm brings what checks the pages' scripts.
NODE := PATH="$(CURDIR)/$(BIN):$$PATH"

$(VENV)/scripts: $(VENV)/dev package.json package-lock.json
	$(PIP) --editable ".[app,dev,scripts]"
	$(NODE) npm ci --silent --no-audit --no-fund
	touch $@

explore: $(VENV)/base
	$(BIN)/chainrule explore $(ARGS)

# Containers often forbid Python to keep what it compiled: each of the many processes that tests
# start would compile PyTorch's and chainrule's sources again.
test: $(VENV)/dev
	PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/compiled \
		$(BIN)/python -m pytest $(ARGS)

# Random search, round after round, for MINUTES; what it finds is mended and kept as an example.
fuzz: $(VENV)/dev
	$(BIN)/python tests/fuzz.py --minutes $(or $(MINUTES),60) $(ARGS)

# `watch` in trainers and loggers of others, each in a real training. These packages are large, and
# some refuse what is pinned for the rest, so they have an environment of their own.
test-integrations:
	$(PYTHON) -m venv $(VENV)-integrations
	grep -vE '^(certifi|pillow)==' constraints.txt > $(VENV)-integrations/constraints.txt
	$(VENV)-integrations/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
		--constraint $(VENV)-integrations/constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(VENV)-integrations/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
		--constraint $(VENV)-integrations/constraints.txt --editable ".[app,dev,integrations]"
	$(VENV)-integrations/bin/python -m pytest tests/integrations $(ARGS)

# The tests without a browser, on another PyTorch (which pins its own SymPy): VERSION=2.6.0
test-torch:
	$(PYTHON) -m venv $(VENV)-torch-$(VERSION)
	$(VENV)-torch-$(VERSION)/bin/python -m pip install --quiet "torch==$(VERSION)"
	grep -vE '^(torch|sympy)==' constraints.txt > $(VENV)-torch-$(VERSION)/constraints.txt
	$(VENV)-torch-$(VERSION)/bin/python -m pip install --quiet --editable ".[app,dev]" \
		--constraint $(VENV)-torch-$(VERSION)/constraints.txt "torch==$(VERSION)"
	$(VENV)-torch-$(VERSION)/bin/python -m pytest -m "not browser" $(ARGS)

check: $(VENV)/scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NODE) npm run --silent check

format: $(VENV)/scripts
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(NODE) npm run --silent format

bench: $(VENV)/bench
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/load.py --seconds 20
	$(BIN)/python benchmarks/watching.py

# Trains what is not in benchmarks/outcomes.csv yet; ARGS="--minutes 60 --processes 8"
calibrate: $(VENV)/dev
	$(BIN)/python benchmarks/calibrate.py $(ARGS)

# Fits src/chainrule/diagnosis/viability/constants.py on it, and judges that on what it never saw.
viability: $(VENV)/dev
	$(BIN)/python benchmarks/viability.py
	$(BIN)/python benchmarks/viability.py

# Trains what is not in benchmarks/truth.csv yet, and writes docs/truth.md; ARGS="--minutes 20"
truth: $(VENV)/dev
	$(BIN)/python benchmarks/truth.py $(ARGS)

# Applies the first remedy to every held-out network that is not viable, and trains it.
remedies: $(VENV)/dev
	$(BIN)/python benchmarks/remedies.py $(ARGS)

# Judges standard architectures at their standard start, and trains what is not called healthy.
architectures: $(VENV)/dev
	$(BIN)/python benchmarks/architectures.py $(ARGS)

# Measures what is not in benchmarks/theory.csv yet, and writes docs/theory.md; ARGS="--minutes 20"
theory: $(VENV)/dev
	$(BIN)/python benchmarks/theory.py $(ARGS)

# Trains faulty and sound programs under watch (resumable), and writes docs/alarms.md.
alarms: $(VENV)/dev
	$(BIN)/python benchmarks/alarms.py $(ARGS)

lesson: $(VENV)/bench
	$(BIN)/python docs/make_lesson.py

images: $(VENV)/dev
	$(BIN)/python docs/make_images.py

# The chart library of the pages, from npm.
vendor: $(VENV)/scripts
	$(NODE) python docs/make_vendor.py

clean:
	rm -rf $(VENV) node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
