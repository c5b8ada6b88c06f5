# One word for each task; CONTRIBUTING.md says what they check.
.PHONY: lint types test test-all docs bench all
all: lint types test-all docs
lint:
	ruff check . && ruff format --check . && lint-imports
types:
	mypy
test:
	pytest -n 2
test-all:
	pytest -n 2 -m ""
docs:
	mkdocs build
bench:
	python -m benchmarks.epoch
