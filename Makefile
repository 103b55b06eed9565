# Targets for people and for CI. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
OUT ?= outputs

# Of `make study`: words of python -m gruland.study, e.g. STUDY="experiment=smoke seeds=1".
STUDY ?=
NAME ?= study

# Of `make paper`: the full IMDB (CSV, Parquet or aclImdb folder), GloVe 100-d vectors, trainings of each chosen model.
DATA ?=
GLOVE ?=
SEEDS ?= 3

# Of `make bench`: arguments of python -m benchmarks, e.g. BENCH="--only training --run FOLDER"; see docs/performance.md.
BENCH ?=

# Of `make scaling`: arguments of python -m benchmarks.scaling; without any the tables are drawn again.
SCALING ?=

.DEFAULT_GOAL := help
.PHONY: help setup lock audit docs test test-slow slurm-test soak test-floors lint train sweep-none sweep-zoneout sweep-dropconnect surfaces attack report study paper bench scaling clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

setup: $(VENV)/.ready  ## the virtual environment, with everything that the tests and the study need

# Of the lock each file's checksum is known. torch is not in it: an index has its build for a processor or for CUDA, each
# with a checksum of its own, and what the build asks for besides comes along. Nothing is resolved, so nothing that a
# package would like (backpack: torchvision, and with it another torch) gets in. haste's own build wants CUDA wherever it
# finds nvcc: without it on the path it is the pure Python that the tests compare with. They skip that comparison, and say
# so, where it could not be installed.
TORCH := torch==2.13.0
HASTE := haste-pytorch-cpu==0.5.5
$(VENV)/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --no-deps --require-hashes -r requirements.lock
	$(RUN) pip install $(TORCH)
	$(RUN) pip install --no-deps --no-build-isolation -e .
	-env PATH="$(abspath $(BIN)):/usr/bin:/bin" $(RUN) pip install --no-deps --no-build-isolation $(HASTE)
	touch $@

# pip-compile and pip-audit lie in an environment of their own: what they need is none of the package's business.
TOOLS := $(VENV)/tools
$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install pip-tools==7.6.2 pip-audit==2.10.1
	touch $@

# Versions stay as they are in the lock where pyproject.toml allows them; LOCK=--upgrade looks for newer ones.
LOCK ?=
# Addresses, of an index or of the package itself, are of one machine: such lines stay out. pip-compile leaves out the
# condition under which triton is asked for.
lock: $(TOOLS)/.ready  ## requirements.lock from pyproject.toml
	printf '%s\n' $(TORCH) torchvision==0.28.0 > $(TOOLS)/torch.txt
	cp requirements.lock $(TOOLS)/found.txt
	$(TOOLS)/bin/pip-compile --quiet --extra dev --extra docs --extra hessian --generate-hashes --strip-extras \
	  --unsafe-package torch --unsafe-package torchvision --no-annotate --no-header \
	  --constraint $(TOOLS)/torch.txt --output-file $(TOOLS)/found.txt $(LOCK) pyproject.toml
	{ grep '^# ' requirements.lock; grep -v -e '^#' -e '^--' -e '^$$' -e '^gruland @' $(TOOLS)/found.txt | \
	  sed 's/^triton==[^ ;]*/& ; platform_system == "Linux" and platform_machine == "x86_64"/'; } > $(TOOLS)/new.lock
	mv $(TOOLS)/new.lock requirements.lock

audit: $(TOOLS)/.ready  ## known vulnerabilities of the locked versions and of the floors, where a network allows
	$(TOOLS)/bin/python .ci/audit requirements.lock $(TORCH)
	$(TOOLS)/bin/python .ci/audit floors.txt

test: setup  ## the test suite, on every core
	$(RUN) pytest -n auto --dist worksteal

test-slow: setup  ## what is too long for it, such as the documentation's commands typed with an installed wheel
	$(RUN) pytest -n auto -m slow

slurm-test: setup  ## a sweep on a real Slurm of this machine alone (apt-get install slurm-wlm munge)
	$(RUN) pytest -m slurm tests/test_slurm.py -rs

# Of `make soak`: arguments of python -m soak in tests/, e.g. SOAK="--kills 0 --damage 500" or SOAK="--case damage/17 --seed 3".
SOAK ?=

soak: setup  ## kills at every boundary of every write, damaged files, malformed inputs, by the thousand: an hour and a half
	PYTHONPATH=tests $(RUN) soak $(SOAK)

# They lie in an environment of their own that sees the other one for what they need in turn. torch stays as it is there
# unless FLOOR_TORCH=2.10.0, the oldest, is given: a download of gigabytes on some machines.
FLOOR_TORCH ?=
test-floors: $(VENV)/floors/.ready  ## the test suite with the oldest versions that pyproject.toml allows
	$(VENV)/floors/bin/python -m pytest -o filterwarnings=default -n auto --dist loadfile $(TESTS)

$(VENV)/floors/.ready: pyproject.toml floors.txt $(VENV)/.ready
	$(BIN)/python -m venv $(VENV)/floors
	$(VENV)/floors/bin/python -m pip install --no-deps --only-binary :all: $(if $(FLOOR_TORCH),torch==$(FLOOR_TORCH)) -r floors.txt
	$(BIN)/python -c 'from sysconfig import get_path as path; file = path("purelib", vars={"base": "$(VENV)/floors"}) + "/below.pth"; open(file, "w").write("import site; site.addsitedir(%r)" % path("purelib"))'
	touch $@

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup  ## the documentation as a site, site/index.html; a warning is an error
	$(BIN)/mkdocs build --strict --quiet

train: setup  ## one model on the embedded reviews
	$(RUN) gruland.train

sweep-none: setup  ## the three sizes without a regularizer
	$(RUN) gruland.train regularizer=none -m

sweep-zoneout: setup  ## the paper's zoneout grid
	$(RUN) gruland.train regularizer=zoneout -m

sweep-dropconnect: setup  ## the paper's DropConnect grid
	$(RUN) gruland.train regularizer=dropconnect -m

surfaces: setup  ## loss surfaces of the best run of each regularizer below OUT
	$(RUN) gruland.best "$(OUT)" | tr '\n' '\0' | xargs -0 $(RUN) gruland.landscape

attack: setup  ## adversarial evaluation of the best run of each regularizer below OUT
	$(RUN) gruland.best "$(OUT)" | tr '\n' '\0' | xargs -0 $(RUN) gruland.attack

report: setup  ## report.html and report.md of all runs below OUT
	$(RUN) gruland.report "$(OUT)"

study: setup  ## grids on the embedded reviews, the chosen models with three seeds, surfaces, attacks, the report
	$(RUN) gruland.study $(STUDY) experiment_name=$(NAME) output_dir="$(OUT)"

paper: setup  ## the same at the paper's size: make paper DATA=imdb.csv GLOVE=glove.6B.100d.txt
	$(RUN) gruland.study experiment=paper $(if $(DATA),data.path="$(DATA)") $(if $(GLOVE),embedding.path="$(GLOVE)") seeds=$(SEEDS) output_dir="$(OUT)"

bench: $(VENV)/bench/.ready  ## speed beside the peers: docs/performance.md
	$(VENV)/bench/bin/python -m benchmarks $(BENCH)

scaling: setup  ## strong and weak scaling, a cluster that dies: docs/scaling.md (SCALING="--measure --runs RUN")
	$(RUN) benchmarks.scaling $(SCALING)

# The peers lie in an environment of their own that sees the other one, without their dependencies: no wish of theirs
# can replace torch. One that cannot be installed is reported as such.
$(VENV)/bench/.ready: benchmarks/requirements.txt $(VENV)/.ready
	$(BIN)/python -m venv $(VENV)/bench
	$(BIN)/python -c 'from sysconfig import get_path as path; file = path("purelib", vars={"base": "$(VENV)/bench"}) + "/below.pth"; open(file, "w").write("import site; site.addsitedir(%r)" % path("purelib"))'
	-sed 's/#.*//' benchmarks/requirements.txt | xargs -n 1 $(VENV)/bench/bin/python -m pip install --no-deps
	touch $@

clean:  ## remove the virtual environment and caches; outputs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache build dist
