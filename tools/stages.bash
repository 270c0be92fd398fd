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

# stage_beside NAME COMMAND...: the same in the background. Its output is in its log, and comes to the terminal at stage_join.
stage_beside() {
  __beside_name="$1"
  shift
  printf '\n--- %s runs beside what follows; its output is in %s\n' "$__beside_name" "$stage_logs/$__beside_name.log"
  mkdir -p "$stage_logs"
  (
    started="$SECONDS" status=0
    "$@" || status="$?"
    printf '%d\n' "$((SECONDS - started))" >"$stage_logs/$__beside_name.seconds"
    exit "$status"
  ) >"$stage_logs/$__beside_name.log" 2>&1 </dev/null &
  __beside_process="$!"
  trap 'kill "$__beside_process" 2>/dev/null || true' EXIT
}

# Wait for it, and show what it said.
stage_join() {
  local result=passed
  printf '\n--- %s\n' "$__beside_name"
  wait "$__beside_process" || result=FAILED
  trap - EXIT
  cat "$stage_logs/$__beside_name.log"
  __stage_names+=("$__beside_name")
  __stage_results+=("$result")
  # Absent where it was killed.
  __stage_seconds+=("$(cat "$stage_logs/$__beside_name.seconds" 2>/dev/null || echo 0)")
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
