"""The cluster's scripts, run by bash; SLURM's programs are stand-ins that write down what they were given."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
RECORD = 'printf "%s\\n" "$(basename "$0") $*" >> "$CALLS"\n'
SRUN = RECORD + '''while [[ "$1" == --* ]]; do shift; done
for ((node = 0; node < SLURM_NNODES; node++)); do "$@" & pids+=($!); done
code=0; for pid in "${pids[@]}"; do wait "$pid" || code=$?; done; exit $code
'''
SCONTROL = RECORD + 'if [ "$1" = show ]; then printf "localhost\\nnode1\\n"; fi\n'
SAVES = RECORD + '''while [ "$1" != --exp_path ]; do shift; done
mkdir -p "$2"; echo "{\\"state\\": \\"$STATE\\", \\"step\\": $RANDOM}" > "$2/status.json"; exit ${CODE:-1}
'''
STUB = '''import os, pathlib, sys
rank, flags = os.environ["RANK"], sys.argv[1:]
pathlib.Path(f"rank{rank}").write_text(" ".join([os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"], *flags]))
'''


@pytest.fixture
def cluster(tmp_path):
    """A copy of launch/ with a train.py that only says what it was started as, and SLURM's programs on the PATH."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "train.py").write_text(STUB)
    (tmp_path / "bin").mkdir()

    def run(script: str, *args: str, torchrun: str | None = None, **env: str) -> tuple[int, str, list[str]]:
        for name, body in {"srun": SRUN, "scontrol": SCONTROL, "torchrun": torchrun}.items():
            (tmp_path / "bin" / name).unlink(missing_ok=True)
            if body:
                (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}")
                (tmp_path / "bin" / name).chmod(0o755)
        (tmp_path / "calls").unlink(missing_ok=True)
        path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "4711", "SLURM_NNODES": "1",
                 "SLURM_JOB_NODELIST": "localhost", "SLURM_GPUS_ON_NODE": "4"}
        spooled = shutil.copy(tmp_path / "launch" / script, tmp_path / "slurm_script")        # as SLURM does
        script_path = spooled if script.startswith("slurm") else str(tmp_path / "launch" / script)
        done = subprocess.run(["bash", script_path, *args], capture_output=True, text=True, cwd="/", timeout=60, env={
            **os.environ, "PATH": path, "VENV": "none", "CALLS": str(tmp_path / "calls"), **slurm, **env})
        calls = (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []
        return done.returncode, done.stdout + done.stderr, calls

    return run


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh")))
def test_bash_can_read_every_script(script):
    subprocess.run(["bash", "-n", str(LAUNCH / script)], check=True)


def test_a_node_starts_its_gpus_and_meets_the_others_at_the_first(cluster):
    code, output, calls = cluster("slurm.sh", "--lr", "1e-4", torchrun=SAVES, STATE="finished", CODE="0")
    assert code == 0, output
    show, srun, torchrun = calls
    assert show == "scontrol show hostnames localhost"
    assert srun == ("srun --nodes=1 --ntasks-per-node=1 --kill-on-bad-exit=1 bash launch/hosts.sh "
                    "--lr 1e-4 --exp_path runs/slurm-4711")
    assert torchrun == ("torchrun --nnodes 1 --nproc_per_node 4 --rdzv_backend c10d --rdzv_conf store_type=file "
                        "--rdzv_id 4711 train.py --lr 1e-4 --exp_path runs/slurm-4711")


def test_a_run_that_was_stopped_goes_back_into_the_queue_and_resumes(cluster):
    code, output, calls = cluster("slurm.sh", "--exp_path", "runs/mine", torchrun=SAVES, STATE="preempted")
    assert code == 75 and calls[-1] == "scontrol requeue 4711" and "has saved -> job 4711 goes back" in output
    code, _, calls = cluster("slurm.sh", "--exp_path", "runs/mine", torchrun=SAVES, STATE="finished", CODE="0")
    assert code == 0 and calls[-1].endswith("train.py --exp_path runs/mine --resume")
    assert not any("requeue" in call for call in calls)


def test_a_run_that_failed_is_not_queued_again_whatever_its_last_status_says(cluster):
    code, _, calls = cluster("slurm.sh", "--exp_path=runs/a", torchrun=RECORD + "exit 3\n")
    assert code == 3 and not any("requeue" in call for call in calls)
    cluster("slurm.sh", "--exp_path", "runs/b", torchrun=SAVES, STATE="preempted")
    code, _, calls = cluster("slurm.sh", "--exp_path", "runs/b", torchrun=RECORD + "exit 4\n")     # before its status
    assert code == 4 and not any("requeue" in call for call in calls)


@pytest.mark.parametrize(("script", "missing", "words"), [
    ("slurm.sh", "SLURM_SUBMIT_DIR", "run me with sbatch"),
    *[("slurm_array.sh", name, "run me with sbatch --array") for name in ("SLURM_SUBMIT_DIR", "SLURM_ARRAY_TASK_ID")],
    *[("slurm_sweep.sh", name, "run me with sbatch --array")
      for name in ("SLURM_SUBMIT_DIR", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")]])
def test_a_script_of_slurm_runs_once_sbatch_starts_it(cluster, tmp_path, script, missing, words):
    """As sbatch starts it: from a copy that lies elsewhere, with the variables of the job."""
    (tmp_path / "file").write_text("--seed 0\n")
    (tmp_path / "gazepose").mkdir()
    (tmp_path / "gazepose" / "__init__.py").touch()
    (tmp_path / "gazepose" / "__main__.py").write_text("print('started')\n")
    job = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1", "torchrun": RECORD}
    code, output, calls = cluster(script, "file", **{**job, missing: ""})
    assert code != 0 and f"{missing}: {words}" in output and not calls
    code, output, calls = cluster(script, "file", **job)
    assert code == 0 and (calls or "started" in output), output


def test_an_index_of_an_array_trains_its_line(cluster, tmp_path):
    (tmp_path / "lines").write_text("--seed 0\n--seed 1 --exp_path 'runs/a b'\n--log $(touch gone) ';' *\n")
    array = {"SLURM_ARRAY_JOB_ID": "40", "torchrun": RECORD}
    def started(index: str) -> list[str]:
        code, output, calls = cluster("slurm_array.sh", "lines", "--epochs", "2", SLURM_ARRAY_TASK_ID=index, **array)
        assert code == 0, output
        return shlex.split(calls[-1].split("train.py ")[1])
    assert started("1") == ["--seed", "0", "--exp_path", "runs/array-40-1", "--epochs", "2"]
    assert " ".join(started("2")) == "--seed 1 --exp_path runs/a b --epochs 2"
    assert started("3")[:4] == ["--log", "$(touch", "gone)", ";"] and not (tmp_path / "gone").exists()
    code, output, _ = cluster("slurm_array.sh", "lines", SLURM_ARRAY_TASK_ID="4", **array)
    assert code == 2 and "lines: no line 4 -> --array=1-3" in output


def test_a_part_of_a_sweep_is_queued_again_when_it_was_stopped(cluster, tmp_path):
    (tmp_path / "gazepose").mkdir()
    (tmp_path / "gazepose" / "__init__.py").touch()                     # before any installed package of that name
    (tmp_path / "gazepose" / "__main__.py").write_text(
        "import os, signal, sys\nprint('started', *sys.argv[1:], flush=True)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "if os.environ.get('STOP'):\n    os.kill(os.getppid(), signal.SIGTERM)\n    signal.pause()\n")
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8"}
    code, output, calls = cluster("slurm_sweep.sh", "modules.toml", "--seeds", "0", **array)
    assert (code, calls) == (0, []) and "started sweep modules.toml --part 2/8 --seeds 0" in output
    code, output, calls = cluster("slurm_sweep.sh", "modules.toml", STOP="1", **array)
    assert code == 75 and calls == ["scontrol requeue 4711"] and "part 2/8 was stopped and has saved" in output


@pytest.mark.drill
def test_two_nodes_really_find_each_other(cluster, tmp_path):
    code, output, _ = cluster("slurm.sh", "--lr", "1", SLURM_NNODES="2", PROCESSES="1", OMP_NUM_THREADS="1")
    assert code == 0, output
    assert {(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)} == {"2 0 --lr 1 --exp_path runs/slurm-4711"}


def test_machines_need_a_place_to_meet(cluster):
    code, output, _ = cluster("hosts.sh", MACHINES="2", torchrun=RECORD)
    assert code == 2 and "MACHINES=2 without HEAD -> name the machine where they meet: HEAD=host0:29500" in output
    _, _, calls = cluster("hosts.sh", "--lr", "1", MACHINES="2", HEAD="10.0.0.1", PROCESSES="3", torchrun=RECORD)
    assert calls == ["torchrun --nnodes 2 --nproc_per_node 3 --rdzv_backend c10d --rdzv_endpoint 10.0.0.1:29500 "
                     "--rdzv_id gazepose train.py --lr 1"]


@pytest.mark.parametrize("head, endpoint", [
    ("::1", "[::1]:29500"), ("[::1]", "[::1]:29500"), ("[fe80::1]:400", "[fe80::1]:400"), ("host0:400", "host0:400")])
def test_the_place_to_meet_may_be_an_ipv6_address(cluster, head, endpoint):
    _, _, calls = cluster("hosts.sh", MACHINES="2", HEAD=head, PROCESSES="1", torchrun=RECORD)
    assert f"--rdzv_endpoint {endpoint} " in calls[0]
