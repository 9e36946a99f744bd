# `make study` and `make test` need Python >= 3.11 and a C++ compiler, and set up all else in .venv.
PYTHON ?= python3
BIN := .venv/bin
SANITIZE := build/sanitize
# Tests run side by side, those of a file one after the other, in the order of tests/conftest.py.
PARALLEL := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: study test slow lint bench sanitize nightly clean

study: .venv/installed
	$(BIN)/hmatrix study

test: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL)

# What make test leaves out to stay below six minutes.
slow: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not nightly"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The other libraries get an environment of their own. The tables of docs/measurements/performance.md go to build/bench/*.md.
bench:
	$(PYTHON) -m venv build/bench
	build/bench/bin/pip install -q '.[study,bench]'
	for options in "1000x1280 --instructions" "1000x1280 --cold" "1000x1280 --threads 2" "1000x1280 --batch 8" \
		"1000x1280 --batch 64" "1000x1280 --batch 256" "4096x4096" "4096x4096 --threads 2"; do \
		build/bench/bin/hmatrix bench $$options > "build/bench/$$options.md" || exit 1; \
		cat "build/bench/$$options.md"; done

# AddressSanitizer and UndefinedBehaviorSanitizer over the tests of what the kernel is given. SANITIZED="not nightly" runs
# slow cases, too, as make nightly does.
SANITIZED := not slow and not nightly
sanitize:
	$(PYTHON) -m venv $(SANITIZE)
	$(SANITIZE)/bin/pip install -q pytest pytest-xdist hypothesis . -C cmake.define.HMATRIX_SANITIZE=ON -C build-dir=$(SANITIZE)/cmake
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	$(SANITIZE)/bin/python -m pytest -q $(PARALLEL) -m "$(SANITIZED)" tests/packed/test_fuzz.py tests/heads/test_head.py tests/heads/test_files.py tests/heads/test_clusters.py tests/heads/test_coarse_matrix.py tests/heads/test_coarse_bounds.py tests/heads/test_coarse_files.py tests/heads/test_ties.py tests/packed/test_rows.py tests/codes/test_trellis.py tests/allocation/rounding/test_steps.py tests/packed/test_kernels.py tests/packed/test_plan.py tests/packed/test_threads.py tests/packed/test_packed_blocks.py tests/packed/test_schedule.py tests/packed/test_schedule_refusals.py tests/test_io.py tests/test_io_damage.py

# CASES: groups (oldest newest processors pythons) or patterns of names; all, sanitized slow cases and the studies of real
# networks, if there is none. The table of docs/measurements/versions.md goes to build/nightly/table.md.
nightly: .venv/installed
	PYTHONPATH=tests/support $(PYTHON) -m nightly $(CASES) --pytest "-q $(PARALLEL)"
	if [ -z "$(CASES)" ]; then $(MAKE) sanitize SANITIZED="not nightly" || exit 1; fi
	if [ -z "$(CASES)" ] && [ -n "$$HMATRIX_DATA" ]; then \
		$(BIN)/hmatrix study studies/mobilenetv2-sample.toml && \
		$(BIN)/hmatrix study "$$HMATRIX_DATA/models/resnet_fc_1000x512.safetensors"; \
	fi

.venv/installed: pyproject.toml CMakeLists.txt $(wildcard cpp/*/*.?pp)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "hmatrix needs Python >= 3.11: name one, as in make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing into .venv, a few minutes the first time (PyTorch is large)"
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build
