# One word for each task; CONTRIBUTING.md says what they check.
.PHONY: lint types test test-all coverage docs bench all
all: lint types test-all docs
lint:
	ruff check . && ruff format --check . && lint-imports
types:
	mypy
test:
	pytest -n 2
test-all:
	pytest -n 2 -m ""
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then .ci/cluster; else echo ".ci/cluster: as root on Debian"; fi
coverage:
	pytest -n 2 -m "not thorough" --cov
docs:
	mkdocs build
bench:
	python -m benchmarks.epoch
