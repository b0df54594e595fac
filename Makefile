# The verbs for people. What depends on what stands in dvc.yaml, the numbers in params.yaml.

PYTHON ?= python3
PY := .venv/bin/python
# DVC starts the stages with the first python on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo repro train release predict export outside claims seeds speedrun bench notebook test lint submit leaderboard clean

help: ## show these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install everything into .venv, as locked (the other verbs do it when needed)

$(STAMP): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else 1)' || \
	  { echo "error: $(PYTHON) is not Python 3.11 to 3.13; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch $@

demo: setup ## run the whole pipeline on drawn faces, in demo/ (no data or credentials needed)
	@$(PY) -m pipeline.demo

repro: setup ## run what is out of date, from the competition's files to scored submissions
	@[ -e .git ] || $(PY) -m dvc config --local core.no_scm true
	$(PY) -m dvc repro
	@$(PY) -m pipeline.leaderboard

train: setup ## train all cells that are out of date: JOBS=2 THREADS=1 BACKEND=loky|dask|ray ADDRESS=... (then: make repro)
	@[ -e .git ] || $(PY) -m dvc config --local core.no_scm true
	$(PY) -m dvc repro check folds
	@$(PY) -m pipeline.train
	$(PY) -m dvc repro teach
	@$(PY) -m pipeline.distill

release: setup ## pack a trained network, under 5 MB, with a model card, into released/: NAME=... FOLD=0
	@$(PY) -m pipeline.release "$$NAME" "$${FOLD:-0}"

predict: setup ## name the expressions in pictures, a folder, a .csv, a video or a camera: INPUT=... OPTIONS="--out out"
	@set -f; $(PY) -m pipeline.predict $$OPTIONS $${INPUT:+-- "$$INPUT"}
export: setup ## write the released network (or NAME=... FOLD=0) for ONNX and LiteRT, into artifacts/exported/
	@$(PY) -m pipeline.export "$$NAME" "$$FOLD"

outside: setup ## score a Keras file from elsewhere: FILE=... SIDE=48 SCALING=unit|symmetric|raw CLASSES=... OUT=...
	@$(PY) -m pipeline.outside "$$FILE" "$${SIDE:-48}" "$$SCALING" "$$CLASSES" "$$OUT"

claims: setup ## run the sources' own protocols, to show what their figures owe to them: NAME=... EPOCHS=... (hours)
	@$(PY) -m pipeline.claims "$$NAME" "$$EPOCHS"
	$(PY) -m dvc repro --force --single-item report

seeds: setup ## run all with other seeds, and show mean and deviation in the report: SEEDS="1 2 3" (hours)
	@$(PY) -m pipeline.seeds
	$(PY) -m dvc repro --force --single-item report

speedrun: setup ## train networks on all Training rows, as params.yaml says, for each of its seeds, and score them (forty minutes; several networks a seed: JOBS=2 THREADS=1)
	@$(PY) -m pipeline.speedrun
	$(PY) -m dvc repro --force --single-item report

bench: setup ## measure how fast it is, against what others use, into results/bench.json
	@$(PY) -m bench

notebook: setup ## write the notebook that runs all of this on Kaggle: notebooks/on_kaggle.ipynb
	@$(PY) -m jupytext --quiet --to ipynb notebooks/on_kaggle.py

test: setup ## run the tests: ALL=1 for the slow ones, too
	@$(PY) -m pytest -n 2 --dist loadfile $(if $(ALL),,-m "not slow")

lint: setup ## check style and types
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy

# These are taken from the command line alone, as they stand there: neither make nor the shell expands them.
$(foreach name,NAME FOLD FILE SIDE SCALING CLASSES OUT EPOCHS MESSAGE FORCE REFRESH JOBS THREADS BACKEND ADDRESS \
  SEEDS INPUT OPTIONS,$(eval override export $(name) \
  $(if $(filter command line,$(origin $(name))),:= $$(value $(name)),:=)))
ifneq ($(THREADS),$(filter $(shell seq 999),$(firstword $(THREADS))))
$(error THREADS=$(THREADS): must be a whole number from 1 to 999)
endif
ifneq ($(THREADS),) # of each training: with JOBS=2 on two cores 1 is fastest, and rounds otherwise
export TF_NUM_INTRAOP_THREADS := $(THREADS)
export TF_NUM_INTEROP_THREADS := $(THREADS)
endif

submit: setup ## send submissions/NAME.csv to Kaggle: NAME=ensemble MESSAGE="..." FORCE=1
	@$(PY) -m pipeline.submit "$${NAME:-ensemble}" "$$MESSAGE"

leaderboard: setup ## show our submissions among the teams of 2013; REFRESH=1 asks Kaggle for its scores first
	@$(PY) -m pipeline.leaderboard

clean: ## remove the demo and the tools' caches; data, models and .venv stay
	rm -rf demo .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
