"""Two network namespaces as two machines: a training over both, one that dies, and a link that is cut.

Each has an address, a host name and an `accelerate launch` of its own; they share the disk and the two cores. Processes
wait 15 seconds for each other instead of minutes, so that the drill is short; everything else is as a user has it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from making import prepare

ROOT = Path(__file__).resolve().parents[2]
SILENT, ENDS = 15, 60             # seconds: without a sign of life; in which every launcher has ended after a fault
SMALL = ("--crop_size 32 --num_encoder_layers 1 --num_decoder_layers 1 --dmodel 64 --dim_feedforward 64 "
         "--output_stride 32 --batch_size 4 --val_stride 13").split()
STARTER = f"""
import runpy, sys
from gazepose import heartbeat
heartbeat.SILENT = {SILENT}
sys.argv[0] = {str(ROOT / "train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = pytest.mark.drill


def ip(*args: str, check: bool = True) -> str:
    return subprocess.run(["ip", *args], check=check, capture_output=True, text=True).stdout


class Machines:
    """Two namespaces joined by a cable; `net` is the interface in each."""

    def __init__(self, folder: Path):
        self.folder, self.names = folder, [f"gp{os.getpid()}m{n}" for n in range(2)]
        (folder / "starter.py").write_text(STARTER)
        ip("link", "add", f"{self.names[0]}v", "type", "veth", "peer", "name", f"{self.names[1]}v")
        for n, name in enumerate(self.names):
            ip("netns", "add", name)
            hosts = Path("/etc/netns") / name / "hosts"                # ip netns exec puts it over /etc/hosts
            hosts.parent.mkdir(parents=True)
            hosts.write_text("127.0.0.1 localhost\n10.77.0.1 machine0\n10.77.0.2 machine1\n")
            ip("link", "set", f"{name}v", "netns", name, "name", "net")
            ip("-n", name, "addr", "add", f"10.77.0.{n + 1}/24", "dev", "net")
            self.link(n, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def link(self, n: int, state: str) -> None:
        ip("-n", self.names[n], "link", "set", "net", state)

    def train(self, *flags: str) -> list[subprocess.Popen]:
        """The same command on both, each in a session of its own."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "net", "OMP_WAIT_POLICY": "PASSIVE"}
        started = []
        for n, name in enumerate(self.names):
            launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file",
                      str(ROOT / "accelerate_configs" / "machines2_cpu.yaml"), "--machine_rank", str(n),
                      "--main_process_ip", "10.77.0.1", str(self.folder / "starter.py"), "--data", "world",
                      "--exp_path", "run", *SMALL, *flags]
            with open(self.folder / f"log{n}", "w") as log:
                started.append(subprocess.Popen(
                    ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", f'hostname machine{n}; exec "$@"',
                     "sh", *launch], cwd=self.folder, env=env, stdout=log, stderr=log, start_new_session=True))
        return started

    def processes(self, n: int) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.names[n], check=False).split()]

    def kill(self, n: int) -> None:
        for pid in self.processes(n):
            os.kill(pid, signal.SIGKILL)

    def output(self) -> str:
        return "\n".join(f"--- machine {n}\n{(self.folder / f'log{n}').read_text()[-6000:]}" for n in range(2))

    def close(self) -> None:
        for n, name in enumerate(self.names):
            self.kill(n)
            ip("netns", "del", name, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        ip("link", "del", f"{self.names[0]}v", check=False)


@pytest.fixture
def machines(tmp_path, tiny_world) -> Iterator[Machines]:
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("network namespaces need root, ip (iproute2) and unshare (util-linux)")
    if subprocess.run(["ip", "netns", "add", f"gp{os.getpid()}"], capture_output=True).returncode:
        pytest.skip("this kernel or container lets nobody add a network namespace")
    ip("netns", "del", f"gp{os.getpid()}")
    shutil.copytree(tiny_world, tmp_path / "world")
    for split in ("train", "val"):
        prepare(tmp_path / "world", split, crop_size=32, jobs=1, notify=lambda line: None)
    two = Machines(tmp_path)
    yield two
    two.close()


def seconds_until(true: Callable[[], bool], limit: float, machines: Machines) -> float:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit, f"not within {limit} s\n{machines.output()}"
        time.sleep(0.05)
    return time.monotonic() - began


def steps(machines: Machines) -> int:
    """The last step that is recorded whole."""
    path = machines.folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def finished(machines: Machines, started: list[subprocess.Popen]) -> None:
    seconds_until(lambda: all(process.poll() is not None for process in started), 300, machines)
    assert [process.returncode for process in started] == [0, 0], machines.output()
    status = json.loads((machines.folder / "run" / "status.json").read_text())
    assert (status["state"], status["world_size"]) == ("finished", 2)


def test_two_machines_train_to_the_end(machines, figure):
    began = time.monotonic()
    finished(machines, machines.train("--epochs", "2"))
    figure("seconds of 2 epochs, with the start", f"{time.monotonic() - began:.0f}")
    assert "world: 2 processes on cpu" in machines.output()


FAULTS = {"machine 1 dies": lambda machines: machines.kill(1), "machine 0 dies": lambda machines: machines.kill(0),
          "the link is cut": lambda machines: machines.link(1, "down")}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_the_job_and_it_resumes(machines, fault, figure):
    started = machines.train("--epochs", "60")
    seconds_until(lambda: steps(machines) >= 20, 240, machines)
    FAULTS[fault](machines)
    at, ended = time.monotonic(), {}
    def all_ended() -> bool:
        ended.update({n: time.monotonic() - at for n, process in enumerate(started)
                      if n not in ended and process.poll() is not None})
        return len(ended) == 2
    seconds_until(all_ended, ENDS, machines)
    for n in range(2):
        figure(f"seconds until the launcher of machine {n} has ended", f"{ended[n]:.1f}", f"<= {ENDS}")
    left = seconds_until(lambda: not any(machines.processes(n) for n in range(2)), 10, machines)
    figure("seconds until the last process has ended after it", f"{left:.1f}", "<= 10")
    assert all(process.returncode for process in started), machines.output()
    reached = steps(machines)
    machines.link(1, "up")
    finished(machines, machines.train("--epochs", str(reached // 8 + 2), "--resume"))
    figure("last step before the fault, and of the resumed run", f"{reached}, {steps(machines)}", "more")
    assert steps(machines) > reached
