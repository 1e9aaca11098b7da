"""Artifacts are whole or absent, and their hashes follow their content."""

import pytest

from uniscale.artifacts import atomic_folder, content_hash, read_json, write_json
from uniscale.errors import DataError


def test_a_failed_block_leaves_no_folder_and_the_next_attempt_cleans_up(tmp_path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), atomic_folder(target) as scratch:
        (scratch / "half").write_text("x")
        raise RuntimeError
    assert not target.exists()
    with atomic_folder(target) as scratch:
        (scratch / "whole").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_an_existing_target_is_replaced_only_on_success(tmp_path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as scratch:
        (scratch / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    assert (target / "a").read_text() == "1"
    with atomic_folder(target) as scratch:
        (scratch / "b").write_text("2")
    assert [path.name for path in target.iterdir()] == ["b"]


def test_the_content_hash_sees_bytes_and_names_but_not_the_place(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text("same")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    before = content_hash(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").write_text("other")
    changed = content_hash(tmp_path / "two")
    (tmp_path / "two" / "sub" / "file").rename(tmp_path / "two" / "sub" / "renamed")
    assert len({before, changed, content_hash(tmp_path / "two")}) == 3


def test_json_refuses_nan_and_a_broken_file_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "bad.json", {"x": float("nan")})
    assert not (tmp_path / "bad.json").exists()
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json is not valid JSON"):
        read_json(tmp_path / "broken.json")
    with pytest.raises(DataError, match="has not finished"):
        read_json(tmp_path / "absent.json")
