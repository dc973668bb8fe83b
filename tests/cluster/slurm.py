#!/usr/bin/env python3
"""A real Slurm of one node, for tests, on Debian and as root: install, start, stop.

    python3 tests/cluster/slurm.py install   # apt-get: slurm-wlm and munge
    python3 tests/cluster/slurm.py start     # munged, slurmctld, slurmd; waits until a job runs
    python3 tests/cluster/slurm.py stop      # cancels jobs, ends the daemons, removes their files

The node claims more cores, memory and GPUs than there are, so that profiles/slurm is accepted as it
stands. No systemd is needed. A slurm.conf of another hand is left alone. Standard library only.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("/run/sidmill-slurm")  # state, spool, logs, pids: all of it is removed again
CONFIG = Path("/etc/slurm/slurm.conf")  # where a step of a job looks: its SLURM_CONF is stripped
GRES = CONFIG.with_name("gres.conf")
OURS = "# Written by tests/cluster/slurm.py, which removes it again."
# Daemons and their folders, in the order in which they are stopped.
DAEMONS = {"slurmd": "spool", "slurmctld": "state", "munged": "munge"}
READY_SECONDS, STOP_SECONDS, APT_SECONDS = 60, 20, 300

SLURM_CONF = """{ours}
ClusterName=sidmill
SlurmctldHost={host}(127.0.0.1)
SlurmUser=slurm
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=5
ReturnToService=2
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/state/slurmctld.pid
SlurmdPidFile={folder}/spool/slurmd.pid
SlurmctldLogFile={folder}/state/slurmctld.log
SlurmdLogFile={folder}/spool/slurmd.log
AccountingStorageType=accounting_storage/none
AccountingStoreFlags=job_comment
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
MinJobAge=3600
KillWait=5
OverTimeLimit=0
EnforcePartLimits=ALL
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=1000000 Gres=gpu:8 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Install the Debian packages; their services are not started."""
    if all(shutil.which(name) for name in (*DAEMONS, "sbatch")):
        return
    commands = (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"],
    )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in commands:
        done = run(command, timeout=APT_SECONDS, env=environment)
        if done.returncode:
            sys.exit(
                f"{' '.join(command)} failed, so Slurm is not installed and its tests cannot run:\n"
                f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
    for name in DAEMONS:  # a package starts what it installs where systemd runs
        if shutil.which("systemctl"):
            run(["systemctl", "disable", "--now", name.replace("munged", "munge")], timeout=30)


def start() -> None:
    """Start the daemons and wait until a job has run."""
    if answers():
        sys.exit("A Slurm answers already (sinfo): stop it first, or run the tests on it")
    if CONFIG.exists() and OURS not in CONFIG.read_text():
        sys.exit(f"{CONFIG} is of another Slurm: it is left alone, and none is started")
    stop()
    for name, user in (("munge", "munge"), ("state", "slurm"), ("spool", "root")):
        (FOLDER / name).mkdir(parents=True)
        shutil.chown(FOLDER / name, user=user)
    CONFIG.parent.mkdir(exist_ok=True)
    host = socket.gethostname().partition(".")[0]
    CONFIG.write_text(SLURM_CONF.format(ours=OURS, host=host, folder=FOLDER))
    for gpu in range(8):
        (FOLDER / f"spool/gpu{gpu}").touch()
    GRES.write_text(f"{OURS}\nNodeName={host} Name=gpu File={FOLDER}/spool/gpu[0-7]\n")
    begin(["runuser", "-u", "munge", "--", shutil.which("munged"), "--force", *munge_files()])
    begin(["slurmctld", "-i", "-f", str(CONFIG)])
    begin(["slurmd", "-f", str(CONFIG)])
    deadline = time.monotonic() + READY_SECONDS
    while not answers() or run(["srun", "--immediate=5", "true"], timeout=20).returncode:
        if time.monotonic() > deadline:
            logs = "".join(
                f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
                for path in sorted(FOLDER.glob("*/*.log"))
            )
            stop()
            sys.exit(f"Slurm ran no job within {READY_SECONDS} s\n{logs}")
        time.sleep(0.5)
    print(run(["sinfo"], timeout=20).stdout, end="")


def stop() -> None:
    """Cancel what runs, end the daemons by their pids, remove the files of this script."""
    if FOLDER.exists() and answers():
        run(["scancel", "--state=PENDING", "--user=root"], timeout=20)
        run(["scancel", "--state=RUNNING", "--user=root"], timeout=20)
        deadline = time.monotonic() + STOP_SECONDS
        while run(["squeue", "--noheader"], timeout=20).stdout and time.monotonic() < deadline:
            time.sleep(0.5)
    for name in DAEMONS:
        end(name)
    for path in (CONFIG, GRES):
        if path.exists() and OURS in path.read_text():
            path.unlink()
    shutil.rmtree(FOLDER, ignore_errors=True)


def munge_files() -> list[str]:
    """Arguments of a munged with a key of its own."""
    folder = FOLDER / "munge"
    key = folder / "key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))
    shutil.chown(key, user="munge")
    files = {"key": "key", "log": "munged.log", "pid": "munged.pid", "seed": "seed"}
    return [f"--socket={folder}/socket"] + [
        f"--{option}-file={folder}/{name}" for option, name in files.items()
    ]


def begin(command: list[str]) -> None:
    """Start one daemon, which puts itself into the background."""
    done = run(command, timeout=30)
    if done.returncode:
        stop()
        sys.exit(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")


def end(name: str) -> None:
    """End a daemon that start() began: by its pid, and only where that pid is still that daemon."""
    try:
        pid = int((FOLDER / DAEMONS[name] / f"{name}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_SECONDS
        if alive(pid, name):
            os.kill(pid, number)
        while alive(pid, name) and time.monotonic() < deadline:
            time.sleep(0.1)


def alive(pid: int, name: str) -> bool:
    """Whether a process runs under that name; a zombie, which waits for PID 1, does not."""
    try:
        command, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return command == name and not rest.lstrip().startswith("Z")


def answers() -> bool:
    """Whether any Slurm answers."""
    if not shutil.which("sinfo"):
        return False
    try:
        return run(["sinfo", "--noheader"], timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def run(command: list[str], timeout: float, **options) -> subprocess.CompletedProcess:
    """Run a command to its end, within ``timeout`` seconds."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


if __name__ == "__main__":
    chosen = {"install": install, "start": start, "stop": stop}.get(" ".join(sys.argv[1:]))
    if chosen is None:
        sys.exit(__doc__)
    if os.geteuid() != 0:
        sys.exit("Slurm starts as root: run this as root")
    chosen()
