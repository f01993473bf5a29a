# make demo    set up, then run everything once: benchmark, training, evaluation, publishing, loading elsewhere
# make test    set up, then run the tests
# make lint    check style

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: setup demo test lint clean

setup: $(INSTALLED) ffmpeg

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing packages (several GB with CUDA builds of torch; a few minutes) ..."
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[c2pa,dev,onnx,pdf,ray,ui]"
	@touch $@

# torchcodec decodes with FFmpeg's shared libraries, which pip does not bring.
.PHONY: ffmpeg
ffmpeg: $(INSTALLED)
	@$(BIN)/python -c "import torchcodec.decoders" 2>/dev/null && command -v ffmpeg >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing FFmpeg ..."; apt-get -qq update && apt-get -qq install -y ffmpeg >/dev/null; \
	  else \
	    echo "FFmpeg (versions 4 to 8) is missing. Install it and run make again:"; \
	    echo "  Debian, Ubuntu: sudo apt-get install ffmpeg   macOS: brew install ffmpeg   conda: conda install ffmpeg"; \
	    exit 1; \
	  fi; }

demo: setup
	$(BIN)/python -m modeling_avlmm demo --output-dir runs/demo

# Two processes, with one thread each; a file's tests stay together.
test: setup
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf runs $(VENV)
