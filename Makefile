# `make test` sets up what it needs and runs everything that must hold.
.PHONY: help test setup lint charts doc bench

help: ## this text
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /	/'

test: setup lint charts ## set up, then fmt, clippy, the chart, unit, property, conformance, process and doc tests
	cargo test --workspace --no-fail-fast

setup: ## install what the tests need (Redis, RabbitMQ, Python, Node) where it is missing
	@.ci/setup

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

charts: ## the chart, alert rules, dashboards, k8s/, Dockerfile and compose.yaml with Helm, promtool and schemas
	charts/tests/run

doc: ## the API documentation of all crates
	cargo doc --workspace --no-deps

bench: ## W1 to W6 on both backends with the raw floor
	cargo run --release -p load-tests -- bench
