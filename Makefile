# Every target is one readable line or two; `make` alone lists them.
SHELL   := /bin/bash
IMAGE   ?= swarmkeeper:dev
LAB      = cargo run --quiet --package swarmkeeper-lab --bin lab --
BINARY   = $(or $(CARGO_TARGET_DIR),target)/$(shell rustc -vV | sed -n 's/^host: //p')/debug/swarmkeeper

.DEFAULT_GOAL := help
.PHONY: help tools build image lab lab-down demo test test-engines chaos bench clean
# All but what does not depend on how an engine stores a service.
ENGINE_SKIPS = --skip registering:: --skip leading:: --skip faults:: --skip securing:: --skip leaving::

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

tools: ## install what building needs from Debian's packages (as root; otherwise say what is missing)
	@tests/tools.sh

build: tools ## the static binary
	cargo build --locked --bin swarmkeeper

image: build ## an image from scratch with that binary, on the engine that DOCKER_HOST names
	@tests/image.sh $(BINARY) target/image
	docker build --target prebuilt --tag $(IMAGE) --file Dockerfile target/image

lab: tools ## a swarm of four nodes on this machine, with Consul, registries and git; stays until lab-down
	$(LAB) up --detach

lab-down: ## take the lab away
	$(LAB) down

demo: build ## the main job on real parts: a git commit becomes running services on four nodes
	@tests/tools.sh bind9-dnsutils curl
	$(LAB) down
	$(LAB) up --detach
	cargo run --quiet --locked --package swarmkeeper-lab --bin demo -- $(BINARY)

test: tools ## format, lints, unit tests, repository rules, a minute of fuzzing, then end to end on the lab; as root
	@tests/tools.sh g++
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --features swarmkeeper-fuzz/libfuzzer -- -D warnings
	$(LAB) install
	cargo test --locked --workspace --lib --bins --test tidy --test history --test command_line --test bad_input --test oracle --test consul --test registration
	cargo test --locked --doc
	tests/fuzz/run.sh
	cargo test --locked --test e2e

test-engines: tools ## the end-to-end tests of deploying, on this machine's engine and on Debian sid's; as root
	LAB_ENGINE=machine cargo test --locked --test e2e -- $(ENGINE_SKIPS)
	LAB_ENGINE=sid cargo test --locked --test e2e -- $(ENGINE_SKIPS)

chaos: build ## faults under load on the lab: 30 in at most 12 minutes; SEED, MINUTES and PREVIOUS=<binary> choose others
	cargo test --locked --test chaos

bench: build ## the table of figures, also in target/bench.json
	cargo bench --locked --profile dev --bench figures

clean: ## remove what was built
	cargo clean
