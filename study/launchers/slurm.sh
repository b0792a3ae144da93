#!/usr/bin/env bash
# A sweep on a Slurm cluster: a Ray head on the first node, a Ray worker on each other one, and `study run` beside the head.
#
#   sbatch slurm.sh beyond_grid --scheduler asha            # arguments of `study run`, the search space first
#   sbatch --nodes 8 --gpus-per-node 4 --time 2-0 slurm.sh paper_grid
#   scancel --batch --signal TERM JOB                       # stops the sweep cleanly; plain `scancel JOB` is rougher
#
# If the sweep's folder exists (the job was requeued or submitted again), the job continues the sweep with `study resume` and
# ignores the arguments after the search space. Two minutes before the time limit Slurm sends SIGTERM: the sweep stops and keeps
# all that was measured, and the exit code is 130.
#
# Settings, from the environment of sbatch:
#   STUDY_BIN      folder of the `study` and `ray` commands, on all nodes   default: .venv/bin where sbatch was called, or the PATH
#   STUDY_DIR      folder of all sweeps, on a disk that the nodes share     default: study-results where sbatch was called
#   STUDY_STORAGE  where checkpoints go instead (`--storage`)               default: the sweep's folder
#   STUDY_NAME     name of the sweep                                        default: the search space's
#   STUDY_REQUEUE  1: a job that reaches its time limit is queued again     default: 0
#   STUDY_HEAD_IP  the head's address for the other nodes                   default: its first (hostname -I)
#   STUDY_TMP      folder for Ray on a disk of each node, a short name      default: /tmp
#
# Ray's ports must be open to the other nodes, so they cannot be bound to loopback. A token that is made for this job keeps
# strangers out. The dashboard is off. Nothing here calls `ray stop`, which would also stop the Ray of your other jobs.
#
# Tried on 2026-11-22 with Slurm 22.05 and Ray 2.60.0, two nodes on one machine: a sweep that finished, one that reached its
# time limit, was queued again and resumed, and one that scancel stopped. Not tried: several machines, GPUs, STUDY_STORAGE.

#SBATCH --job-name=study
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=3G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=study-%j.log

set -euo pipefail
umask 077

[ $# -gt 0 ] || { echo "slurm.sh: name a search space: sbatch slurm.sh quickstart" >&2; exit 2; }
space=$1
shift
file=${space##*/}
name=${STUDY_NAME:-${file%.*}}
directory=${STUDY_DIR:-$SLURM_SUBMIT_DIR/study-results}
bin=${STUDY_BIN:-$SLURM_SUBMIT_DIR/.venv/bin}
[ -d "$bin" ] && PATH=$bin:$PATH
storage=()
[ -z "${STUDY_STORAGE:-}" ] || storage=(--storage "$STUDY_STORAGE")

export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token} RAY_USAGE_STATS_ENABLED=0
if [ "$RAY_AUTH_MODE" = token ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export RAY_AUTH_TOKEN
fi
unset RAY_ADDRESS

nodes=$SLURM_JOB_NUM_NODES
head=${SLURMD_NODENAME:?this is a batch script: submit it with sbatch}
ip=${STUDY_HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}
port=$((20000 + SLURM_JOB_ID % 10000)) # so that jobs that share a node do not meet
temporary=${STUDY_TMP:-/tmp}/ray-$SLURM_JOB_ID
cpus=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}

signals=0
left=0 # seconds to the time limit when SIGTERM came; below 0: unknown, or the job was cancelled
running=''
children=()

# shellcheck disable=SC2317 # traps call it
on_term() {
  signals=$((signals + 1))
  local end
  end=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %e || true)
  left=$(($(date --date "$end" +%s 2>/dev/null || echo 0) - $(date +%s)))
  echo "slurm.sh: SIGTERM; the sweep stops"
  [ -z "$running" ] || kill -TERM "$running" || true
}

# shellcheck disable=SC2317
on_exit() {
  code=$?
  trap - EXIT
  trap '' TERM
  if ((${#children[@]})); then
    kill "${children[@]}" 2>/dev/null || true
    wait "${children[@]}" || true
    if [ "$code" = 0 ] || [ "$code" = 130 ]; then # Ray's logs of a failure are kept
      srun --overlap --ntasks="$nodes" --nodes="$nodes" rm -rf "$temporary" || true
    fi
  fi
  if [ "$code" = 130 ] && ((left > 0 && left <= 300)) && [ "${STUDY_REQUEUE:-0}" = 1 ]; then
    echo "slurm.sh: the time limit came before the end of the sweep; the job queues itself again"
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}

run() { # COMMAND: returns its exit code; passes SIGTERM on to it and waits for its end
  local before code
  "$@" &
  running=$!
  while :; do
    before=$signals code=0
    wait "$running" || code=$?
    ((before < signals)) || break
  done
  running=''
  return "$code"
}

trap on_term TERM
trap on_exit EXIT

on_nodes() { # COUNT, srun's choice of nodes, command: runs it in the background with all CPUs that the job has there
  srun --overlap --ntasks="$1" --nodes="$1" --cpus-per-task="$cpus" --kill-on-bad-exit=0 "${@:2}" &
  children+=("$!")
}

echo "slurm.sh: Ray's head on $head ($ip:$port), $nodes nodes with $cpus CPUs each"
on_nodes 1 --nodelist="$head" ray start --head --block --log-color=false --node-ip-address="$ip" --port="$port" \
  --ray-client-server-port="$((port + 10000))" --num-cpus="$cpus" --include-dashboard=false --temp-dir="$temporary"
until (: >"/dev/tcp/$ip/$port") 2>/dev/null; do
  kill -0 "${children[0]}" 2>/dev/null || { echo "slurm.sh: Ray's head has not started" >&2; exit 1; }
  ((signals == 0)) || exit 130
  sleep 1
done
((nodes == 1)) || on_nodes "$((nodes - 1))" --exclude="$head" ray start --address="$ip:$port" --block --log-color=false \
  --num-cpus="$cpus" --temp-dir="$temporary"

run python3 -c '
import sys, time
import ray

address, wanted = sys.argv[1], int(sys.argv[2])
ray.init(address=address, logging_level="ERROR", log_to_driver=False)
deadline = time.monotonic() + 300
while (alive := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"slurm.sh: only {alive} of {wanted} nodes have joined Ray within 300 s")
    time.sleep(1)
' "$ip:$port" "$nodes" || { ((signals == 0)) && exit 1 || exit 130; }
((signals == 0)) || exit 130

options=(--dir "$directory" --address "$ip:$port" "${storage[@]}")
if [ -f "$directory/$name/sweep.jsonl" ]; then
  command=(study resume "$name" "${options[@]}")
else
  command=(study run "$space" "$@" --name "$name" "${options[@]}")
fi
echo "slurm.sh: ${command[*]}"
code=0
run "${command[@]}" || code=$?
echo "slurm.sh: study ended with exit code $code"
exit "$code"
