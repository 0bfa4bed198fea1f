#!/bin/sh
# A Python of its own for mosaicml-streaming, which does not install beside slant's torch:
#
#     sh tests/interop/setup.sh [FOLDER]            (default: .venv-interop)
#
# It pins transformers<5 and numpy<2.2 but works with newer ones, so it comes without its
# dependencies; below are those that reading and writing MDS need. Run it from the repository.
set -eu

folder=${1:-.venv-interop}
stamp=$folder/.installed
test "$stamp" -nt "$0" && exit 0

test -x "$folder/bin/python" || "${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt "$@"; }

pip --upgrade pip
pip torch  # first, by itself: with it in place no other package asks for another build
pip transformers numpy boto3 matplotlib zstd zstandard Brotli python-snappy cramjam catalogue \
    tqdm requests xxhash
pip mosaicml-streaming==0.13.0 --no-deps
touch "$stamp"
