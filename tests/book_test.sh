#!/usr/bin/env bash
# What ./book promises without building anything: words it does not know are refused with one sentence and exit code 2,
# it works from every folder, and the hints of every exercise can be shown.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd /
failures=0

# expect EXIT_CODE WORDS...: runs ./book, keeps what it prints in $output.
expect() {
  local expected=$1 code=0
  shift
  output=$("$root/book" "$@" 2>&1 </dev/null) || code=$?
  if [ "$code" -ne "$expected" ]; then
    echo "./book $*: exit code $code, expected $expected; it printed: $output"
    failures=$((failures + 1))
  elif [ "$expected" -eq 2 ] && [ "$(wc -l <<<"$output")" -ne 1 ]; then
    echo "./book $*: expected one sentence, got: $output"
    failures=$((failures + 1))
  fi
}
says() {
  if ! grep -qF -- "$1" <<<"$output"; then
    echo "expected '$1' in: $output"
    failures=$((failures + 1))
  fi
}

expect 0
says "./book run"
expect 0 help
says "./book check"
expect 0 run --help
expect 2 no-such-command
expect 2 run ch99
expect 2 test --fast
expect 2 test ch03 --preset
expect 2 run --preset gpu
expect 2 check 99.1
expect 2 check ch01 ch02
expect 2 hint
expect 2 hint 3
expect 2 hint 1.99
expect 2 data everything
expect 2 bench nothing

LLM_DATA=/nonexistent expect 0 data
says "tinyshakespeare.txt"
says "0 of"

for file in "$root"/ch0*/hints.md; do
  [ -f "$file" ] || continue
  while read -r _ number title; do
    expect 0 hint "$number" --all
    says "$title"
    says "Hint 2"
  done < <(grep '^## ' "$file")
done

[ $failures -eq 0 ] || exit 1
echo "book: as promised"
