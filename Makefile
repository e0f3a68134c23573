# make setup | run | test | test-all | lint | figures | bench | lock        (in an activated virtual environment)
.PHONY: setup run test test-all lint figures bench lock

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

bench:
	python experiments/benchmark.py

# pip freeze cannot serve as constraints (it lists the project itself), so the lock is resolved from pyproject.toml.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --upgrade pyproject.toml -o requirements.lock
