import json

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


def test_what_went_wrong_is_told_where_the_half_written_file_cannot_be_removed(tmp_path, monkeypatch):
    def broken(path, missing_ok=False):
        raise OSError(5, "broken")

    monkeypatch.setattr("pathlib.Path.unlink", broken)
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as temporary:
        fail_after(temporary.write_text, "half")
    write_json(tmp_path / "whole", {"a": 1})  # nothing is left to be removed
    assert read_json(tmp_path / "whole") == {"a": 1}


def test_broken_json_names_the_file(tmp_path):
    (tmp_path / "results.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"results\.json is not valid JSON"):
        read_json(tmp_path / "results.json")


@pytest.mark.parametrize("place", range(0, 150, 7))
def test_json_with_a_flipped_bit_is_never_read_as_data(tmp_path, place):
    value, file = (
        {"loss": 0.25, "seeds": [1, 2], "none": float("nan"), "name": "näme"},
        tmp_path / "results.json",
    )
    write_json(file, value)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    try:
        found = read_json(file)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{file} is not ")  # either of two is right
    else:
        assert repr({key: found.get(key) for key in value}) == repr(value)


def test_json_that_was_edited_is_read_without_its_checksum(tmp_path):
    file = tmp_path / "results.json"
    write_json(file, {"loss": 0.25})
    edited = {**json.loads(file.read_text()), "loss": 0.5}
    file.write_text(json.dumps(edited))
    with pytest.raises(
        ValueError, match=r"results\.json is not what was written .*takes the entry sha256 out"
    ):
        read_json(file)
    del edited["sha256"]
    file.write_text(json.dumps(edited))
    assert read_json(file) == {"loss": 0.5}
    file.write_text(f'{{"loss": {"9" * 5000}}}')
    with pytest.raises(ValueError, match=r"results\.json is not valid JSON"):
        read_json(file)
