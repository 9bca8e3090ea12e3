# One entry to everything. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export FRAUD_CACHE ?= $(HOME)/.cache/fraud-platform
export PYTHONSAFEPATH := 1
export PYTHONDONTWRITEBYTECODE :=

# The interpreter that needs nothing installed: it makes the environments. 3.11, as PyFlink asks.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENVS := $(FRAUD_CACHE)/envs
BOOT := PYTHONPATH=local/src:contracts/src $(PYTHON) -m
LOCAL := PYTHONPATH=local/src:contracts/src $(ENVS)/operator/bin/python -m
DEV := $(ENVS)/dev/bin

CR ?= manifests/examples/payments.yaml
HISTORY ?=
RATE ?= 200
DURATION ?= 60
ONCE ?=
ONLY ?=
WRITE ?=
CONTAINER ?=
IMAGES ?=
REGISTRY ?=
PLATFORMS ?=
TAG ?=
CHAOS ?=
LIVES ?=
ROUNDS ?= 30
OPTIONS ?=

##@ Run

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: check env-operator ## Show the whole platform: CR=, HISTORY=, RATE= (tx/s), DURATION= (s), CHAOS=1 to kill everything in turn, LIVES=1 for what years bring, IMAGES=built for the shipped images, ONCE=1 to check and tear down
	@$(LOCAL) fraud_local.demo --cr "$(CR)" --history "$(HISTORY)" --rate "$(RATE)" --duration "$(DURATION)" $(if $(CHAOS),--chaos) $(if $(LIVES),--lives) $(if $(IMAGES),--images "$(IMAGES)") $(if $(ONCE),--once)

.PHONY: cluster-up
cluster-up: check env-operator ## Make a cluster: kind where Docker runs, else this machine becomes a node (root)
	@$(LOCAL) fraud_local.cluster up $(if $(IMAGES),--images "$(IMAGES)")

.PHONY: down
down: ## Take down whatever cluster-up or demo left, in whatever state it is
	@$(BOOT) fraud_local.down

##@ Check

.PHONY: test
test: envs programs lint ## All tests, the native node's end-to-end test among them
	@PYTHON="$(PYTHON)" tests/run all

.PHONY: test-fast
test-fast: env-dev env-operator ## Unit tests that need nothing but the environments (under a minute)
	@PYTHON="$(PYTHON)" tests/run fast

.PHONY: test-chaos
test-chaos: envs programs ## The demo with every process killed in turn (13 minutes on two cores)
	@PYTHON="$(PYTHON)" tests/run chaos

.PHONY: test-lives
test-lives: envs programs ## The demo with what years bring: deletions, topics made anew, stores put back (minutes on two cores)
	@PYTHON="$(PYTHON)" tests/run lives

.PHONY: test-broker
test-broker: envs programs ## The broker killed 30 times under the worker's transactions (12 minutes); ROUNDS=3 for fewer
	@PYTHON="$(PYTHON)" FRAUD_ROUNDS="$(ROUNDS)" tests/run broker

.PHONY: test-locks
test-locks: envs programs ## What is marked accept: logins under attack, an overload, killed brokers and API server, stores that move or are away, idle detectors (some minutes)
	@PYTHON="$(PYTHON)" tests/run locks

.PHONY: test-network
test-network: env-operator ## Who reaches whom and may what on the cluster of a demo that runs, from Pods in everybody's place (some minutes)
	@PYTHON="$(PYTHON)" FRAUD_REQUIRE=all tests/run network

.PHONY: test-rotation
test-rotation: env-operator ## Every credential changed under load on the cluster of a demo that runs (half an hour)
	@PYTHON="$(PYTHON)" FRAUD_REQUIRE=all tests/run rotation

.PHONY: test-live
test-live: check env-operator ## A demo, and on its cluster test-network and test-rotation (three quarters of an hour)
	@PYTHON="$(PYTHON)" FRAUD_REQUIRE=all tests/run live

.PHONY: test-kind
test-kind: env-operator ## The README's commands on kind, from an empty Docker host to a decision
	@PYTHON="$(PYTHON)" FRAUD_REQUIRE=all tests/run kind

.PHONY: test-scale
test-scale: env-operator programs ## 200 idle detectors for five minutes, the operator killed beside another (12 minutes); DETECTORS=40 IDLE_SECONDS=60 for fewer
	@PYTHON="$(PYTHON)" FRAUD_DETECTORS="$(DETECTORS)" FRAUD_IDLE_SECONDS="$(IDLE_SECONDS)" tests/run scale

.PHONY: accept
accept: test-locks test-broker test-scale test-live test-chaos test-lives ## The long runs that make test leaves out, each a target of its own, too

.PHONY: bench
bench: env-serving env-flink env-operator env-ray ## The figures of docs/performance.md beside their baselines; ONLY=predictor for some, WRITE=1 to keep them
	@PYTHONPATH=tests/bench $(PYTHON) -m fraud_bench --only "$(ONLY)" $(if $(WRITE),--write)

.PHONY: card
card: env-ray ## Model cards without a cluster: the model against three baselines, on simulated and on Sparkov payments
	@mkdir -p build/card && rm -f build/card/simulated.csv.gz
	@PYTHONPATH=contracts/src:pipelines/src $(ENVS)/ray/bin/python -m fraud_pipelines.simulator --rows 160000 --seed 7 \
	  --fraud-rate 0.02 --end-ms 1780000000000 --as-known --patterns --out build/card/simulated.csv.gz
	@PYTHONPATH=contracts/src:pipelines/src:ray/src $(ENVS)/ray/bin/python -m fraud_ray.evaluate \
	  --cr manifests/examples/payments.yaml --history build/card/simulated.csv.gz --out build/card/simulated
	@PYTHONPATH=contracts/src:pipelines/src:ray/src $(ENVS)/ray/bin/python -m fraud_ray.evaluate \
	  --cr manifests/examples/sparkov.yaml --history tests/data/sparkov.csv.gz --out build/card/sparkov

.PHONY: sizing
sizing: env-operator ## What a load takes of each store: RATE= (payments/s), OPTIONS= for more, as "--keys 5000000 100000 --days 90"
	@PYTHONPATH=contracts/src $(ENVS)/operator/bin/python -m fraud_contracts.sizing --rate "$(RATE)" $(OPTIONS)

.PHONY: lint
lint: env-dev ## Format, lint, types, imports
	@$(DEV)/ruff format --check .
	@$(DEV)/ruff check .
	@MYPYPATH=contracts/src $(DEV)/mypy contracts/src
	@MYPYPATH=contracts/src:pipelines/src $(DEV)/mypy pipelines/src
	@MYPYPATH=contracts/src:operator/src $(DEV)/mypy operator/src
	@MYPYPATH=contracts/src:pipelines/src:serving/src $(DEV)/mypy serving/src
	@MYPYPATH=contracts/src:local/src $(DEV)/mypy local/src
	@MYPYPATH=contracts/src:pipelines/src:flink/src $(DEV)/mypy flink/src
	@MYPYPATH=contracts/src:pipelines/src:ray/src $(DEV)/mypy ray/src
	@MYPYPATH=contracts/src:pipelines/src:console/src $(DEV)/mypy console/src
	@MYPYPATH=$(subst $() ,:,$(wildcard */src) tests/support tests/bench) $(DEV)/mypy --follow-imports=silent tests/support tests/bench/fraud_bench
	@PYTHONPATH=contracts/src:pipelines/src:operator/src:flink/src:ray/src:serving/src:console/src:local/src $(DEV)/lint-imports --no-cache

.PHONY: format
format: env-dev ## Format the code
	@$(DEV)/ruff check --fix --silent . || true
	@$(DEV)/ruff format .

.PHONY: golden-update
golden-update: env-operator ## Rewrite the golden manifests; review the diff
	@FRAUD_UPDATE_GOLDEN=1 tests/run golden

.PHONY: crds
crds: env-operator ## Fetch the upstream CRDs that our children are checked against
	@$(LOCAL) fraud_local.crds

.PHONY: crd
crd: ## Write the chart's CRD from the types
	@PYTHONPATH=contracts/src $(ENVS)/operator/bin/python -m fraud_contracts.crd > charts/fraud-platform/files/frauddetectors.yaml

.PHONY: reference
reference: ## Write docs/reference from the types, the table of docs/sizing.md, docs/module-index.md from the sources, the chart's README from its values
	@PYTHONPATH=contracts/src $(ENVS)/operator/bin/python -m fraud_contracts.reference docs/reference
	@PYTHONPATH=contracts/src $(ENVS)/operator/bin/python -m fraud_contracts.sizing --write docs/sizing.md
	@PYTHONPATH=tests/support $(ENVS)/operator/bin/python -m fraud_testing.module_index
	@$(LOCAL) fraud_local.chart_readme

.PHONY: rbac
rbac: ## Write into the chart the operator's rights to its children and who reaches whom, which goes into docs/security.md, too
	@PYTHONPATH=contracts/src:operator/src $(ENVS)/operator/bin/python -m fraud_operator.rbac > charts/fraud-platform/files/child-rules.yaml
	@PYTHONPATH=contracts/src:operator/src $(ENVS)/operator/bin/python -m fraud_operator.reach_files

##@ Build

# A laptop without root or Go still runs the tests that need neither; continuous integration may lack nothing.
.PHONY: programs
programs:
	@$(BOOT) fraud_local.build all || { [ -z "$${FRAUD_REQUIRE:-}" ] && echo "some tests will be skipped, each with what it lacks"; }

.PHONY: check
check: ## What this machine lacks to become a node, each with its remedy
	@$(BOOT) fraud_local.cluster check

# Each with a lock and an image of its own.
FOLDERS := operator flink ray serving serving/mlflow
COMPONENTS := $(notdir $(FOLDERS))

.PHONY: envs
envs: env-dev $(COMPONENTS:%=env-%) ## All environments

.PHONY: env-dev
env-dev:
	@$(BOOT) fraud_local.build env dev

.PHONY: $(COMPONENTS:%=env-%)
$(COMPONENTS:%=env-%):
	@$(BOOT) fraud_local.build env $(@:env-%=%)

COMPILE := $(FRAUD_CACHE)/uv/bin/uv pip compile -q --generate-hashes --python-version 3.11 --no-annotate --no-header

.PHONY: lock
lock: env-dev ## Resolve every component's requirements.in again, and its tests' on top
	@for folder in $(FOLDERS); do ( cd $$folder; $(COMPILE) requirements.in -o requirements.txt; \
	  if [ -e requirements-test.in ]; then $(COMPILE) -c requirements.txt requirements-test.in -o requirements-test.txt; fi ); done
	@$(COMPILE) requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) requirements-build.in -o requirements-build.txt

.PHONY: images
images: ## Build the real images: CONTAINER=docker, podman or buildah, else the first that answers
	@$(BOOT) fraud_local.real_images.build --container "$(CONTAINER)"

.PHONY: images-check
images-check: ## Sizes, SBOMs and faults of the images: built by buildah on Debian roots, or with CONTAINER= those of make images
	@$(BOOT) fraud_local.real_images.check --container "$(CONTAINER)"

.PHONY: kind-up
kind-up: env-operator ## A kind cluster with the upstream operators (needs Docker)
	@$(LOCAL) fraud_local.cluster up --kind

##@ Release

# The digests that the base images' tags have now, as variables that make images and make publish read. Needs Docker.
.PHONY: base-images
base-images: ## The Dockerfiles' base images by digest
	@$(BOOT) fraud_local.real_images.bases

.PHONY: release-version
release-version: ## Whether TAG= is the tag of the chart's version
	@$(BOOT) fraud_local.version "$(TAG)"

.PHONY: publish
publish: ## Images, SBOMs and chart of this version into REGISTRY=host/path, for amd64 and arm64; PLATFORMS=linux/amd64 for one
	@$(BOOT) fraud_local.real_images.publish --registry "$(REGISTRY)" $(if $(PLATFORMS),--platforms "$(PLATFORMS)") --container "$(CONTAINER)"

.PHONY: release-check
release-check: ## The same into a registry of this machine that goes again (root of a Debian machine)
	@$(BOOT) fraud_local.real_images.release_check
