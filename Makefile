# One word for each task; CONTRIBUTING.md says what they check.
.PHONY: lint types test docs bench all
all: lint types test docs
lint:
	ruff check . && ruff format --check . && lint-imports
types:
	mypy
test:
	pytest -n 2
docs:
	mkdocs build
bench:
	python -m benchmarks.epoch
