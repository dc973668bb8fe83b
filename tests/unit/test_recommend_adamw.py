"""The optimiser gives what torch's gives, and imports no compiler."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from sidmill.recommend.adamw import AdamW


def make(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3))
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    model.register_parameter("scalar", nn.Parameter(torch.tensor(0.5)))
    return model


def groups_of(model):
    return [
        {"params": [one for one in model.parameters() if one.ndim > 1], "weight_decay": 0.1},
        {"params": [one for one in model.parameters() if one.ndim <= 1], "weight_decay": 0.0},
    ]


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, (step + 1) / 5)
        loss = (model(torch.randn(11, 7, generator=generator)) * model.scalar).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_weights_and_moments_have_the_bytes_of_torch():
    ours, theirs = make(), make()
    own, other = AdamW(groups_of(ours), 0.01), torch.optim.AdamW(groups_of(theirs), lr=0.01)
    train(ours, own, range(30))
    train(theirs, other, range(30))
    for one, another in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, another)
    assert not torch.equal(ours[0].weight, make()[0].weight)
    states = own.state_dict()["state"], other.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for number, moments in states[0].items():
        for name, value in moments.items():
            assert torch.equal(value, states[1][number][name])


def test_a_saved_state_continues():
    whole, parts = make(), make()
    train(whole, AdamW(groups_of(whole), 0.01), range(10))
    first = AdamW(groups_of(parts), 0.01)
    train(parts, first, range(4))
    second = AdamW(groups_of(parts), 0.01)
    second.load_state_dict({"state": first.state_dict()["state"]})
    train(parts, second, range(4, 10))
    for one, another in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, another)


TRAINING = """
import sys
from pathlib import Path
from pathlib import Path

sys.path.insert(0, {tests!r})
from generative_data import catalogue, fit
from recommend_data import chains, write

path = write(Path({folder!r}) / "s.parquet", chains(20))
fit(path, catalogue(), max_epochs=1)
print(sorted({{"torch._dynamo", "torch._inductor", "sympy"}} & sys.modules.keys()))
"""


def test_a_training_imports_no_compiler(tmp_path):
    code = TRAINING.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
