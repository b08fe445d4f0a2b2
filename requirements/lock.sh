#!/bin/sh
# Lock every environment: hashes, all platforms, no registry's address. Needs uv.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1
    shift
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        pyproject.toml requirements/build.in "$@" --output-file "requirements/$out" >/dev/null
}
lock node.txt --extra node
lock node-test.txt requirements/node-test.in --extra node
lock run.txt --extra service --extra node --extra train
lock dev.txt --extra service --extra node --extra plot --extra train --extra dev
