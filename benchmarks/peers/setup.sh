#!/bin/sh
# A Python of its own for TRL, the peer of bench_train.py:
#
#     sh benchmarks/peers/setup.sh [FOLDER]            (default: .venv-trl)
#
# torch comes first, in the version that slant is measured with, so that no other package asks for
# another build; the rest is the newest that resolves. Run it from the repository.
set -eu

folder=${1:-.venv-trl}
stamp=$folder/.installed
test "$stamp" -nt "$0" && exit 0

test -x "$folder/bin/python" || "${PYTHON:-python3}" -m venv "$folder"
pip() { "$folder/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

pip --upgrade pip
pip torch==2.13.0
pip trl peft transformers datasets
touch "$stamp"
