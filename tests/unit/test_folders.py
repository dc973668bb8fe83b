"""A folder is replaced as a whole, wherever the replacement stops."""

import os
from pathlib import Path

import pytest

from sidmill.core import folders

FILES = {"weights.bin": b"w" * 5000, "1_Pooling/config.json": b"{}"}


def make(path, name):
    for file, content in FILES.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_bytes(name.encode() + content)


def content(path):
    """``old`` or ``new``; any other folder is neither."""
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.*")}
    names = {name for name in ("old", "new") if files == {
        file: name.encode() + content for file, content in FILES.items()
    }}  # fmt: skip
    assert len(names) == 1, files
    return names.pop()


def names_in(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture(params=["swap", "two renames"])
def target(request, tmp_path, monkeypatch):
    """A folder that exists, and the new one beside it, on either kind of file system."""
    if request.param == "two renames":
        monkeypatch.setattr(folders, "_swap", lambda one, other: False)
    make(tmp_path / "model", "old")
    make(tmp_path / ".model.partial", "new")
    return tmp_path / "model"


def test_the_new_folder_stands_alone(target):
    (target / "of the old one.txt").write_text("x")
    folders.replace_folder(target.with_name(".model.partial"), target)
    assert content(target) == "new"
    assert names_in(target.parent) == ["model"]


def test_a_missing_target_is_made(tmp_path):
    make(tmp_path / ".model.partial", "new")
    folders.replace_folder(tmp_path / ".model.partial", tmp_path / "model")
    assert content(tmp_path / "model") == "new"
    assert names_in(tmp_path) == ["model"]


def test_this_machine_swaps_in_one_step(tmp_path):
    make(tmp_path / "one", "old")
    make(tmp_path / "other", "new")
    if not folders._swap(tmp_path / "one", tmp_path / "other"):
        pytest.skip("no renameat2 here")
    assert content(tmp_path / "one") == "new"
    assert content(tmp_path / "other") == "old"


def killed_at(step, target):
    """Replace in a child that ends at the ``step``-th call that changes a name; its exit code."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(call):
            def run(*arguments, **options):
                nonlocal calls
                if calls == step:
                    os._exit(9)
                calls += 1
                return call(*arguments, **options)

            return run

        Path.replace, folders.flush = counted(Path.replace), counted(folders.flush)
        folders._swap = counted(folders._swap)
        folders.shutil.rmtree = counted(folders.shutil.rmtree)
        folders.replace_folder(target.with_name(".model.partial"), target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("step", range(14))
def test_a_kill_between_two_steps_leaves_the_old_folder_or_the_new_one(target, step, request):
    code = killed_at(step, target)
    assert code in (0, 9)
    if "two renames" not in request.node.name and folders._swap(*two_folders(target.parent)):
        assert target.exists()  # at any moment
    moved = target.with_name(".model.old")
    found = content(target if target.exists() else moved)
    assert found == "new" if code == 0 else found in ("old", "new")

    # The next replacement leaves nothing of it.
    make(target.with_name(".model.partial"), "new")
    for extra in target.with_name(".model.partial").rglob("*.*"):
        assert extra.relative_to(target.with_name(".model.partial")).as_posix() in FILES
    folders.replace_folder(target.with_name(".model.partial"), target)
    assert content(target) == "new"
    assert set(names_in(target.parent)) <= {"model", "one", "other"}


def two_folders(parent):
    """Two empty folders, to see whether this file system swaps names."""
    (parent / "one").mkdir()
    (parent / "other").mkdir()
    return parent / "one", parent / "other"


def test_a_rename_that_fails_gives_the_old_folder_its_name_back(target, monkeypatch):
    monkeypatch.setattr(folders, "_swap", lambda one, other: False)
    replace = Path.replace

    def fail(self, other):
        if self.name == ".model.partial":
            raise OSError("injected")
        return replace(self, other)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="injected"):
        folders.replace_folder(target.with_name(".model.partial"), target)
    assert content(target) == "old"
