#!/usr/bin/env bash
# prepare.sh BUILD_DIR: published programs that the tests of the label clients talk to, from PyPI and npm, and the file of silero-vad.
# Does nothing when it is up to date.
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$1/published
everything=@modelcontextprotocol/server-everything@2026.8.31
silero=silero-vad==6.2.3
wanted=$(cat "$source_dir"/{requirements.txt,prepare.sh,silero_reference.py} | sha256sum)
[[ -f $out/stamp && $(<"$out/stamp") == "$wanted" ]] && exit 0
rm -rf "$out"
mkdir -p "$out/silero"
python3 -m venv "$out/venv"
pip=("$out/venv/bin/pip" --quiet --disable-pip-version-check --retries 5)
"${pip[@]}" install -r "$source_dir/requirements.txt"
# The file alone: the package itself wants PyTorch.
"${pip[@]}" download --no-deps -d "$out/wheel" "$silero"
python3 -m zipfile -e "$out"/wheel/*.whl "$out/wheel/files"
mv "$out/wheel/files/silero_vad/data/silero_vad_16k_op15.onnx" "$out/silero/model.onnx"
rm -r "$out/wheel"
"$out/venv/bin/python" "$source_dir/silero_reference.py" "$out/silero/model.onnx" "$out/silero"
npm install --silent --no-fund --no-audit --prefix "$out/npm" "$everything"
printf '%s' "$wanted" >"$out/stamp"
