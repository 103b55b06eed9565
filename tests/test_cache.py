import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gruland import cache as cache_module
from gruland.cache import cache_folder, cached, content_hash
from gruland.files import _temporary, read_json

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


@pytest.mark.parametrize("damage", [b"43", b"", b"421"])
def test_an_entry_that_is_not_as_it_was_written_is_made_again(tmp_path, caplog, damage):
    entry = tmp_path / "entry"
    cached(entry, read, write)
    (entry / "value").write_bytes(damage)
    assert cached(entry, read, write) == "42"
    (message,) = caplog.messages
    assert f"{entry} is damaged (value is not what was written)" in message
    assert cached(entry, read, lambda folder: pytest.fail("written again")) == "42"


def test_an_entry_without_checksums_is_made_again(tmp_path, caplog):
    entry = tmp_path / "entry"
    entry.mkdir()
    (entry / "value").write_text("43")
    assert cached(entry, read, write) == "42"
    assert "damaged" in caplog.text


@pytest.fixture
def read_only():
    """A folder without write permission, for root, too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cache"

        @contextmanager
        def closed():
            for path in (folder.parent, *folder.parent.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
            user = os.geteuid()
            os.seteuid(65534 if user == 0 else user)
            try:
                yield folder
            finally:
                os.seteuid(user)
                for path in (folder.parent, *folder.parent.rglob("*")):
                    path.chmod(0o755)

        folder.mkdir()
        yield folder, closed


def test_a_filled_cache_is_read_without_write_permission(read_only, later):
    folder, closed = read_only
    source = folder.parent / "source"
    source.write_text("one")
    cached(folder / "entry", read, write)
    with closed():
        assert cache_folder(folder) == folder
        first = content_hash(source, folder)
        assert content_hash(source, folder) == first
        assert cached(folder / "entry", read, write) == "42"
        with pytest.raises(OSError, match=r"cache folder .* cannot be used \(no permission to write\)"):
            cached(folder / "other", read, write)


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


@pytest.fixture
def later(monkeypatch):
    """The clock stands an hour ahead: files that a test has just written count as settled."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)


def test_content_hash_is_remembered_and_checked(tmp_path, later, monkeypatch):
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    first = content_hash(file, cache)
    (memory,) = (cache / "hashes").iterdir()
    content = memory.read_text()
    for damaged in ("{", "", content.replace(first[:8], "0" * 8)):
        memory.write_text(damaged)
        assert content_hash(file, cache) == first
        assert memory.read_text() == content
    monkeypatch.setattr(cache_module, "_file_hash", lambda path: pytest.fail("read again"))
    assert content_hash(file, cache) == first


def test_what_a_killed_process_left_of_a_remembered_hash_is_removed(tmp_path, later, monkeypatch):
    file, folder = tmp_path / "file", tmp_path / "cache" / "hashes"
    file.write_text("one")
    folder.mkdir(parents=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: gone.pid)
        left = _temporary(folder / "0.json")
    left.write_text("{")
    first = content_hash(file, tmp_path / "cache")
    assert not left.exists()
    assert [read_json(note)["hash"] for note in folder.iterdir()] == [first]


def test_content_hash_follows_the_content(tmp_path):
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    first = content_hash(file, cache)
    file.write_text("two!")
    assert content_hash(file, cache) != first
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    assert content_hash(file, cache) == first


def test_a_change_in_place_with_the_same_size_and_time_stamp_is_seen(tmp_path, later):
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    stat, first = file.stat(), content_hash(file, cache)
    while file.stat().st_ctime_ns == stat.st_ctime_ns:  # the file system's clock ticks every few milliseconds
        file.write_text("two")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert content_hash(file, cache) != first


def test_a_file_that_changed_just_now_is_not_trusted_to_stay(tmp_path):
    """Within a tick of the clock it could change again and keep its time stamps."""
    file = tmp_path / "file"
    file.write_text("one")
    content_hash(file, tmp_path / "cache")
    assert not (tmp_path / "cache" / "hashes").exists()


def test_content_hash_of_several_files_holds_their_names(tmp_path):
    def fill(folder: Path, names):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name[-1])
        return content_hash([p for p in folder.rglob("*") if p.is_file()], tmp_path / "cache")

    one = fill(tmp_path / "one", ["x/a", "y/b"])
    assert fill(tmp_path / "two", ["x/a", "y/b"]) == one
    assert fill(tmp_path / "three", ["x/b", "y/a"]) != one
    assert fill(tmp_path / "one", ["z/c"]) != one
