import pytest

from gruland.files import atomic_path, read_json, write_json


def fail_after(write, *arguments):
    write(*arguments)
    raise RuntimeError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "results.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        fail_after(temporary.write_text, "half")
    assert read_json(target) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_failed_write_of_a_folder_is_removed(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "store.zarr") as temporary:
        fail_after(temporary.mkdir)
    assert list(tmp_path.iterdir()) == []


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "results.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"results\.json is not valid JSON"):
        read_json(tmp_path / "results.json")
