"""Digests of sources that are kept between runs: a changed file is seen, a bad cache ignored."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidmill.core import digest_cache, provenance

BEFORE, AFTER = "x = 1\n", "x = 2\n"  # of one length


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """No digest is known, and none of these tests stays."""
    monkeypatch.setattr(provenance, "known", {})
    provenance._parse.cache_clear()
    yield
    provenance._parse.cache_clear()


def next_run(state: Path, script: Path) -> str:
    """The digest of a script in a process of its own, with the cache of a folder of state."""
    program = (
        "import sys; from pathlib import Path\n"
        "from sidmill.core import digest_cache, provenance\n"
        "digest_cache.begin(Path(sys.argv[1]), save=True)\n"
        "print(provenance.source_digest(sys.argv[2]), len(provenance.known))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(state), str(script)],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert not done.stderr
    return done.stdout


def fresh(path: Path) -> str:
    """The digest of a script without any cache."""
    provenance.known.clear()
    provenance._parse.cache_clear()
    return provenance.source_digest(path)


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "make.py"
    path.write_text(BEFORE)
    return path


def rewrite_in_place(path: Path, times: tuple[int, int]) -> None:
    with path.open("r+") as file:
        file.write(AFTER)
    os.utime(path, ns=times)


def replace(path: Path, times: tuple[int, int]) -> None:
    new = path.with_suffix(".new")
    new.write_text(AFTER)
    os.utime(new, ns=times)
    new.replace(path)


def point_elsewhere(path: Path, times: tuple[int, int]) -> None:
    other = path.with_name("other.py")
    other.write_text(AFTER)
    os.utime(other, ns=times)
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("change", [rewrite_in_place, replace, point_elsewhere])
def test_a_change_of_the_same_size_and_time_is_seen(tmp_path, script, change):
    stat = script.stat()
    first = next_run(tmp_path, script)
    assert first.split()[0] == fresh(script)
    change(script, (stat.st_atime_ns, stat.st_mtime_ns))
    assert (script.stat().st_size, script.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert next_run(tmp_path, script).split()[0] == fresh(script) != first.split()[0]


def test_what_is_known_is_not_parsed(tmp_path, script, monkeypatch):
    digest_cache.begin(tmp_path, save=False)
    before = provenance.source_digest(script)
    digest_cache.write(tmp_path / digest_cache.NAME, provenance.known)
    provenance.known.clear()
    provenance._parse.cache_clear()
    digest_cache.begin(tmp_path, save=False)
    monkeypatch.setattr(provenance.ast, "parse", lambda *_: pytest.fail("parsed again"))
    assert provenance.source_digest(script) == before


def test_imports_are_followed_through_the_cache(tmp_path, monkeypatch):
    """Also of a module that was not there when its importer was read."""
    root = tmp_path / "src"
    (root / "sidmill").mkdir(parents=True)
    script = tmp_path / "make.py"
    script.write_text("from sidmill import later\n")
    monkeypatch.setattr(provenance, "ROOT", root)
    alone = provenance.source_digest(script)
    (root / "sidmill/later.py").write_text(BEFORE)
    provenance._parse.cache_clear()
    provenance._file_of.cache_clear()
    try:
        assert provenance.source_digest(script) != alone
    finally:
        provenance._file_of.cache_clear()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b'"', b"'", 1),
        lambda content: content[:70] + bytes([content[70] ^ 1]) + content[71:],
        lambda content: b"\xff" * 200,
        lambda content: b"0" * 64 + content[64:],
    ],
)
def test_a_damaged_cache_is_ignored_and_replaced(tmp_path, script, damage):
    expected = next_run(tmp_path, script)
    path = tmp_path / digest_cache.NAME
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert digest_cache.read(path) == {}
    assert next_run(tmp_path, script) == expected
    assert path.read_bytes() == whole


def test_a_cache_of_other_code_is_ignored(tmp_path, script, monkeypatch):
    next_run(tmp_path, script)
    assert digest_cache.read(tmp_path / digest_cache.NAME)
    other = tmp_path / "provenance.py"
    other.write_text("# another way to write a tree\n")
    monkeypatch.setattr(provenance, "__file__", str(other))
    assert digest_cache.read(tmp_path / digest_cache.NAME) == {}


def test_no_cache_where_nothing_can_be_written(tmp_path, script):
    missing = tmp_path / "missing"
    assert next_run(missing, script) == next_run(missing, script)
    assert not missing.exists()
    (tmp_path / "state" / digest_cache.NAME).mkdir(parents=True)  # a write fails
    assert next_run(tmp_path / "state", script).split()[0] == fresh(script)
    assert (tmp_path / "state" / digest_cache.NAME).is_dir()


def test_two_processes_leave_a_cache_that_can_be_read(tmp_path, script):
    other = tmp_path / "other.py"
    other.write_text(AFTER)
    program = (
        "import sys; from pathlib import Path\n"
        "from sidmill.core import digest_cache, provenance\n"
        "provenance.source_digest(sys.argv[2])\n"
        "for _ in range(50):\n"
        "    digest_cache._save(Path(sys.argv[1]) / digest_cache.NAME, set())\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(path)])
        for path in (script, other)
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    found = digest_cache.read(tmp_path / digest_cache.NAME)
    assert len(found) == 1  # of the one that was last
    assert not [*tmp_path.glob(".*")]


def test_the_entries_that_were_used_last_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(digest_cache, "MOST_ENTRIES", 2)
    digest_cache.write(tmp_path / "cache", {name: (name, ()) for name in "abc"})
    assert [*digest_cache.read(tmp_path / "cache")] == ["b", "c"]
