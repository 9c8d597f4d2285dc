# make            set up .venv and run the line: raw data to a report and a served prediction
# make setup      set up .venv alone; then `source .venv/bin/activate` and your own data: python -m pipeline.new
# make test       everything tested in under 15 minutes; make test-all adds the long tests
# make lint       ruff, and mypy strict
# make readme     the measured tables of README.md and docs/lecture-notes.md, from results
# make pictures   the pictures of README.md and docs/, from the outputs of the line
# make docs       docs/params.md and docs/params.schema.json, from the models of pipeline/params/schema/
# make study NAME=mnist-exercise     one study; its table goes to results/studies
# make all        every recipe; make full: the papers' sizes (a GPU)
# make compare    the experiments of `dvc exp run`: what was changed, and the test metrics
# make report     the report of what is made so far, when not every entry is
# make bench      the benchmarks that fit this machine
# make clean      delete what was made (out/); .venv and the DVC cache stay

PYTHON ?= python3
READY := .venv/.ready
FIRST := lenet5-digits dilated-waves
FORKED := python -m pipeline.line.fork_server python -m
LEAST_DRIVER := 580
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export OMP_WAIT_POLICY ?= PASSIVE
# Containers set it; without compiled modules each stage would compile ours and its libraries anew, for a second or more.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := line
.PHONY: pictures readme line setup welcome scm test test-all lint docs study compare report all full bench clean lock

line: welcome $(READY) scm
	@$(FORKED) pipeline.line.run $(FIRST)
	@echo; cat out/report/table.txt; echo; echo "report: $(CURDIR)/out/report/index.html"

setup: $(READY) scm
	@echo "Now run: source .venv/bin/activate"
	@echo "Your images:  python -m pipeline.new pets --images ~/pets --run"
	@echo "Your series:  python -m pipeline.new air --csv air.csv --run"

welcome:
	@echo "Convline: raw data to trained, exported, checked and served networks."
	@test -f $(READY) || echo "  set-up    about 3.7 GB to download, 7.2 GB in .venv (PyTorch with CUDA); 1 to 5 minutes"
	@test -d out || echo "  first     lenet5 and the dilated forecaster, about 2 minutes; then the other entries, about 30 (two cores)"
	@if ! command -v nvidia-smi >/dev/null 2>&1; then echo "  device    no NVIDIA GPU seen: training and serving on the CPU"; \
	elif ! driver=$$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>&1); then \
	echo "  device    all runs on the CPU: nvidia-smi fails ($$driver); mend the NVIDIA driver"; \
	elif driver=$$(echo "$$driver" | head -n 1); [ "$${driver%%.*}" -lt $(LEAST_DRIVER) ]; then \
	echo "  device    all runs on the CPU: NVIDIA driver $$driver is too old for CUDA 13; update it to $(LEAST_DRIVER) or newer"; \
	else echo "  device    NVIDIA GPU seen, driver $$driver; params.yaml has 'device: auto'"; fi
	@echo "  result    out/report/index.html, packages in out/dist, metrics in results (3.5 GB beside .venv)"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"make: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; run make PYTHON=python3.12")'
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python -r requirements.lock
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python --no-deps -e .
	@touch $(READY)

# A copy without .git (a ZIP, a container) works too: DVC is told that there is no git.
scm: $(READY)
	@test -e .git || python -m dvc config --local --quiet core.no_scm true

# Test files in parallel, one thread each; on more than four cores the fixtures of each process cost more than they save.
# In the order of the folders: xdist would run files of few tests last, and those take longest (end_to_end).
# A process that dies ends the run with the name of its test: replaced, it would leave xdist waiting for ever.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: $(READY) scm
	$(SIDE_BY_SIDE) -m "not long"

test-all: $(READY) scm
	$(SIDE_BY_SIDE)

docs: $(READY)
	python -m pipeline.params --docs

lint: $(READY)
	python -m ruff check .
	python -m mypy

study: $(READY)
	python -m pipeline.study $(NAME)
	@echo; cat results/studies/$(NAME).md

all full: $(READY)
	@test -e .git || { echo "make $@: needs git for dvc exp run; without it, edit 'line:' or 'size:' in params.yaml and run make"; exit 1; }
	@$(FORKED) dvc exp run $(if $(filter full,$@),-S size=full,$$(python -m pipeline.params --names | sed "s/^/-S ++line./")) params >/dev/null
	@$(FORKED) pipeline.line.run
	@$(FORKED) dvc exp run >/dev/null
	@echo; cat out/report/table.txt; echo; echo "params.yaml and results hold this run's values now; 'git checkout params.yaml results' goes back"

# Of the thousand columns of `dvc exp show`, those of test metrics and params that differ.
compare: $(READY)
	@dvc exp show --only-changed --hide-workspace \
	  --drop 'Created|.*(_low|_high|balanced_accuracy|calibration|int8|fp16|coverage|ratio_to)|[^:]*/[^:]*$$|(models|pipeline|serve|results)$$|.*\.(yaml|toml)$$'

report: $(READY)
	@python -m pipeline.report
	@echo; cat out/report/table.txt

bench: $(READY)
	python -m benchmarks.gpu
	python benchmarks/input_pipeline.py

# The measured tables of README.md and docs/lecture-notes.md.
readme: $(READY)
	python -m pipeline.report --readme

# A picture whose inputs are not at hand stays as it is; the command says what is missing.
pictures: $(READY)
	python -m docs.pictures

clean:
	rm -rf out

# Exact versions, without any index's address in the file.
lock:
	.venv/bin/python -m uv pip compile --quiet pyproject.toml --extra train --extra dev --universal --python-version 3.11 \
	  --no-header --no-annotate --output-file requirements.lock
