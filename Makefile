# `make demo` shows the engine at work, `make test` installs what the tests need and runs them all, `make bench` measures.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# What the tests run for real: Redis, RabbitMQ, and GStreamer's RTSP server under the system's own Python; the ffmpeg
# that benchmarks compare the engine to; systemd-analyze, which checks the units of deploy/; and a browser for films.
SERVERS := redis-server redis-tools rabbitmq-server python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base \
           gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly ffmpeg systemd \
           chromium-headless-shell

.PHONY: demo test test-fast lint servers bench bench-quick faults soak fuzz clean

demo: $(VENV)/.installed
	$(BIN)/edge-video demo

# How many tests run at a time: most of them wait for servers.
JOBS ?= 5
test: servers lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal
	$(BIN)/python -m pytest benchmarks --bench once

# Under 2 minutes: unit tests, and one site that uses a server of each kind.
test-fast: servers $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "(unit or smoke) and not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# About 20 minutes on a quiet machine: benchmarks/results, docs/benchmarks.md, the README's figures; fails where a ratio is below its floor.
bench: servers $(VENV)/.installed-dev
	$(BIN)/python -m pytest benchmarks --bench full

# About 3 minutes; writes nothing.
bench-quick: servers $(VENV)/.installed-dev
	$(BIN)/python -m pytest benchmarks --bench quick

# Every fault of tests/faults/cases.py, three times over, in about 15 minutes; writes docs/reliability.md.
faults: servers $(VENV)/.installed-dev
	FAULT_CAMERAS=20 $(BIN)/python -m pytest tests/faults -n $(JOBS) --runs 3 --ignore tests/faults/test_report.py

# 100 cameras under load, a fault every 20 seconds; writes its part of docs/reliability.md.
MINUTES ?= 15
soak: servers $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) --write

# New inputs go to tests/fuzz/corpus, what broke a promise to tests/fuzz/crashes (docs/fuzzing.md).
SECONDS ?= 60
fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz.fuzz all --seconds $(SECONDS)

# RUNLEVEL=1 keeps the packages from starting system-wide servers: the tests start their own, on private ports.
servers:
	@dpkg -s $(SERVERS) >/dev/null 2>&1 || { \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SERVERS); }

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed; name one: make demo PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "This Python has no venv: install it first (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-fuzz: pyproject.toml $(VENV)/bin/python
	@test "$$(uname -m)" = x86_64 || { echo "atheris has wheels for x86-64 only; make test needs none" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]'
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed

clean:
	rm -rf $(VENV)
