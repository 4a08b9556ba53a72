"""The second device refuses what CUDA refuses, and allows what CUDA allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REFUSED = {
    "arithmetic": "here + torch.ones(3)",
    "matmul": "here @ torch.ones(3)",
    "a CPU tensor indexed by indices of the device": "torch.ones(3)[torch.tensor([0, 2], device=device)]",
    "index_put_ with CPU values": "here.index_put_((torch.tensor([0], device=device),), torch.ones(1))",
    "index_put_ of a CPU tensor with values of the device": "torch.ones(3).index_put_((torch.tensor([0]),), here[:1])",
    "index_put_ of a CPU tensor at indices of the device": (
        "torch.ones(3).index_put_((torch.tensor([0], device=device),), torch.ones(1))"
    ),
    "a CPU generator": "here.normal_(generator=torch.Generator())",
    "a mask of the device over a CPU tensor": "torch.ones(3)[here > 0]",
}
ALLOWED = {
    "arithmetic on the device": "here + here",
    "a number": "here + 1",
    "a CPU tensor without dimensions": "here + torch.tensor(1.0)",
    "indices of the CPU": "here[torch.tensor([0, 2])]",
    "indices of the device": "here[torch.tensor([0, 2], device=device)]",
    "index_put_ with values of the device": "here.index_put_((torch.tensor([0]),), torch.ones(1, device=device))",
    "values of the device put at a list of indices": "here.__setitem__([0, 2], here[1:] + 1)",
    "a number put at a list of indices": "here.__setitem__([0, 2], 1.0)",
    "index_put_ with a value without dimensions": "here.index_put_((torch.tensor([0]),), torch.tensor(2.0))",
    "copying between devices": "(here.copy_(torch.ones(3)), here.cpu(), torch.ones(3).to(device))",
    "random values": "here.normal_()",
}
SCRIPT = """
import json, sys, torch
from tests.second_device import register
device = register()
answers = {}
for name, code in json.loads(sys.argv[1]).items():
    here = torch.ones(3).to(device)
    try:
        eval(code)
        answers[name] = ""
    except RuntimeError as error:
        answers[name] = str(error)
print(json.dumps(answers), flush=True)
import os
os._exit(0)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What the device said to each expression; empty where it took it."""
    import json

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps({**REFUSED, **ALLOWED})],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_refused(answers: dict[str, str], name: str) -> None:
    assert "second:0 and one on the CPU" in answers[name]


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(answers: dict[str, str], name: str) -> None:
    assert answers[name] == ""
