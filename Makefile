# `make help` lists the targets.

SHELL := /bin/sh
VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
RUN_LOCKS := requirements/workers.txt requirements/cluster_client.txt cluster_client/requirements.txt
DEV_LOCKS := requirements/dev.txt
LOCK := $(VENV_PYTHON) -m uv pip compile --quiet --universal --generate-hashes $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help demo run check test bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r target words; do \
		printf '  %-12s %s\n' "$$target" "$$words"; done

demo: $(VENV)/for-run ## set up, run one real job on this machine, show it, stop everything
	@exec $(VENV_PYTHON) -m ops demo

run: $(VENV)/for-run ## keep the whole stack up in var/ and print its addresses; Ctrl-C stops it
	@exec $(VENV_PYTHON) -m ops run

check: $(VENV)/for-dev ## format, lint, types, layers, migrations, unit tests (seconds)
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy
	$(VENV)/bin/lint-imports
	DJANGO_SETTINGS_MODULE=tests.settings $(VENV_PYTHON) manage.py makemigrations --check --dry-run
	$(VENV_PYTHON) -m pytest -q tests/unit

test: ## install what the tests need, run all tiers on private servers (minutes)
	@ops/install-test-packages
	@$(MAKE) --no-print-directory $(VENV)/for-dev
	@exec $(VENV_PYTHON) -m ops.tiers

bench: ## measure side by side with sbatch and scp: JSON=file ONLY=names QUICK=1 (minutes)
	@ops/install-test-packages
	@$(MAKE) --no-print-directory $(VENV)/for-run
	@exec $(VENV_PYTHON) -m ops.bench $(if $(JSON),--json "$(JSON)") $(if $(ONLY),--only "$(ONLY)") \
		$(if $(QUICK),--quick)

lock: $(VENV)/for-dev ## write the locks from requirements/*.in (UPGRADE=1: with newer versions)
	$(LOCK) --python-version 3.11 requirements/dev.in -o requirements/dev.txt
	$(LOCK) --python-version 3.11 -c requirements/dev.txt requirements/workers.in -o requirements/workers.txt
	$(LOCK) --python-version 3.11 -c requirements/dev.txt requirements/controller.in -o requirements/controller.txt
	$(LOCK) --python-version 3.9 requirements/cluster_client.in -o cluster_client/requirements.txt

clean: ## remove what was built and the virtual environment; var/ stays
	rm -rf $(VENV) build dist *.egg-info tests/artefacts
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/for-run: $(RUN_LOCKS)
	@ops/make-venv $@ requirements/workers.txt cluster_client/requirements.txt

$(VENV)/for-dev: $(DEV_LOCKS)
	@ops/make-venv $@ requirements/dev.txt
