# Every target works on a fresh machine with Python 3.11 or later: the virtual environment is made when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
BENCH_STAMP := $(VENV)/.bench-ready

.PHONY: help demo test lint types layers tests bench docs venv campaign campaign-elf campaign-image campaign-logs \
	campaign-sched campaign-tpm coverage-tpm mutation-tpm coverage-image mutation-image ablation clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/' | expand -t 16

demo: $(STAMP)  ## a clean host is accepted; one flipped bit in a driver is refused, or named
	@$(BIN)/python examples/demo.py

test: lint types layers tests  ## the whole check

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict on sim/
	$(BIN)/mypy -p sim

layers: $(STAMP)  ## import-linter: the layers of ARCHITECTURE.md
	$(BIN)/lint-imports --no-cache

tests: $(STAMP)  ## pytest: units, properties, vectors, golden files, whole scenarios, tidiness
	$(BIN)/python -m pytest -q

bench: $(BENCH_STAMP)  ## figures as ratios against a named peer or floor, also into benchmarks/results.json
	$(BIN)/python benchmarks/run.py

docs: $(STAMP)  ## rewrite the generated pages of docs/
	$(BIN)/python docs/generate.py

campaign: $(STAMP)  ## long: every single-bit flip of a signed VIB, its signature and each boot-bank file
	$(BIN)/python tests/campaigns/bitflips.py

campaign-image: $(STAMP)  ## long: 100,000 single faults in signed VIBs, signature files, bundles and revocation lists
	$(BIN)/python tests/campaigns/image_faults.py --count 100000

campaign-logs: $(STAMP)  ## long: 1,000,000 fuzzed TCG event logs, replayed or refused, in less than 100 MB
	$(BIN)/python tests/campaigns/log_mutants.py --count 1000000

campaign-sched: $(STAMP)  ## long: all 18 scheduling invariants on 10,000 random scenarios; goes on where it stopped
	@mkdir -p out
	$(BIN)/python tests/campaigns/sched_scenarios.py --count 10000 --state out/campaign-sched.json

campaign-tpm: $(STAMP)  ## long: 100,000 mutations of valid TPM commands
	$(BIN)/python tests/campaigns/tpm_mutations.py --count 100000

campaign-elf: $(STAMP)  ## long: 100,000 mutants of ELF files, loaded or refused whole
	$(BIN)/python tests/campaigns/elf_mutants.py --count 100000

coverage-tpm: $(STAMP)  ## branch coverage of sim/tpm by the tests of the TPM; fails below 95 %
	$(BIN)/python -m pytest -q $(wildcard tests/*/test_tpm_*.py) tests/unit/tpm \
		--cov=sim.tpm --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95

mutation-tpm: $(STAMP)  ## long: how many of mutmut's mutants of the TPM its tests kill; fails below 85 % (ARGS="--sample 0")
	$(BIN)/python -m pip install -q -e '.[mutation]'
	PYTHONHASHSEED=0 $(BIN)/python tests/campaigns/tpm_mutation_score.py $(ARGS)

coverage-image: $(STAMP)  ## branch coverage of sim/image and sim/attest by their tests; fails below 95 %
	$(BIN)/python -m pytest -q tests/unit/image tests/unit/attest tests/unit/boot tests/unit/vsphere \
		tests/catalogue tests/vectors/test_survey.py tests/vectors/test_esxi_report.py \
		--cov=sim.image --cov=sim.attest --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=95

mutation-image: $(STAMP)  ## long: the same for image parsers, signatures and the verifier (ARGS="--area parsers --sample 0")
	$(BIN)/python -m pip install -q -e '.[mutation]'
	PYTHONHASHSEED=0 $(BIN)/python tests/campaigns/image_mutation_score.py $(ARGS)

ablation: $(STAMP)  ## long: switches each check of the verifiers off, and demands that a test fails (ARGS="--area verifier")
	$(BIN)/python -m pip install -q -e '.[mutation]'
	PYTHONHASHSEED=0 $(BIN)/python tests/campaigns/ablation.py $(ARGS)

venv: $(STAMP)  ## the virtual environment alone

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e '.[test]'
	@touch $@

# The peers of the benchmarks; without a registry the benchmark says which one is missing and goes on.
$(BENCH_STAMP): $(STAMP)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q -e '.[test,bench]' && touch $@ || true

clean:  ## remove what was built
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis out
