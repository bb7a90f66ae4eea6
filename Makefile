# The two commands that matter: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
PIP_FLAGS ?=
WORKLOAD ?= files
extras_demo := $(if $(filter mail,$(WORKLOAD)),-mail)
SEED ?= 0
BENCH ?=
KILLS ?= 200
BROKER_KILLS ?= 10
TESTS ?= tests
# The image's name; what it is based on (none: what its Containerfile pins); options for buildah, such as
# "--build-arg PIP_FLAGS=--index-url=..." or "--secret id=pip,src=pip.conf".
IMAGE ?= cohobate:0.1.0
BASE ?=
IMAGE_FLAGS ?=
# uv installs all but PyTorch; with PIP_FLAGS, or where uv does not work, pip does it alone.
INSTALL := .venv/bin/python infra/install.py
export PIP_FLAGS
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench chaos hosts image image-test clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: PYTHON=python3.11 WORKLOAD=files|mail SEED=0 BENCH=name TESTS=path PIP_FLAGS=... IMAGE=name BASE=name IMAGE_FLAGS=..."

install: .venv/.base ## the pinned dependencies, into .venv
	@echo "ready: .venv/bin/cohobate --help"

demo: .venv/.base$(extras_demo) ## run the whole loop on real input; WORKLOAD=mail for the other workload
	.venv/bin/cohobate demo --workload $(WORKLOAD) --seed $(SEED)

# One thread for OpenBLAS and PyTorch in each worker: there are as many workers as cores, and more threads would wait for
# each other.
test: .venv/.dev ## run all tests, in random order on all cores
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 .venv/bin/pytest -n auto --dist worksteal $(TESTS)

check: .venv/.dev ## lint, types and import rules
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/.dev ## format the code
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: .venv/.dev ## run every benchmark, or one with BENCH=name
	.venv/bin/python -m tests.bench $(BENCH)

chaos: .venv/.dev ## kill labelers and a real Kafka and count what was lost or doubled; KILLS=200 SEED=0
	.venv/bin/python -m tests.chaos --kills $(KILLS) --broker-kills $(BROKER_KILLS) --seed $(SEED)

hosts: .venv/.dev ## the slow tests of an installation: a real Kubernetes with its operators, Ray on several hosts, and a real Kafka
	COHOBATE_TEST_HOSTS="$${COHOBATE_TEST_HOSTS:-1}" .venv/bin/pytest -n0 tests/hosts

image: ## build the container image with buildah; IMAGE=name BASE=name IMAGE_FLAGS=...
	@command -v buildah >/dev/null || { echo "there is no buildah (Debian: buildah) to build an image with"; exit 1; }
	buildah bud --isolation chroot --file infra/deploy/Containerfile --tag $(IMAGE) \
	  $(if $(BASE),--build-arg BASE=$(BASE)) $(IMAGE_FLAGS) .

image-test: .venv/.dev ## run the image that was built, and every step of a pipeline in it, as a pod does
	COHOBATE_TEST_IMAGE=$(IMAGE) .venv/bin/pytest tests/integration/test_image.py tests/integration/test_pods.py

clean: ## remove the environment and everything that the embedded platform wrote
	rm -rf .venv .cohobate .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-report.json

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "Cohobate needs Python 3.11 or 3.12: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.base: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing the pinned dependencies into .venv (about 200 packages)"
	$(INSTALL) .
	@touch $@

.venv/.base-mail: .venv/.base
	$(INSTALL) '.[mail]'
	@touch $@

.venv/.dev: .venv/.base
	$(INSTALL) '.[cluster,mail,dev]'
	@touch $@
