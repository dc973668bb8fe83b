"""How many threads may compute, and how they wait: what libraries read when they are loaded.

OpenMP (torch, faiss, scikit-learn) and OpenBLAS (NumPy, SciPy) keep a pool of threads that by
default spin while they wait for work: for some milliseconds after each product, each on a core of
its own. Beside other processes the spinning takes their cores, and the waiting grows with it. Both
have an environment variable that lets threads sleep instead. They also start a thread per core of
the machine, or of the affinity mask, and ignore the quota of a container.

``import sidmill`` sets these variables for its process and those that it starts, as long as the
user has set none of that kind. Libraries that are loaded before keep what they have.
"""

import math
import os
from functools import cache
from pathlib import Path

PROC_CGROUP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
UNLIMITED = math.inf

SPINS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # each says how OpenMP waits
BLAS_SPINS = (
    "OPENBLAS_THREAD_TIMEOUT"  # the binary logarithm of the cycles that it spins; of 26 by default
)
# All variables that limit the threads of a library. OMP_NUM_THREADS holds for OpenBLAS too.
LIMITS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
)


def prepare() -> None:
    """Set the variables that libraries read when they are loaded; what the user set stays."""
    if not any(name in os.environ for name in SPINS):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault(BLAS_SPINS, "4")

    # Libraries know the affinity mask, not the quota.
    if cores() < len(os.sched_getaffinity(0)) and not any(name in os.environ for name in LIMITS):
        os.environ["OMP_NUM_THREADS"] = str(cores())


def cores() -> int:
    """Cores that this process may use: by its affinity mask and the quota of its cgroups.

    The quota is read once per process, which takes a third of a millisecond.
    """
    return max(1, math.ceil(min(len(os.sched_getaffinity(0)), _quota())))


def granted() -> int:
    """Threads that this process may use: ``OMP_NUM_THREADS`` where it is set, else its cores."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, int(limit)) if limit.isdecimal() else cores()


@cache
def _quota() -> float:
    """Cores of the tightest quota among the cgroups of this process; infinite without one.

    Versions 1 and 2 of cgroups: a line of ``/proc/self/cgroup`` names the group below the folder of
    its controller. In a container the group's own folder is often mounted at the root.
    """
    try:
        lines = PROC_CGROUP.read_text().splitlines()
    except OSError:
        return UNLIMITED
    quotas = [UNLIMITED]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        folder = root / group.lstrip("/")
        quotas += [
            _quota_of(each) for each in (folder, *folder.parents) if each.is_relative_to(root)
        ]
    return min(quotas)


def _quota_of(folder: Path) -> float:
    """Cores by the quota of one cgroup."""
    try:
        if (folder / "cpu.max").exists():  # version 2
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = (
                (folder / name).read_text().strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return int(quota) / int(period) if quota not in ("max", "-1") else UNLIMITED
    except (OSError, ValueError, ZeroDivisionError):
        return UNLIMITED
