# Sourced: `venv NAME PACKAGE…` makes a Python with these packages in target/tools/NAME, once, and sets `tools` to that folder.
venv() {
  tools="$PWD/target/tools/$1"
  shift
  [ ! -f "$tools/installed" ] || return 0
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check "$@"
  touch "$tools/installed"
}
