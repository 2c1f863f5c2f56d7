# Print a python that is new enough: the one named in $1, else the first suitable one on the path.
# requirements.lock is made for 3.11 to 3.13, so a newer one is taken only if none of these is found.
suits() {
    "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $2))" 2>/dev/null
}

if [ -z "$1" ]; then
    set -- python3 python3.13 python3.12 python3.11 python
fi
for newest in 13 99; do
    for python in "$@"; do
        if suits "$python" $newest; then
            echo "$python"
            exit 0
        fi
    done
done

found=$("$1" --version 2>/dev/null || echo "none")
echo "The workbench needs Python 3.11 or newer; $1 is: $found." >&2
echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
exit 1
