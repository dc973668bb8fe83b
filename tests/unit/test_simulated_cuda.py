"""The simulated CUDA devices refuse what CUDA refuses, and reorder what CUDA reorders."""

import os
import subprocess
import sys

from conftest import ROOT

BEGIN = """
import sys
sys.path[:0] = ["tests/gpu", "tests", "tests/unit"]
import simulated_cuda
import torch
simulated_cuda.start(2)

def error(work):
    try:
        work()
    except (RuntimeError, TypeError) as error:
        return str(error)

there = torch.arange(6.0).to("cuda")
"""
CASES = {
    "two devices in one operation": """
assert "same device" in error(lambda: there + torch.ones(6))
assert "same device" in error(lambda: there + torch.ones(6, device="cuda:1"))
assert "same device" in error(lambda: there.index_select(0, torch.tensor([1])))
assert (there + torch.tensor(1.0)).tolist() == [1, 2, 3, 4, 5, 6]
assert there.to("cuda:1").device == torch.device("cuda:1") != there.device
""",
    "a view of its memory": """
assert "numpy" in error(there.numpy)
assert there.cpu().numpy().sum() == 15
assert "pin" in error(there.pin_memory)
""",
    "a generator of another device": """
how = {"device": "cuda"}
assert "generator" in error(lambda: torch.randn(3, generator=torch.Generator(), **how))
torch.randn(3, generator=torch.Generator("cuda"), **how)
""",
    "a copy to the host is garbage until the host has waited": """
found = there.to("cpu", non_blocking=True)
assert found.isnan().all()
event = torch.cuda.Event()
event.record()
later = (there + 1).to("cpu", non_blocking=True)
event.synchronize()
assert found.tolist() == [0, 1, 2, 3, 4, 5]
assert later.isnan().all()
torch.cuda.synchronize()
assert later.tolist() == [1, 2, 3, 4, 5, 6]
""",
    "pinned memory is read late, other memory at once": """
for host, wanted in ((torch.zeros(3).pin_memory(), 1), (torch.zeros(3), 0)):
    moved = host.to("cuda", non_blocking=True)
    host.fill_(1)
    assert moved.tolist() == [wanted] * 3
""",
    "a stream does not see what another one makes": """
beside = torch.cuda.Stream()
with torch.cuda.stream(beside):
    made = torch.ones(3, device="cuda")
assert "another stream" in error(lambda: made + 1)
torch.cuda.current_stream().wait_stream(beside)
assert (made + 1).tolist() == [2, 2, 2]
""",
    "sums by atomic additions have no order": """
values = torch.randn(2000, device="cuda")
index = torch.zeros(2000, dtype=torch.int64, device="cuda")
for add in ("index_add_", "scatter_add_"):
    sums = {getattr(torch.zeros(1, device="cuda"), add)(0, index, values).item() for _ in range(9)}
    assert len(sums) > 1
rows = torch.zeros(1, requires_grad=True, device="cuda")
grads = set()
for _ in range(9):
    rows.grad = None
    (rows.gather(0, index) * values).sum().backward()
    grads.add(rows.grad.item())
assert len(grads) > 1
""",
    "gradients, threads and bfloat16": """
import threading
layer = torch.nn.Linear(6, 2).to("cuda:1")
with torch.autocast("cuda", torch.bfloat16):
    out = layer(there.to("cuda:1"))
assert out.dtype == torch.bfloat16
out.float().sum().backward()
assert layer.weight.grad.device == torch.device("cuda:1")
assert torch.equal(layer.weight.grad.cpu(), torch.arange(6.0).expand(2, 6))
found = []
thread = threading.Thread(target=lambda: found.append(torch.ones(2, device="cuda")))
thread.start()
thread.join()
assert found[0].is_cuda
left = torch.ones(2, 2, dtype=torch.bfloat16, device="cuda")
assert torch.mm(left, left, out_dtype=torch.float32).dtype == torch.float32
assert "out_dtype" in error(lambda: torch.mm(left.float(), left, out_dtype=torch.float32))
""",
    "launches and waits are counted": """
with simulated_cuda.counted() as counts:
    there.view(2, 3).T.sum()
assert (counts.launches, counts.waits) == (1, 0)
with simulated_cuda.counted() as counts:
    there[there > 2].tolist()
assert (counts.waits, counts.to_host) == (2, 12)
""",
}


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_the_rules_of_cuda():
    run("\n".join(CASES.values()))
