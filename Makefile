# SPDX-License-Identifier: GPL-3.0-or-later
# Every target does its own set-up; `make` alone lists them. The work is done by the scripts in tools/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv demo demo-down test test-quick test-real-driver test-real-image test-real-vllm lint unit integration image molecule chain clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## make .venv, with everything below in it (PYTHON=... chooses the Python)
	@PYTHON="$(PYTHON)" tools/venv

demo: ## build the sandbox fleet, from nothing, and run site.yml on it
	@tools/demo up

demo-down: ## delete that fleet through the clouds' APIs and leave nothing behind
	@tools/demo down

test: ## run every test and linter
	@tools/test lint unit image integration molecule chain

test-quick: ## run the unit tests and the linters
	@tools/test lint unit

test-real-driver: ## install Debian's own NVIDIA driver for real, its kernel module built by DKMS (slow)
	@tools/test real_driver

test-real-image: ## build images with the real driver and with LUKS, and kill builds at ten moments (slow)
	@tools/test real_image

test-real-vllm: ## run LLM inference by the real vLLM on the CPU (slow, 4 GB of packages)
	@tools/test real_vllm

lint: ## run the linters
	@tools/test lint

unit: ## run the unit tests
	@tools/test unit

integration: ## run the integration tests, against sandboxes on loopback
	@tools/test integration

image: ## build golden images, boot them and prove them
	@tools/test image

molecule: ## test each role on a real systemd host
	@tools/test molecule

chain: ## test the whole chain, from an empty cloud to gated hosts, and down again
	@tools/test chain

clean: demo-down ## remove what the other targets made, caches and host image included
	@tools/clean
