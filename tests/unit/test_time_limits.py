"""No test fails because the machine is busy: limits are of CPU time, or wait for minutes."""

import ast

import hypothesis
import pytest
from conftest import ROOT

CLOCKS = {"perf_counter", "monotonic", "time"}  # of the wall
LEAST = 100  # seconds that a process may be late on a busy machine
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def names(node: ast.AST) -> set[str]:
    return {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def limits(tree: ast.AST) -> list[tuple[int, float]]:
    """Line and seconds of each limit of the clock on the wall, and of each hypothesis deadline."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and names(node.left) & CLOCKS:
            for operator, limit in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, ast.Lt | ast.LtE) and isinstance(limit, ast.Constant):
                    found.append((node.lineno, limit.value))
        is_deadline = isinstance(node, ast.keyword) and node.arg == "deadline"
        if is_deadline and getattr(node.value, "value", None) is not None:
            found.append((node.value.lineno, node.value.value / 1000))
    return found


def test_hypothesis_has_no_deadline():
    assert hypothesis.settings().deadline is None
    assert hypothesis.HealthCheck.too_slow in hypothesis.settings().suppress_health_check


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_limit_is_shorter_than_a_busy_machine_may_be_late(path):
    short = [one for one in limits(ast.parse(path.read_text())) if one[1] < LEAST]
    assert not short, f"{path}: lines and seconds: {short}"


def test_short_limits_are_found():
    source = "assert time.monotonic() - began < 60\n@settings(deadline=200)\ndef f(): pass\n"
    assert limits(ast.parse(source)) == [(1, 60), (2, 0.2)]
