#!/usr/bin/env bash
# All that needs a GPU, in stages of at most nine minutes, by importance; in the repository's root:
#
#   benchmarks/gpu.sh cifar10.npz [RESULTS] [STAGE ...]
#
# A stage that is cut off goes on from its checkpoint, and runs that are done are skipped, so the
# same command is given until each stage says that it has all of its runs; `correct`, `whole`,
# `speed` and `compile` have none, and run each time. One that fails keeps no other from its turn.
#
# It needs what the package does, with [dim] and [views], and pytest, but not the package. Results,
# apart from a CPU's: RESULTS/presets.json, RESULTS/presets_neighbours.png, RESULTS/whole_run.json,
# RESULTS/speed.json, RESULTS/infomax_negatives.json and RESULTS/compiled/speed.json.
set -euo pipefail
data=${1:?usage: benchmarks/gpu.sh DATA [RESULTS] [STAGE ...]}
results=${2:-benchmarks/results/gpu}
shift $(($# < 2 ? $# : 2))
python=${PYTHON:-python}
minutes=${MINUTES:-7}  # of training; what is trained is still probed
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}  # where the package is not installed

stages=(correct local-jsd whole speed local-infonce su-kl default global negatives local-dv two-view
  baselines additions seeds own-seeds two-view-seeds negatives-seeds compile)
[[ " ${stages[*]} " != *" $results "* ]] ||
  { echo "results: expected a folder before the stages, received the stage $results" >&2; exit 2; }
ours=(default "default, relative, occlusion" fast)  # the paper's best Y is of these two additions
long=(--epochs 1000)  # as long as the paper's; our presets are shorter, for a CPU

stage() {
  case $1 in
    # Without the suite's options, which ask for beartype.
    correct) "$python" -m pytest -o addopts= -q -W default tests/test_dim_capture.py ;;
    local-jsd) presets paper-local-jsd ;;
    whole)
      "$python" benchmarks/whole_run.py --data "$data" --out "$results" --preset su-kl --graph ;;
    speed) "$python" benchmarks/speed.py --data "$data" --out "$results" --steps 200 --epochs 10 ;;
    local-infonce) presets paper-local-infonce ;;
    su-kl) presets "su-kl*" --neighbours ;;
    default) presets "${ours[@]}" "${long[@]}" ;;
    global) presets paper-global paper-local-global ;;
    local-dv) presets paper-local-dv ;;
    negatives) negatives ;;
    negatives-seeds) negatives --seeds 0 1 2 ;;
    baselines) presets autoencoder "*vae" "${long[@]}" ;;
    additions) presets "default*" --epochs 100 ;;
    seeds) presets "paper-*" "su-kl*" --seeds 0 1 2 ;;
    own-seeds) presets "${ours[@]}" autoencoder "*vae" "${long[@]}" --seeds 0 1 2 ;;
    two-view) eagerly two-view ;;
    two-view-seeds) eagerly two-view --seeds 0 1 2 ;;
    compile) "$python" benchmarks/speed.py --data "$data" --out "$results/compiled" --compile ;;
  esac
}

presets() { eagerly "$@" --graph; }

eagerly() {
  local runs=()
  while (($#)) && [[ $1 != --* ]]; do runs+=("$1"); shift; done
  "$python" benchmarks/presets.py --data "$data" --out "$results" --minutes "$minutes" \
    ${runs:+--runs "${runs[@]}"} "$@"
}

negatives() {
  "$python" benchmarks/negatives.py --data "$data" --out "$results" --minutes "$minutes" --graph \
    "$@"
}

(($#)) || set -- "${stages[@]}"
for name; do
  [[ " ${stages[*]} " == *" $name "* ]] ||
    { echo "stage: expected one of ${stages[*]}, received $name" >&2; exit 2; }
done
failed=()
for name; do
  echo "== $name" >&2
  (stage "$name") || failed+=("$name")
done
((!${#failed[@]})) || { echo "failed: ${failed[*]}" >&2; exit 1; }
