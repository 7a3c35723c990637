# Python 3.11 or newer and make are enough. `make help` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# A CPU build of torch saves gigabytes where the default index serves the CUDA one.
TORCH_INDEX_URL ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --no-annotate --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
# mypy and the schema load the settings, which want a key; it protects nothing here.
export SECRET_KEY_FOR_CHECKS := only-for-static-checks-and-never-for-a-running-site
.DEFAULT_GOAL := help
.PHONY: help run test test-vllm lint bench lock browser

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

run: $(VENV)/.installed ## install what is missing and start everything; Ctrl-C stops it
	@exec $(BIN)/python manage.py up

test: lint browser ## all checks and all tests, the browser's included
	$(BIN)/python -m tests $(PYTEST_ARGS)

test-vllm: $(VENV)/.installed-test ## against a real vLLM on the processor; tests/vllm says what it needs
	@test -n "$$VLLM_PYTHON" -a -n "$$VLLM_MODEL_DIR" || \
		{ echo "Set VLLM_PYTHON and VLLM_MODEL_DIR: see tests/vllm/__init__.py" >&2; exit 1; }
	$(BIN)/python -m pytest tests/vllm -s $(PYTEST_ARGS)

lint: $(VENV)/.installed-test ## format, style, types, imports between layers, templates, migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	SECRET_KEY=$$SECRET_KEY_FOR_CHECKS $(BIN)/mypy assistant ingestion inference tests benchmarks manage.py
	$(BIN)/lint-imports
	$(BIN)/djlint --quiet --check --lint templates
	SECRET_KEY=$$SECRET_KEY_FOR_CHECKS $(BIN)/python manage.py makemigrations --check --dry-run

bench: $(VENV)/.installed-test ## the project's own measurements, as ratios
	@for file in benchmarks/[a-z]*.py; do \
		$(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

lock: $(VENV)/.installed-test ## pin the newest versions that pyproject.toml allows
	$(PIP) install pip-tools
	echo '$(TORCH)' > $(VENV)/torch.txt
	$(COMPILE) --upgrade --constraint $(VENV)/torch.txt -o requirements.lock pyproject.toml
	$(COMPILE) --extra test --constraint requirements.lock -o requirements-test.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu$$/\1/' requirements.lock requirements-test.lock

browser:
	@command -v chromium >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } || \
		{ echo "The browser tests need Chromium: apt-get install chromium" >&2; exit 1; }

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make run PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing. The first time takes a few minutes."
	@$(PIP) install $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) $(TORCH)
	@$(PIP) install -r requirements.lock
	@touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	@$(PIP) install -r requirements-test.lock
	@touch $@
