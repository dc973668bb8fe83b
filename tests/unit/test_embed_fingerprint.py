"""A fingerprint names content, wherever it lies."""

import shutil

import pytest

from sidmill.embed import fingerprint
from sidmill.settings.embedding import Embedding


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "1_Pooling/config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(3 << 20))
    return model


def test_keys_are_these():
    facts = fingerprint.make(
        Embedding(),
        model="lsa",
        revision=None,
        pooling="",
        dim=8,
        dtype="float32",
        max_length=None,
    )
    assert " ".join(facts) == (
        "backend model revision pooling prompt normalize dim dtype max_length"
    )


def test_another_place_is_the_same_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "elsewhere")
    (tmp_path / "elsewhere/.cache").mkdir()
    (tmp_path / "elsewhere/.cache/downloaded").write_text("yesterday")
    assert fingerprint.folder_digest(tmp_path / "elsewhere") == fingerprint.folder_digest(folder)


@pytest.mark.parametrize("position", [0, 1 << 20, 3 << 19, (2 << 20) - 1, -1])
def test_changed_weights_are_another_model(folder, position):
    before = fingerprint.folder_digest(folder)
    weights = bytearray(3 << 20)
    weights[position] = 1
    (folder / "model.safetensors").write_bytes(weights)
    assert fingerprint.folder_digest(folder) != before


def test_changed_pooling_size_or_name_is_another_model(folder):
    seen = {fingerprint.folder_digest(folder)}
    (folder / "1_Pooling/config.json").write_text("[]")
    seen.add(fingerprint.folder_digest(folder))
    (folder / "model.safetensors").write_bytes(bytes((3 << 20) + 1))
    seen.add(fingerprint.folder_digest(folder))
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    seen.add(fingerprint.folder_digest(folder))
    assert len(seen) == 4


def test_file_digest_is_of_the_whole_file(tmp_path):
    (tmp_path / "a").write_bytes(bytes(5 << 20))
    (tmp_path / "b").write_bytes(bytes(2 << 20) + b"x" + bytes((3 << 20) - 1))
    assert fingerprint.file_digest(tmp_path / "a") != fingerprint.file_digest(tmp_path / "b")
    assert len(fingerprint.file_digest(tmp_path / "a")) == 12
