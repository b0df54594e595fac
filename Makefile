# Shortcuts for everyday commands; `python -m pipeline COMMAND -h` explains all options.
# Dependencies are defined in dvc.yaml, parameters in params.yaml.

PYTHON ?= python3
PY := .venv/bin/python
RUN := $(PY) -m pipeline
DVC := $(PY) -m dvc
# DVC runs the stages with the first python on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Options are taken from the command line only, verbatim: neither make nor the shell expands them.
OPTIONS_KNOWN := ADDRESS ALL CLASSES EPOCHS EXECUTOR FILE FOLD FORCE FORMAT INPUT JOBS MESSAGE NAME OPTIONS OUT PORT \
  REFRESH SCALING SEEDS SIDE THREADS YES
given = $(filter command,$(origin $1))
lines := $(foreach goal,$(MAKECMDGOALS),$(shell grep '^$(goal):' $(lastword $(MAKEFILE_LIST))))
unknown := $(foreach name,$(filter-out PYTHON,$(.VARIABLES)),$(if $(call given,$(name)),$(if $(and \
  $(filter $(name),$(OPTIONS_KNOWN)),$(findstring $(name)=,$(lines))),,$(name))))
ifneq ($(strip $(unknown)),)
$(error $(strip make $(MAKECMDGOALS)) has no option $(strip $(unknown)); make help lists the options of each command)
endif
empty := $(foreach name,PYTHON $(OPTIONS_KNOWN),$(if $(call given,$(name)),$(if $(value $(name)),,$(name))))
ifneq ($(strip $(empty)),)
$(error empty: $(strip $(empty)); give a value, or leave it out)
endif
$(foreach name,$(OPTIONS_KNOWN),$(eval override $(name) := $(if $(call given,$(name)),$$(value $(name)))))
export $(OPTIONS_KNOWN)
option = $${$1:+--$2="$$$1"}
no = 0 n no f false off N NO No F FALSE False OFF Off
flag = $(if $(filter-out $(no),$($1)),$(if $(filter 1 y yes t true on Y YES Yes T TRUE True ON On,$($1)),--$2,$(error \
  $1=$($1): give 1 or 0)))
need = [ -n "$$$1" ] || { echo "error: $1 is missing; for example: $2" >&2; exit 1; }
report := $(DVC) repro --force --single-item report

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup light demo quick plan train pack unpack repro score submit leaderboard browse predict serve release export outside speedrun claims seeds \
  bench notebook test lint clean scm

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { line = sprintf("make %-11s", $$1); n = split($$2, words, " "); \
	  for (i = 1; i <= n; i++) { if (length(line " " words[i]) > 80) { print line; line = sprintf("%16s", "") } \
	  line = line " " words[i] } print line }' $(MAKEFILE_LIST)

setup: ## install all locked requirements (every command does so if needed)
	@$(PYTHON) .ci/setup.py $(if $(call given,PYTHON),named)

light: # requirements of the commands that need no training
	@$(PYTHON) .ci/setup.py light $(if $(call given,PYTHON),named)

scm: setup # for a copy without git
	@[ -e .git ] || $(DVC) config --local core.no_scm true

demo: setup ## run the whole pipeline on drawn faces, in demo/ (needs no data or account)
	@$(RUN) demo

quick: scm ## run the whole pipeline on a fifth of the real faces, in quick/ (8 minutes)
	@$(RUN) quick

plan: scm ## list stale cells, why they are stale, and their training time
	@$(RUN) plan --show

train: scm ## train all stale cells: JOBS=2 THREADS=1 EXECUTOR=loky|dask|ray ADDRESS=...; YES=1 allows more than ten minutes (then: make repro)
	@$(RUN) train $(call option,JOBS,jobs) $(call option,THREADS,threads) $(call option,EXECUTOR,executor) $(call \
	  option,ADDRESS,address) $(call flag,YES,yes)

pack: setup ## pack the run for a machine without DVC, for example a GPU server: FILE=fer2013-run.tar.gz
	@$(RUN) pack $${FILE:+-- "$$FILE"}

unpack: scm ## add the cells trained on another machine: FILE=cells.tar.gz
	@$(call need,FILE,make unpack FILE=cells.tar.gz)
	@$(RUN) unpack -- "$$FILE"

repro: scm ## run all stages that are out of date, from the data to scored submissions; YES=1 allows more than ten minutes of training
	@$(RUN) check
	$(DVC) repro
	@$(RUN) leaderboard

score: setup ## score your own submission file: FILE=mine.csv
	@$(call need,FILE,make score FILE=mine.csv)
	@$(RUN) score -- "$$FILE"

submit: setup ## send submissions/NAME.csv to Kaggle: NAME=ensemble MESSAGE="..."; FORCE=1 sends the same bytes again
	@$(RUN) submit $(call option,MESSAGE,message) $(call flag,FORCE,force) -- "$${NAME:-ensemble}"

leaderboard: $(if $(call flag,REFRESH,refresh),setup,light) ## show our submissions and the teams of 2013: FORMAT=md|csv|json; REFRESH=1 queries Kaggle first
	@$(RUN) leaderboard $(call flag,REFRESH,refresh) $(call option,FORMAT,format)

browse: setup ## show out-of-fold errors of all models, picture by picture, in artifacts/browse.html
	@$(RUN) browse

predict: $(if $(findstring --explain,$(OPTIONS))$(findstring --network,$(OPTIONS)),setup,light) ## predict the expressions in pictures, folders, a .csv, a video or a camera: INPUT=... OPTIONS="--out out"
	@$(call need,INPUT,make predict INPUT=docs/astronaut.jpg)
	@set -f; $(RUN) predict $$OPTIONS $${INPUT:+-- "$$INPUT"}

serve: setup ## predict expressions on a local web page, from pictures or the camera: PORT=8013
	@exec $(RUN) serve $(call option,PORT,port)

release: setup ## write trained networks of at most 5 MB and a model card to released/: NAME=... FOLD=0,1
	@$(RUN) release -- "$$NAME" "$${FOLD:-0}"

export: setup ## export the released network (or NAME=... FOLD=0) to ONNX and LiteRT, in artifacts/exported/
	@$(RUN) export -- "$$NAME" "$$FOLD"

outside: setup ## score any Keras file: FILE=... SIDE=48 SCALING=unit|symmetric|raw CLASSES=... OUT=...
	@$(RUN) outside $(call option,SIDE,side) $(call option,SCALING,scaling) $(call option,CLASSES,classes) $(call \
	  option,OUT,out) -- "$$FILE"

speedrun: scm ## train and score a small network on all Training rows; ALL=1 trains every seed
	@$(RUN) speedrun $(call flag,ALL,all)
	$(if $(call flag,ALL,all),$(report))

claims: scm ## reproduce published claims with the sources' recipes: NAME=... EPOCHS=... (hours)
	@$(RUN) claims $(call option,EPOCHS,epochs) -- "$$NAME"
	$(report)

seeds: scm ## repeat the run with other seeds, for mean and deviation: SEEDS="1 2 3" (a day or more per seed)
	@set -f; $(RUN) seeds $$SEEDS
	$(report)

bench: setup ## compare training speed with other implementations, in results/bench.json
	@$(PY) -m bench

notebook: setup ## write a notebook that runs the pipeline on Kaggle: notebooks/on_kaggle.ipynb
	@$(PY) -m jupytext --quiet --to ipynb notebooks/on_kaggle.py

test: setup ## run the tests: ALL=1 includes the slow ones
	@$(PY) -m pytest -n 2 --dist loadfile $(if $(call flag,ALL,all),,-m "not slow")

lint: setup ## check style and types
	@$(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy

clean: ## remove demo/, quick/, dvc_plots/, tool caches and outdated environments; keep data, models and .venv
	rm -rf demo quick dvc_plots .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	@for folder in .venv-*; do [ ! -d "$$folder" ] || [ "$$folder" = "$$(readlink .venv)" ] || rm -rf "$$folder"; done
