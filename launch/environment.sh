# Sourced by the other scripts: makes .venv with the exact versions of constraints.txt and puts it first on the PATH.
# Needs Python >= 3.11 and git. Uses uv if it is available (a minute), else pip (a few minutes). Does nothing if it is done.
# With VENV=none it creates nothing and uses the active Python (of a cluster or conda), which must have the packages.
# With CPU=1, in a new .venv, it takes PyTorch's builds without CUDA: 2 GB in place of 6.
# Usage: [EXTRA=extra of pyproject.toml, such as test] . launch/environment.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${VENV:-}" = none ]; then return; fi
extra="${EXTRA:-}"           # not $1: a sourced script sees the arguments of the one that sources it

python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$candidate"; break
  fi
done
[ -n "$python" ] || { echo "error: no Python of version 3.11 or newer found -> install one, or name it: PYTHON=/path/to/python3.12 bash $0" >&2; exit 1; }

stamp=".venv/installed-${extra:-run}${CPU:+-cpu}-$(cat requirements.txt constraints.txt pyproject.toml | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
  echo "environment: .venv with $("$python" --version), versions of constraints.txt"
  [ -x .venv/bin/python ] || "$python" -m venv .venv || { echo "error: $python cannot make a virtual environment -> install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
  uv="$(command -v uv || true)"
  if [ -z "$uv" ] && .venv/bin/python -m pip install --quiet uv 2>/dev/null; then uv=.venv/bin/uv; fi
  if [ -n "$uv" ]; then install=("$uv" pip install --quiet --compile-bytecode --python .venv/bin/python); else install=(.venv/bin/python -m pip install --quiet); fi
  if [ -n "$extra" ]; then what=(-e ".[$extra]"); else what=(-r requirements.txt); fi
  if [ -n "${CPU:-}" ]; then
    if [ -n "$uv" ]; then install+=(--torch-backend cpu); else install+=(--extra-index-url https://download.pytorch.org/whl/cpu); fi
  fi
  # one resolution for torch and torchvision: builds from two places do not fit together
  "${install[@]}" -c constraints.txt "${what[@]}"
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"
