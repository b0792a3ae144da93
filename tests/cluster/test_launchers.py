"""The launchers: schemas, scripts with stand-ins, `ray job submit`.

The schemas are those of Kubernetes, KubeRay and Ray; stand-ins replace the commands of a cluster.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from datetime import datetime, timedelta
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import typer
import yaml
from ports import free_ports
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.runtime_env import RuntimeEnv
from sweep_fixtures import REPOSITORY, clean_environment, lines_of, records_of

from study.cli import app

FOLDER = REPOSITORY / "study" / "launchers"
LAUNCHERS = sorted(path.name for path in FOLDER.iterdir())
COMMANDS = typer.main.get_command(app).commands
KUBERNETES = "1.31"


def text_of(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def head_of(name):
    """The comment at the beginning of a launcher."""
    return re.match(r"(?:#.*\n)+", text_of(name))[0]


def test_there_is_a_launcher_for_each_kind_of_cluster():
    assert LAUNCHERS == ["job.yaml", "kuberay_rayjob.yaml", "ray_cluster.yaml", "slurm.sh"]


def test_an_installed_package_has_the_launchers_too():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    globs = settings["tool"]["setuptools"]["package-data"]["study"]
    packaged = {path.name for glob in globs for path in (REPOSITORY / "study").glob(glob)}
    assert packaged >= set(LAUNCHERS)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_says_when_it_was_tried_and_what_was_not(name):
    assert re.search(r"(Tried|Checked) on 20\d\d-\d\d-\d\d", head_of(name))
    assert "Not tried" in head_of(name)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_holds_no_secret(name):
    assert re.findall(r"[0-9a-fA-F]{24,}|AKIA\w+|PRIVATE KEY", text_of(name)) == []


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_study_commands_in_a_launcher_exist_with_their_options(name):
    joined = re.sub(r"\\\n[# ]*", "", text_of(name))
    found = re.findall(r"(?:^|[ `'(/])study (run|resume)\b([^\n#`;']*)", joined)
    assert {command for command, _ in found} == {"run", "resume"}
    for command, words in found:
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= known


# Ray's cluster launcher and runtime environment


def cluster():
    return yaml.safe_load(text_of("ray_cluster.yaml"))


def test_rays_own_schema_accepts_the_cluster():
    prepared = prepare_config(cluster())
    validate_config(prepared)
    (nodes,) = prepared["available_node_types"].values()
    assert nodes["min_workers"] == nodes["max_workers"] == 2


def test_rays_own_schema_refuses_a_misspelt_key():
    with pytest.raises(jsonschema.ValidationError, match="setup_command"):
        validate_config(prepare_config(cluster() | {"setup_command": []}))


def test_every_node_of_the_cluster_asks_for_the_token_and_has_it():
    made = cluster()
    for commands in (made["head_start_ray_commands"], made["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert starts
        assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "~/.ray/auth_token" in made["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in made["head_start_ray_commands"][-1]


def runtime_env():
    return yaml.safe_load(text_of("job.yaml"))


def test_ray_accepts_the_runtime_environment(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    made = RuntimeEnv(**runtime_env())
    assert made["pip"]["packages"] == ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"]


# KubeRay

WORDS = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
TABLE = {"type": "object", "additionalProperties": {"type": "string"}}


def closed(required, **properties):
    """A schema of objects with these fields only.

    Some of the fields are required.
    """
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


HEAD_GROUP = closed(["rayStartParams", "template"], rayStartParams=TABLE, template={"type": "object"})
WORKER_GROUP = closed(
    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
    groupName=WORDS,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=TABLE,
    template={"type": "object"},
)
RAY_JOB = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"type": "object"},
    spec=closed(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=WORDS,
        runtimeEnvYAML=WORDS,
        backoffLimit=COUNT,
        shutdownAfterJobFinishes={"type": "boolean"},
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=closed(
            ["headGroupSpec"],
            rayVersion=WORDS,
            authOptions=closed(["mode"], mode={"enum": ["disabled", "token"]}),
            headGroupSpec=HEAD_GROUP,
            workerGroupSpecs={"type": "array", "items": WORKER_GROUP},
        ),
    ),
)
"""What the manifest may say of a RayJob, after the types of KubeRay's API; the pods' templates are Kubernetes' own."""


def documents():
    return {document["kind"]: document for document in yaml.safe_load_all(text_of("kuberay_rayjob.yaml"))}


def pods():
    """The RayJob's pods by group, as Kubernetes gets them."""
    spec = documents()["RayJob"]["spec"]["rayClusterSpec"]
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {
        name: {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": group["template"]["spec"]}
        for name, group in groups.items()
    }


def test_kubernetes_own_schemas_accept_claim_script_and_pods():
    found = documents()
    for document in (found["PersistentVolumeClaim"], found["ConfigMap"], *pods().values()):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_kubernetes_own_schemas_refuse_a_misspelt_field():
    pod = pods()["head"]
    pod["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_ray_job_has_the_fields_of_kuberay():
    jsonschema.validate(documents()["RayJob"], RAY_JOB)


def test_all_pods_mount_the_shared_claim_and_only_volumes_that_there_are():
    found = documents()
    assert "ReadWriteMany" in found["PersistentVolumeClaim"]["spec"]["accessModes"]
    for pod in pods().values():
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert (
            volumes["study"]["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
        )
        assert {"name": "study", "mountPath": "/study"} in container["volumeMounts"]
    head = {volume["name"]: volume for volume in pods()["head"]["spec"]["volumes"]}
    assert head["run"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]


def test_the_ray_job_names_the_ray_that_was_tested():
    (pinned,) = re.findall(
        r"^ray(?:\[.*\])?==(.*)$", (REPOSITORY / ".ci" / "constraints.txt").read_text(), re.MULTILINE
    )
    assert documents()["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert f"rayproject/ray:{pinned}-py311" in head_of("kuberay_rayjob.yaml")
    assert f"Ray {pinned}" in head_of("ray_cluster.yaml")


# Scripts, with stand-ins for the commands of a cluster


def stand_in(folder, name, body, shell="/bin/sh"):
    path = folder / name
    path.write_text(f"#!{shell}\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def said(path):
    """The arguments of a stand-in, one line per call."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


@pytest.mark.parametrize("there", [False, True])
def test_a_retried_ray_job_goes_on_with_its_sweep(tmp_path, there):
    stand_in(tmp_path, "study", f'echo "$@" >> {tmp_path / "said"}')
    script = documents()["ConfigMap"]["data"]["run.sh"].replace("/study/results", str(tmp_path / "results"))
    if there:
        (tmp_path / "results" / "beyond_grid").mkdir(parents=True)
        (tmp_path / "results" / "beyond_grid" / "sweep.jsonl").touch()
    environment = clean_environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
    subprocess.run(["sh", "-c", script], env=environment, check=True)
    (call,) = said(tmp_path / "said")
    assert call.startswith("resume beyond_grid " if there else "run beyond_grid ")
    assert f"--address auto --dir {tmp_path / 'results'} " in call


def test_bash_can_read_the_slurm_script():
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not on this machine")
def test_shellcheck_has_nothing_to_say_of_the_slurm_script():
    done = subprocess.run(["shellcheck", FOLDER / "slurm.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


LISTENING = """
import signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(sys.argv[1:], flush=True)
ports = [word.partition("=")[2] for word in sys.argv if word.startswith("--port=")]
servers = [socket.create_server(("127.0.0.1", int(port))) for port in ports]
signal.pause()
"""
"""Ray's stand-in: a head listens at its port, all stay until SIGTERM."""

SLEEPING = """
echo "$@" >> "$SAID/study"
for _ in $(seq 200); do [ "$(wc -l < "$SAID/srun")" -lt 2 ] || break; sleep 0.05; done  # both nodes have been called
[ -n "${STAYS:-}" ] || exit 0
trap 'kill "$!"; exit 130' TERM
sleep 60 & wait
"""
"""The study's stand-in: it is done at once, or stays until SIGTERM."""


@pytest.fixture
def slurm(tmp_path):
    """Starts the Slurm script as a job of two nodes.

    The nodes' commands are stand-ins. Yields the process and the folder of their output.
    """
    commands, called = tmp_path / "bin", tmp_path / "said"
    commands.mkdir()
    called.mkdir()
    stand_in(commands, "srun", 'while [ "${1#--}" != "$1" ]; do shift; done; echo "$@" >> "$SAID/srun"; exec "$@"')
    stand_in(commands, "ray", LISTENING, sys.executable)
    stand_in(commands, "study", SLEEPING)
    stand_in(commands, "python3", "exit 0")
    stand_in(commands, "squeue", 'echo "$ENDS"')
    stand_in(commands, "scontrol", 'echo "$@" >> "$SAID/scontrol"')
    number = next(n for n in range(os.getpid() % 10_000, 20_000) if is_free(20_000 + n % 10_000))
    environment = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SAID": str(called),
        "STUDY_BIN": str(commands),
        "STUDY_HEAD_IP": "127.0.0.1",
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURMD_NODENAME": "one",
        "SLURM_CPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "ENDS": "N/A",
    }
    started = []

    def start(*words, **changes):
        started.append(
            subprocess.Popen(
                ["bash", FOLDER / "slurm.sh", *words],
                env=environment | changes,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1], called

    yield start
    for process in started:
        process.kill()
        process.wait()


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(what, seconds=30):
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "this did not come to be in time"
        time.sleep(0.1)


def test_a_slurm_job_starts_ray_on_all_nodes_and_a_sweep_beside_it(slurm, tmp_path):
    process, called = slurm("beyond_grid", "--trials", "3", STUDY_STORAGE="/shared/checkpoints")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    lines = said(called / "srun")  # of processes in the background, which may be noted in any order
    head, worker, *rest = sorted(lines, key=lambda line: (line.startswith("rm"), "--head" not in line))
    port = re.search(r"--port=(\d+)", head)[1]
    assert head.startswith("ray start --head --block --log-color=false --node-ip-address=127.0.0.1 ")
    assert worker.startswith(f"ray start --address=127.0.0.1:{port} --block ")
    assert [line.split()[:2] for line in rest] == [["rm", "-rf"]]  # what Ray left on the nodes
    assert said(called / "study") == [
        f"run beyond_grid --trials 3 --name beyond_grid --dir {tmp_path / 'study-results'} "
        f"--address 127.0.0.1:{port} --storage /shared/checkpoints"
    ]


def test_a_slurm_job_that_runs_again_goes_on_with_its_sweep(slurm, tmp_path):
    (tmp_path / "shared" / "mine").mkdir(parents=True)
    (tmp_path / "shared" / "mine" / "sweep.jsonl").touch()
    process, called = slurm("beyond_grid", "--trials", "3", STUDY_DIR=str(tmp_path / "shared"), STUDY_NAME="mine")
    assert process.wait(timeout=30) == 0
    (call,) = said(called / "study")
    assert call.startswith(f"resume mine --dir {tmp_path / 'shared'} --address 127.0.0.1:")


@pytest.mark.parametrize(
    ("left", "wanted", "queued"), [(90, "1", True), (90, "0", False), (7200, "1", False), (None, "1", False)]
)
def test_sigterm_stops_the_sweep_and_only_the_time_limit_queues_the_job_again(slurm, left, wanted, queued):
    ends = (datetime.now() + timedelta(seconds=left)).isoformat(timespec="seconds") if left else "N/A"
    process, called = slurm("beyond_grid", STAYS="1", STUDY_REQUEUE=wanted, ENDS=ends)
    wait_for(lambda: said(called / "study"))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130, out
    assert [line.split()[0] for line in said(called / "scontrol")] == ["requeue"] * queued


def test_a_slurm_job_without_a_search_space_is_refused(slurm):
    process, _ = slurm()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert out.startswith("slurm.sh: name a search space")


# ray job submit


@pytest.fixture
def job(tmp_path):
    """A Ray cluster of one node with a token.

    Returns it with its `ray job`.
    """
    token = tmp_path / "token"
    token.write_text(os.urandom(32).hex(), encoding="utf-8")
    gcs, client, dashboard, agent = free_ports(4)
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    environment = clean_environment(
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_API_SERVER_ADDRESS=f"http://127.0.0.1:{dashboard}",
    )
    environment.pop("PYTHONPATH", None)  # the code must come from the working directory
    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets must have short names

    def call(*words):
        command = [*ray, "job", *words]
        return subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
        )

    command = [*ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={place}"]
    with (tmp_path / "ray.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: call("list").returncode == 0, 60)
        yield call
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            shutil.rmtree(place, ignore_errors=True)


SUBMITTED = "study run quickstart --address auto --scenario class_pairs --method sgd --trials 24 --workers 1 --seeds 2"
FEW_IMAGES = "--set tasks/images_per_task=320 --set tasks/count=5"


@pytest.mark.slow
@pytest.mark.sweep
def test_a_submitted_job_can_be_stopped_and_another_one_goes_on(job, tmp_path):
    environment = runtime_env()
    del environment["pip"]  # its packages are installed here already
    results = tmp_path / "results"

    def submit(name, words, *options):
        given = ("--submission-id", name, "--runtime-env-json", json.dumps(environment), *options)
        command = ("submit", *given, "--", "python", "-m", *words.split(), "--dir", results)
        done = job(*command)
        until = time.monotonic() + 60
        while "No available agent" in done.stderr and time.monotonic() < until:  # "please try again later", Ray says
            time.sleep(1)
            done = job(*command)
        assert done.returncode == 0, done.stdout + done.stderr

    def ended():
        return [lines[-1] for lines in records_of(results / "quickstart").values() if lines[-1]["kind"] == "end"]

    submit("one", f"{SUBMITTED} {FEW_IMAGES}", "--no-wait")
    wait_for(ended, 120)
    stopped = job("stop", "one")
    assert stopped.returncode == 0, stopped.stderr
    endings = [line for line in lines_of(results / "quickstart" / "sweep.jsonl") if line["kind"] == "end"]
    assert [line["interrupted"] for line in endings] == [True]
    assert len(ended()) < 24
    submit("two", "study resume quickstart")
    assert [end["outcome"] for end in ended()] == ["finished"] * 24
