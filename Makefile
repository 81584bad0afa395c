# Every command does its own set-up: a fresh clone, CPython 3.11, make and gcc are enough.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready
UV := UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv

.PHONY: demo test check format bench bench-calendar bench-throughput bench-small-runs bench-fleet bench-shared-account \
        prove-calendar prove-loss prove-paging prove-crash prove-model prove-outage prove-webhook prove-connectors prove-versions \
        prove-upgrade clean

demo: $(READY)  ## The main job in about a minute: three tenants, a sandbox shop, an accelerated clock
	@$(BIN)/tidegate demo

test: check  ## Everything that CI runs
	@$(BIN)/python -m tests

check: $(READY)  ## Format, lint, types, layers
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(READY)
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: bench-calendar bench-throughput bench-small-runs bench-fleet bench-shared-account  ## Side by side with peers and hand-written floors

bench-calendar: $(READY)
	@$(BIN)/python -m benchmarks.calendar

bench-throughput: $(READY)
	@$(BIN)/python -m benchmarks.throughput

bench-small-runs: $(READY)
	@$(BIN)/python -m benchmarks.small_runs

bench-fleet: $(READY)  ## A million schedules
	@$(BIN)/python -m benchmarks.fleet

bench-shared-account: $(READY)  ## Sixteen workers and a thousand tenants behind one rate limit
	@$(BIN)/python -m benchmarks.shared_account

prove-calendar: $(READY)  ## Every zone, 1970 to 2040, every sync hour
	@$(BIN)/python -m tests.domain.prove_calendar

prove-loss: $(READY)  ## The hostile source, at length
	@$(BIN)/python -m tests.loss.prove_loss

prove-paging: $(READY)  ## Every movement of small lists, in every kind of pager
	@$(BIN)/python -m tests.paging.prove_paging

prove-crash: $(READY)  ## A thousand times kill -9; resumable
	@$(BIN)/python -m tests.crash.prove_crash

prove-model: $(READY)  ## Random sequences of all that can happen to a chain, against the rules it must keep
	@$(BIN)/python -m tests.model.prove_model

prove-outage: $(READY)  ## Three days of outage at every minute
	@$(BIN)/python -m tests.model.prove_outage

prove-webhook: $(READY)  ## A receiver that is down for a day, then slow, then refuses
	@$(BIN)/python -m tests.destinations.prove_webhook

prove-connectors: $(READY)  ## kill -9 in the middle of child listings and change feeds
	@$(BIN)/python -m tests.connectors.prove_kills 20

prove-versions: $(READY)  ## What touches a database, on a server of each version from 14 on; needs npm
	@$(BIN)/python -m tests.versions.prove_versions

prove-upgrade: $(READY)  ## Migrations beneath workers of an older revision; needs the repository's history
	@$(BIN)/python -m tests.upgrade.prove_upgrade

$(READY): pyproject.toml uv.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: install python3.11 and python3.11-venv." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) sync --frozen --inexact --quiet
	@touch $@

clean:
	rm -rf .venv .cache .tidegate .mypy_cache .ruff_cache .pytest_cache .hypothesis
