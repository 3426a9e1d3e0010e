# Two commands: `make demo` shows the program, `make test` proves it. Both set up everything they need once.
SOURCES := pyproject.toml setup.py constraints.txt packaging/setup.sh $(wildcard kernels/cpu/*.cpp kernels/cpu/*.h kernels/cpu/build.py)
BIN := .venv/bin
SCREEN := $(if $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname)),yes)

# Tests start hundreds of processes, which would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test proofs lint bench architectures cluster consumers interop faults fuzz streams hosts quality planning mac-proof pictures package clean

demo: .venv/.app
	@$(BIN)/nvfp4-studio demo build/demo $(SCREEN:%=--window)

test: .venv/.dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not proof"

proofs: .venv/.dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m proof

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/.dev
	@$(BIN)/python tests/benchmarks/kernels_cpu.py
	@$(BIN)/python tests/benchmarks/end_to_end.py
	@$(BIN)/python -m tests.benchmarks.scale
	@$(BIN)/python -m tests.benchmarks.terabytes
	@$(BIN)/python -m tests.benchmarks.window

architectures: .venv/.dev
	@$(BIN)/python -m tests.architectures --publish

.venv/.app: $(SOURCES)
	@packaging/setup.sh app

.venv/.dev: $(SOURCES)
	@packaging/setup.sh dev
	@touch .venv/.app

consumers: .venv/.dev
	@$(BIN)/python -m tests.consumers --publish

cluster: .venv/.dev
	@$(BIN)/python -m tests.faults.cluster_kills
	@$(BIN)/python -m tests.benchmarks.cluster

interop: .venv/.dev
	@$(BIN)/python -m tests.interop

faults: .venv/.dev
	@$(BIN)/python -m tests.faults.every_call
	@$(BIN)/python -m tests.faults.random_kills
	@$(BIN)/python -m tests.faults.gguf_kills
	@$(BIN)/python -m tests.faults.soak

streams: .venv/.dev
	@$(BIN)/python -m tests.faults.streams

hosts: .venv/.dev
	@$(BIN)/python -m tests.faults.hosts

fuzz: .venv/.dev
	@$(BIN)/python -m tests.faults.mutations --count 1000000

quality: .venv/.dev
	@$(BIN)/python -m tests.quality resources/demo/demo-llama

planning: .venv/.dev
	@$(BIN)/python -m tests.planning resources/demo/demo-llama

mac-proof: .venv/.dev
	@$(BIN)/python -m tests.metal.first_mac build/mac-proof.txt

pictures: .venv/.dev
	@$(BIN)/python -m tests.gui.real_window.pictures packaging/pictures

package: .venv/.dev
	@packaging/build.sh

clean:
	rm -rf .venv build *.egg-info kernels/cpu/*.so kernels/cpu/*.dylib
