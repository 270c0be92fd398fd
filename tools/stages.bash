# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Run named stages one after the other, whatever becomes of each, and end with a table: sourced by tools/test and
# tools/lint, which say where the logs go and set pipefail.

: "${stage_logs:?}"
__stage_names=()
__stage_results=()
__stage_seconds=()

# stage NAME COMMAND...: its output goes to the terminal and to $stage_logs/NAME.log.
stage() {
  local name="$1" started="$SECONDS" result=passed
  shift
  printf '\n--- %s\n' "$name"
  mkdir -p "$stage_logs"
  if ! "$@" 2>&1 | tee "$stage_logs/$name.log"; then
    result=FAILED
  fi
  __stage_names+=("$name")
  __stage_results+=("$result")
  __stage_seconds+=("$((SECONDS - started))")
}

# The table, and success only if every stage passed.
stages_end() {
  local index failed=0
  printf '\n'
  for index in "${!__stage_names[@]}"; do
    printf '%-24s %-7s %4d s\n' "${__stage_names[$index]}" "${__stage_results[$index]}" "${__stage_seconds[$index]}"
    if [ "${__stage_results[$index]}" != passed ]; then failed=1; fi
  done
  return "$failed"
}
