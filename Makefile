# The verbs of this project. Each one sets up .venv by itself, once, and again when
# pyproject.toml changes. Another interpreter: make test PYTHON=python3.12

VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test coverage lint check bench clean

help:
	@echo "make demo    watch a stream break and go on: no key, no network needed"
	@echo "make test    the tests, on all cores; some of them: ARGS='-k pool'"
	@echo "make coverage  the tests, and which branches they take"
	@echo "make check   ruff, mypy --strict, then the tests"
	@echo "make bench   the benchmarks"
	@echo "make clean   remove whatever the other verbs made, .venv included"

demo: $(VENV)/.core
	@$(BIN)/holystream demo $(ARGS)

test: $(VENV)/.test
ifdef ARGS
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal
endif

# Takes half as long again as the tests alone.
coverage: $(VENV)/.test
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest --numprocesses=auto --dist=worksteal; \
	status=$$?; \
	$(BIN)/python -m coverage combine --quiet && \
	$(BIN)/python -m coverage report || status=$$((status ? status : 1)); \
	exit $$status

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python -m mypy

check: lint
	@$(MAKE) --no-print-directory test

# A file that begins with an underscore is a part of the others.
bench: $(VENV)/.bench
	@set -e; for file in benchmarks/[a-z]*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" $(ARGS); \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* \
		.peers .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed, by stamp: each of these holds everything that .core does.
define install
@echo "Installing $(1) into $(VENV) (once) ..."
@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
@$(BIN)/python -m pip install -qq --disable-pip-version-check -e "$(1)"
@touch $(VENV)/.core $@
endef

$(VENV)/.core: pyproject.toml $(BIN)/python
	$(call install,.)

$(VENV)/.test: pyproject.toml $(BIN)/python
	$(call install,.[test])

$(VENV)/.dev: pyproject.toml $(BIN)/python
	$(call install,.[dev])
	@touch $(VENV)/.test

$(VENV)/.bench: pyproject.toml $(BIN)/python
	$(call install,.[bench])

# The first interpreter that is new enough and can make an environment.
$(BIN)/python:
	@found=; bare=; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			>/dev/null 2>&1 || continue; \
		if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
			found=$$python; break; \
		fi; \
		bare=$${bare:-$$python}; \
	done; \
	if [ -n "$$found" ]; then \
		echo "Making $(VENV) with $$("$$found" --version) ..."; \
		"$$found" -m venv --clear $(VENV); \
	elif [ -n "$$bare" ]; then \
		package=$$("$$bare" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		echo "$$bare cannot make virtual environments: venv or ensurepip is missing." >&2; \
		echo "On Debian and Ubuntu: apt install $$package" >&2; \
		exit 1; \
	else \
		echo "Python 3.11 or newer is needed, and $(or $(PYTHON),python3) is not." >&2; \
		echo "On Debian 12 and Ubuntu 24.04: apt install python3 python3-venv" >&2; \
		echo "If you have one elsewhere: make PYTHON=/path/to/python3.12 test" >&2; \
		exit 1; \
	fi
