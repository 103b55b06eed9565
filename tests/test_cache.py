import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gruland.cache import cache_folder, cached, content_hash

WRITER = """
import os, pathlib, signal, sys, time
from gruland.cache import cached
log, entry = map(pathlib.Path, sys.argv[1:3])
def write(folder):
    with log.open("a") as file:
        file.write("w")
    (folder / "half").write_text("half")
    time.sleep(0.3)
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "value").write_text("42")
print(cached(entry, lambda folder: (folder / "value").read_text(), write))
"""


def start(log, entry, how):
    command = [sys.executable, "-c", WRITER, str(log), str(entry), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read(folder):
    return (folder / "value").read_text()


def write(folder):
    (folder / "value").write_text("42")


def test_processes_that_start_at_once_write_once(tmp_path):
    jobs = [start(tmp_path / "log", tmp_path / "entry", "live") for _ in range(4)]
    assert [job.communicate()[0].strip() for job in jobs] == ["42"] * 4
    assert (tmp_path / "log").read_text() == "w"


def test_a_killed_writer_leaves_nothing(tmp_path):
    job = start(tmp_path / "log", tmp_path / "entry", "die")
    job.communicate()
    assert job.returncode == -signal.SIGKILL
    assert not (tmp_path / "entry").exists()
    assert cached(tmp_path / "entry", read, write) == "42"
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["entry"]


def test_a_failing_writer_leaves_nothing(tmp_path):
    def fail(folder):
        write(folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached(tmp_path / "entry", read, fail)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_a_damaged_entry_is_made_again(tmp_path, caplog):
    entry = tmp_path / "entry"
    cached(entry, read, write)
    (entry / "value").unlink()
    with caplog.at_level(logging.WARNING, "gruland"):
        assert cached(entry, read, write) == "42"
    assert len(caplog.messages) == 1
    assert str(entry) in caplog.text


def test_a_defect_in_reading_is_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError):
        cached(tmp_path / "entry", read, lambda folder: None)


def test_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GRULAND_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert cache_folder().is_dir()
    assert cache_folder(tmp_path / "c") == tmp_path / "c"
    monkeypatch.delenv("GRULAND_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "gruland"


def test_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cache folder .*file/cache cannot be used .*GRULAND_CACHE") as caught:
        cache_folder(tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)


def test_content_hash(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    first = content_hash(file, cache)
    assert content_hash(file, cache) == first
    file.write_text("two!")
    assert content_hash(file, cache) != first
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    assert content_hash(file, cache) == first
    for damaged in (cache / "hashes").iterdir():
        damaged.write_text("{")
    assert content_hash(file, cache) == first


def test_content_hash_of_a_folder(tmp_path):
    def fill(folder: Path, names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name[-1])
        return content_hash(folder, tmp_path / "cache")

    one = fill(tmp_path / "one", ["x/a", "y/b"])
    assert fill(tmp_path / "two", ["x/a", "y/b"]) == one
    assert fill(tmp_path / "three", ["x/b", "y/a"]) != one
    assert fill(tmp_path / "one", ["z/c"]) != one
