"""Provenance names what decides numbers, and nothing that says where or when."""

import getpass
import json
import re
import socket
from pathlib import Path

import pytest
import torch

from mechanism.report import provenance as collect
from mechanism.report.files import REPOSITORY, code_hash, tree_hash, write_atomic
from mechanism.report.provenance import data_hashes, git_commit


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_content_names_what_decides_numbers(model: Path):
    content = collect(model, run="abc", seed=3, dtype=torch.bfloat16, max_segments=5).content
    assert content["model"] == "tiny"
    assert content["dtype"] == "bfloat16"
    assert content["max segments"] == "5"
    assert content["run"] == "abc"
    assert code_hash()[:12] in content["mechanism"]
    assert all(name in content["data"] for name in data_hashes())


def test_weights_and_config_are_hashed(model: Path):
    before = collect(model).content
    (model / "model.safetensors").write_bytes(b"other weights")
    after = collect(model).content
    assert before["model weights"] != after["model weights"]
    assert before["model config"] == after["model config"]


def test_hub_id_is_named():
    assert collect("allenai/OLMoE-1B-7B-0924").content["model"] == "allenai/OLMoE-1B-7B-0924"


def test_data_of_the_user_is_hashed(tmp_path: Path):
    file = tmp_path / "own.tsv"
    file.write_text("en\tsw\n")
    assert collect(data=file).content["data"].startswith("own.tsv ")
    assert collect(data="udhr").content["data"] == f"udhr {data_hashes()['udhr'][:12]}"


def test_no_path_host_user_or_time(model: Path):
    text = str(collect(model, data=model)) + collect(model)._repr_html_()
    for secret in (str(REPOSITORY), str(model.parent), socket.gethostname(), str(Path.home())):
        assert len(secret) < 4 or secret not in text
    assert getpass.getuser() not in re.findall(r"\w+", text)
    assert not re.search(r"\d\d:\d\d", text)


def test_it_is_the_same_twice(model: Path):
    assert str(collect(model)) == str(collect(model))


def test_commit_is_optional(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None
    assert "git commit" not in collect().machine


def test_tree_hash_sees_names_and_contents_not_caches(tmp_path: Path):
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.py").write_text("1")
    first = tree_hash([root])
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_bytes(b"x")
    (root / ".hidden").write_text("x")
    assert tree_hash([root]) == first
    (root / "inner" / "a.py").write_text("2")
    second = tree_hash([root])
    (root / "inner" / "a.py").rename(root / "inner" / "b.py")
    assert len({first, second, tree_hash([root])}) == 3


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
