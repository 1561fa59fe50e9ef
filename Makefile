# Every target says in its `##` comment what it is for; `make` alone lists them.

.DEFAULT_GOAL := help
CARGO ?= cargo
STRESS_RUNS ?= 20

# nextest where it works, cargo's own runner elsewhere; doc tests run on their own
# because nextest leaves them out, and first so that the suite's summary comes last
TEST_RUNNER := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo nextest)
ifeq ($(TEST_RUNNER),nextest)
RUN_TESTS := $(CARGO) nextest run --locked
else
RUN_TESTS := $(CARGO) test --locked --lib --bins --tests
endif

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

.PHONY: demo
demo: deps-build ## sample upstreams and a gateway in one process; prints what to try
	$(CARGO) build --release --locked
	$(CARGO) run --quiet --release --locked -- demo

.PHONY: test
test: deps-test ## format, lints, documentation tests, the suite (tests/tidy.rs is part of it)
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) test --doc --locked
	$(RUN_TESTS)

.PHONY: build
build: deps-build ## the optimised binary, target/release/tidegate
	$(CARGO) build --release --locked

.PHONY: release
release: deps-release ## the binary to ship, target/guided/tidegate: `build` laid out by a profile of load (two builds, two minutes of load)
	loadtest/compare/guided

.PHONY: fmt
fmt: ## format the code
	$(CARGO) fmt

.PHONY: bench
bench: deps-build ## the benchmarks in benches/
	$(CARGO) bench --locked

.PHONY: compare
compare: deps-build ## CPU per request against a bare Pingora proxy (needs python3 and wrk; minutes); COMPARE_FLAGS='--scenario all': all of it
	loadtest/compare/compare $(COMPARE_FLAGS)

.PHONY: stress
stress: deps-test ## the suite STRESS_RUNS times (20), to find tests that fail now and then
	@for run in $$(seq $(STRESS_RUNS)); do \
		echo "stress: run $$run of $(STRESS_RUNS)"; \
		$(RUN_TESTS) || exit 1; \
	done

.PHONY: schemathesis
schemathesis: deps-test ## property-based tests of the admin API from its OpenAPI document (needs python3, PyPI; minutes); EXAMPLES=50
	$(CARGO) build --locked
	EXAMPLES=$(or $(EXAMPLES),50) scripts/schemathesis

.PHONY: deny
deny: ## licences, advisories and sources of all dependencies
	@$(CARGO) deny --version >/dev/null 2>&1 \
		|| { echo "cargo-deny is missing: cargo install cargo-deny --locked" >&2; exit 1; }
	$(CARGO) deny --locked check

.PHONY: clean
clean: ## remove what builds have written
	$(CARGO) clean
	rm -rf loadtest/compare/bare/target

.PHONY: deps-build
deps-build:
	@scripts/install-deps build

.PHONY: deps-release
deps-release:
	@scripts/install-deps release

.PHONY: deps-test
deps-test:
	@scripts/install-deps test
