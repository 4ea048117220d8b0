# The short names of everyday commands. The build itself is CMake's: see CMakePresets.json for its flavours.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
BUILD := build

.PHONY: all help bootstrap bootstrap-lint dev release demo test dist lint format install clean

all: dev

help:
	@echo "make            build into build/dev"
	@echo "make demo       build, then show two tenants sharing a (virtual) GPU"
	@echo "make test       every test, also under sanitizers; under 10 minutes on 2 cores"
	@echo "make lint       formatting, clang-tidy, cppcheck, pyflakes, layers"
	@echo "make format     reformat the sources"
	@echo "make dist       dist/lithos-VERSION-linux-x86_64.tar.gz, which needs only a C library"
	@echo "make install    [PREFIX=$(PREFIX)] [DESTDIR=]"
	@echo "make clean      remove build/ and dist/"

bootstrap:
	@tools/bootstrap.sh build

bootstrap-lint:
	@tools/bootstrap.sh build lint

dev release: bootstrap
	@tools/build.sh $@ $(JOBS)

demo: bootstrap
	@tools/build.sh dev $(JOBS) programs
	@$(BUILD)/dev/bin/lithos demo

test: bootstrap
	@tools/test.sh $(JOBS)

dist: release
	@tools/dist.sh
	@bash tests/e2e/dist.sh dist/lithos-$$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' $(BUILD)/release/CMakeCache.txt)-linux-x86_64.tar.gz

lint: bootstrap-lint
	@tools/build.sh dev $(JOBS)
	@tools/lint.sh

format: bootstrap-lint
	@tools/sources.sh | xargs clang-format -i

install: release
	@cmake --install $(BUILD)/release --prefix "$(PREFIX)"

clean:
	rm -rf $(BUILD) dist
