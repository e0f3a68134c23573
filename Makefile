# make setup | run | test | test-all | lint | figures | notebooks | docs | bench | bench-vision | gpu | lock   (in an activated virtual environment)
.PHONY: setup run test test-all lint figures notebooks docs bench bench-vision gpu gpu-parts lock

export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

setup:
	pip install -e ".[all]" -c requirements.lock

run:
	python experiments/sample_efficiency.py --n 1e3..1e6

test:
	pytest

test-all:
	pytest -m ""

lint:
	ruff check .
	ruff format --check .
	mypy

# From the committed tables in paper_figures/data; `make run` makes new ones under results/.
figures:
	python paper_figures/make_all.py

# Run in full (minutes) and written with their outputs; `make test` runs them small.
notebooks:
	python notebooks/make_all.py

# Pages and API, to be read from build/site/index.html.
docs:
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

# One table, docs/benchmarks.md; on a quiet machine, about ten minutes.
bench:
	python experiments/benchmarks.py

# On the CPU, and on a GPU where torch sees one; docs/vision_benchmark.md keeps the rows of other devices.
bench-vision:
	python experiments/benchmark_vision.py --batch 8
	python experiments/benchmark_packed.py
	if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then python experiments/benchmark_vision.py \
	--device cuda --models vit_base_patch16_224,vit_large_patch16_224 --batch 64 --rounds 30; fi

# What needs a GPU, which no test has: costs, agreement of logits in bfloat16, then the study at 112 pixels with prompts in
# all ten blocks. All of it stops after MINUTES; the same command goes on, and what is there already is not measured again.
# WEIGHTS is a file that backbone.py fetch wrote, in fp32 or fp16 (44 MB), for a machine that cannot fetch it.
GPU_RUN = results/real-gpu
MINUTES = 600
WEIGHTS =
GPU_WEIGHTS = $(if $(WEIGHTS),--weights $(WEIGHTS))
gpu:
	python -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 'make gpu: torch sees no GPU here')"
	mkdir -p $(GPU_RUN)
	timeout --signal=INT $(MINUTES)m $(MAKE) --no-print-directory gpu-parts \
	|| { test $$? = 124 && echo "stopped after $(MINUTES) minutes: make gpu goes on"; }

gpu-parts:
	test -e $(GPU_RUN)/costs || { python experiments/benchmark_vision.py --device cuda \
	--models vit_base_patch16_224,vit_large_patch16_224 --batch 64 --rounds 30 && touch $(GPU_RUN)/costs; }
	test -s $(GPU_RUN)/bfloat16.md || { python experiments/benchmark_bfloat16.py --device cuda $(GPU_WEIGHTS) \
	> $(GPU_RUN)/bfloat16.part && mv $(GPU_RUN)/bfloat16.part $(GPU_RUN)/bfloat16.md; }
	python experiments/data_efficiency.py --preset real-gpu --out $(GPU_RUN)/study \
	$(GPU_WEIGHTS) $$(test -e $(GPU_RUN)/study/meta.json && echo --resume)

# pip freeze cannot serve as constraints (it lists the project itself), so the lock is resolved from pyproject.toml.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --upgrade pyproject.toml -o requirements.lock
