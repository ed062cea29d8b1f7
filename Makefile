# make book          measure the pocket world on this machine, in minutes (params/here.yaml, into
#                    build/here); render the published book into _book/ and this one into _book/here/.
#                    Published chapters that are not current are run and checked before.
# make book STUDIES="opt-125m"   the same with these studies, fetched first, in place of `here`
# make book FORCE=1  measure again what was measured before, the published chapters as well
# make test          lint, types, tests (with every chapter on params/smoke.yaml), and the gate
# make quick         lint, types, and the tests of seconds: under a minute
# make stress N=10   the tests that many times, while something else keeps every core busy
#
# Each sets up the virtual environment .venv by itself, once. PYTHON chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: book lint style types test test-suite quick quick-suite gate stress clean
.DELETE_ON_ERROR:

OWN = $(or $(strip $(STUDIES)),here)
RUN = $(BIN)/llmft run $(if $(FORCE),--force)

book: $(VENV)/.book
ifdef STUDIES
	$(BIN)/llmft fetch $(OWN)
else
	$(RUN)
	$(BIN)/llmft check
endif
	$(RUN) --out build/$(subst $(space),+,$(OWN)) -p "studies=[$(subst $(space),$(comma) ,$(OWN))]"
	$(BIN)/llmft render build/$(subst $(space),+,$(OWN))

lint: style types

style: $(VENV)/.tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(VENV)/.tests
	$(BIN)/mypy

# Beside the tests, as a worker often waits: the types and, of all tests, the gate.
test quick: style
	@$(MAKE) --no-print-directory --jobs 2 types $@-suite $(if $(filter test,$@),gate)

gate: $(VENV)/.tests
	$(BIN)/llmft check

test-suite: $(VENV)/.tests
	$(BIN)/pytest -q -n 2

quick-suite: $(VENV)/.tests
	$(BIN)/pytest -q -n 2 -m "not slow"

N := 10
stress: $(VENV)/.tests
	$(BIN)/python -m tests.stress $(N)

clean:
	rm -rf $(VENV) _book .quarto

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "llmft needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# torch first, by its exact version, so that nothing else chooses one.
$(VENV)/.book $(VENV)/.tests: $(VENV)/.%: $(VENV)/.python pyproject.toml constraints.txt
	@echo "installing llmft for 'make $(patsubst tests,test,$*)' into $(VENV) (some minutes, once) ..."
	$(PIP) "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(PIP) -e ".[$(if $(filter tests,$*),book$(comma)tests,book)]"
	@touch $@

comma := ,
space := $(subst ,, )
