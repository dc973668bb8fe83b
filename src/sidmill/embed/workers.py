"""Several processes share a shard, one GPU each; they meet in the chunks that they leave."""

from typing import Any

from sidmill.core import processes
from sidmill.core.processes import Inherited
from sidmill.embed import backend, compute, throughput
from sidmill.embed.compute import Done, Task


def run(task: Task, n_processes: int) -> Done:
    """Compute the chunks of a shard in several processes, and add up what they did.

    See :func:`sidmill.core.processes.run`: the processes share the threads of this one, and end
    with it or with the first of them that fails.

    Raises:
        SidmillError: if one of them failed.
    """
    common = {"task": compute.as_json(task), "n_processes": n_processes}
    shares = processes.run(
        "sidmill.embed.workers:compute_share",
        [common | {"process": process} for process in range(n_processes)],
        task=f"embed {task.shard_path}",
        inherited=Inherited([backend.module_of(task.settings.backend)]),
    )
    return Done(shares[0]["fingerprint"], _sum_figures([share["figures"] for share in shares]))


def compute_share(task: dict[str, Any], process: int, n_processes: int) -> dict[str, Any]:
    """Compute the chunks of one process, in that process; arguments and result are JSON."""
    return compute.compute(compute.of_json(task), process, n_processes)._asdict()


def _sum_figures(shares: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the figures of processes that ran at the same time."""
    total = dict(shares[0])
    total |= {key: sum(share[key] for share in shares) for key in throughput.COUNTS}
    seconds = max(share["seconds"] for share in shares)
    total |= throughput.rates(total, seconds)

    # arithmetic was counted by the processes that had something to compute
    counted = [share for share in shares if share["operations"] is not None]
    if counted:
        operations = sum(share["operations"] for share in counted)
        rate = sum(share["matmul_rate"] for share in counted)
        total |= {
            "operations": operations,
            "operations_per_second": operations / seconds,
            "matmul_rate": rate,
            "matmul_share": operations / seconds / rate,
            "device": counted[0]["device"],
        }
    return total
