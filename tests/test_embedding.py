import gzip
import zipfile

import numpy as np
import pytest

from gruland import embedding
from gruland.embedding import PAD, UNKNOWN, TorchText, Vocabulary, load

LINES = ["the 0.25 -1.5 3", "n't 1 2 3", "\u00e9 0 0.5 -9e-1"]
VECTORS = np.array([[0.25, -1.5, 3], [1, 2, 3], [0, 0.5, -0.9]], np.float32)


def write(path, lines, end="\n"):
    path.write_bytes(
        b"".join((line.encode() if isinstance(line, str) else line) + end.encode() for line in lines)
    )
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "tiny.txt", LINES)


def test_reads_words_and_vectors(file, tmp_path):
    vocabulary = load(file, cache_dir=tmp_path / "cache")
    assert (len(vocabulary), vocabulary.dimension, vocabulary.name) == (5, 3, "tiny")
    assert vocabulary.vectors.dtype == np.float32
    np.testing.assert_array_equal(vocabulary.vectors[2:], VECTORS)
    np.testing.assert_array_equal(vocabulary.vectors[PAD], np.zeros(3))
    np.testing.assert_allclose(vocabulary.vectors[UNKNOWN], VECTORS.mean(0), rtol=1e-6)
    assert vocabulary.words == ["the", "n't", "\u00e9"]
    ids = vocabulary.ids(["\u00e9", "nowhere", "the", "The"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [4, UNKNOWN, 2, UNKNOWN]
    assert vocabulary.freeze
    assert not load(file, freeze=False, cache_dir=tmp_path / "cache").freeze


def test_second_start_reads_the_cache_alone(file, tmp_path, monkeypatch):
    first = load(file, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(embedding.TextReader, "read", lambda self: pytest.fail("parsed again"))
    second = load(file, cache_dir=tmp_path / "cache")
    assert second.hash == first.hash
    assert second.words == first.words
    np.testing.assert_array_equal(second.vectors, first.vectors)


def test_hash_follows_the_content(file, tmp_path):
    first = load(file, cache_dir=tmp_path / "cache").hash
    same = write(tmp_path / "same.txt", LINES)
    assert load(same, cache_dir=tmp_path / "cache").hash == first
    write(file, ["the 0.25 -1.5 4", *LINES[1:]])
    changed = load(file, cache_dir=tmp_path / "cache")
    assert changed.hash != first
    assert changed.vectors[2, 2] == 4


@pytest.mark.parametrize("damage", ["cut", "flip"])
@pytest.mark.parametrize("name", ["vectors.npy", "words.txt", "checksums.json"])
def test_a_damaged_cache_is_made_again_with_a_line_that_says_so(file, tmp_path, name, damage, caplog):
    load(file, cache_dir=tmp_path / "cache")
    (damaged,) = (tmp_path / "cache").glob(f"vectors-*/{name}")
    content = damaged.read_bytes()
    damaged.write_bytes(
        content[:-4] if damage == "cut" else content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]
    )
    again = load(file, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.vectors[2:], VECTORS)
    assert again.words == ["the", "n't", "\u00e9"]
    assert "damaged" in caplog.text


def test_formats_of_the_wild(tmp_path):
    """A header, Windows line ends, words with spaces and with odd separators, a word that comes twice."""
    lines = ["4 2", "a\u2028\x85b 3 4", ". . . 1 2", "twice 5 6", "twice 7 8"]
    vocabulary = load(write(tmp_path / "wild.txt", lines, end=" \r\n"), cache_dir=tmp_path / "cache")
    assert vocabulary.words == ["a\u2028\x85b", ". . .", "twice", "twice"]
    assert vocabulary.ids(["twice", "a\u2028\x85b"]).tolist() == [4, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINES[0], "n't 1 2", LINES[2]], "line 2 has 2 numbers, expected a word and 3 numbers"),
        ([*LINES, "long 1 2 3 4"], "line 4 has 4 numbers, expected a word and 3 numbers"),
        ([LINES[0], "", LINES[2]], "line 2 has 0 numbers, expected a word and 3 numbers"),
        ([LINES[0], "n't 1 x 3"], "line 2 holds something that is no number .*'x'"),
        ([LINES[0], "n't 1 nan 3"], "line 2 holds a number that is not finite"),
        (["2 3", LINES[0], "n't 1 1e300 3"], "line 3 holds a number that is not finite"),
        ([LINES[0], b"\xff 1 2 3"], "line 2 is not UTF-8"),
        (["word"], "line 1 has 0 numbers"),
        ([], "holds no vectors"),
    ],
)
def test_broken_files(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(write(tmp_path / "broken.txt", lines), cache_dir=tmp_path / "cache")
    assert "broken.txt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("vectors-*"))


READ_RIGHT = {
    "a byte order mark": ("\ufeffthe 1 2 3\nfilm 4 5 6\n", ["the", "film"]),
    "a tab after the word": ("the\t1 2 3\nfilm\t4 5 6\n", ["the", "film"]),
    "tabs everywhere": ("the\t1\t2\t3\na film\t4\t5\t6\n", ["the", "a film"]),
    "quotes around every word": ('"the" 1 2 3\n"""" 4 5 6\n', ["the", '"']),
    "quotes that are words": ('the 1 2 3\n" 4 5 6\n', ["the", '"']),
    "names of columns from 0": ("word 0 1 2\nthe 1 2 3\nfilm 4 5 6\n", ["the", "film"]),
    "names of columns from 1": (
        "word\t1\t2\t3\nthe\t1\t2\t3\nfilm 4 5 6\n".replace(" ", "\t"),
        ["the", "film"],
    ),
    "a true header": ("2 3\nthe 1 2 3\nfilm 4 5 6\n", ["the", "film"]),
    "carriage returns in words": ("a\rb 1 2 3\nend\r 4 5 6\n", ["a\rb", "end\r"]),
    "carriage returns before line ends": ("the 1 2 3\r\nend\r 4 5 6\r\n", ["the", "end\r"]),
}


@pytest.mark.parametrize("kind", READ_RIGHT)
def test_what_other_tools_write_is_read_right(tmp_path, kind):
    content, words = READ_RIGHT[kind]
    path = tmp_path / "vectors.txt"
    path.write_bytes(content.encode())
    for _ in range(2):  # from the file, then from the cache
        vocabulary = load(path, cache_dir=tmp_path / "cache")
        assert vocabulary.words == words
        np.testing.assert_array_equal(vocabulary.vectors[2:], [[1, 2, 3], [4, 5, 6]])
        assert vocabulary.ids(words).tolist() == [2, 3]


def test_words_with_spaces_and_numbers_are_read_where_the_dimension_is_known(tmp_path, caplog):
    lines = ["the 1 2 3", "18 18 4 5 6", "page 3 7 8 9"]
    words = ["the", "18 18", "page 3"]
    plain, headed = write(tmp_path / "plain.txt", lines), write(tmp_path / "headed.txt", ["3 3", *lines])
    assert load(plain, dimension=3, cache_dir=tmp_path / "cache").words == words
    assert "2 words hold spaces and numbers, e.g. '18 18'" in caplog.text
    assert load(headed, cache_dir=tmp_path / "cache").words == words
    with pytest.raises(ValueError, match="line 2 has 4 numbers, expected a word and 3 numbers"):
        load(plain, cache_dir=tmp_path / "cache")


def test_a_known_dimension_does_not_turn_numbers_into_words(file, tmp_path):
    with pytest.raises(ValueError, match=r"has vectors of 3 numbers, expected embedding\.dimension=2"):
        load(file, dimension=2, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("20000 3", "holds 3 words, its first line says 20,000: it was cut short"),
        ("2 3", "holds 3 words, its first line says 2"),
        ("3 2", "line 2 has 3 numbers, the first line says 2"),
        ("3 30", "line 2 has 3 numbers, the first line says 30"),
    ],
)
def test_a_header_that_is_not_true_is_refused(tmp_path, header, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path / "headed.txt", [header, *LINES]), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"the 1 2", mtime=0), "is compressed by gzip: unpack it"),
        (b"PK\x03\x04glove.txt", "is a zip archive: unpack it"),
        ("the 1 2\n".encode("utf-16"), "is text in UTF-16: .*iconv"),
        (b"2 3\nthe \x00\x00\x80\x3f\xff\xff", "is in word2vec's binary format: write it as text"),
        (b"\xba\x16\x4f\x2f\x0c\x00", r"is a binary model of fastText: take the \.vec file"),
        (b"<html><body>", "is an HTML page"),
        (
            "the 1 2\ncafé 1 2\n".encode("latin-1"),
            r"line 2 is not UTF-8 \(byte 0xe9\).*iconv -f WINDOWS-1252",
        ),
    ],
)
def test_another_kind_of_file_is_called_what_it_is(tmp_path, content, message):
    path = tmp_path / "vectors.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load(path, cache_dir=tmp_path / "cache")
    assert "vectors.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": 3}, r"embedding\.path=3: expected a text"),
        ({"dimension": 0}, r"embedding\.dimension=0: expected a whole number of at least 1"),
        ({"dimension": "100"}, r"embedding\.dimension=100: expected a whole number"),
        ({"freeze": "no"}, r"embedding\.freeze=no: expected true or false"),
        ({"cache_dir": 3}, r"embedding\.cache_dir=3: expected a text"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**settings)


def test_nothing_is_read_before_it_is_asked_for(tmp_path):
    vocabulary = Vocabulary(tmp_path / "missing.txt")
    with pytest.raises(FileNotFoundError, match=r"embedding\.path=.*missing\.txt: no such file"):
        _ = vocabulary.hash


def test_words_are_found_in_unicodes_composed_form(tmp_path):
    decomposed, composed = "cafe\u0301", "caf\u00e9"
    one = load(write(tmp_path / "one.txt", ["the 1 2", f"{decomposed} 3 4"]), cache_dir=tmp_path / "cache")
    assert one.ids([composed, decomposed]).tolist() == [3, 3]
    both = load(
        write(tmp_path / "both.txt", [f"{decomposed} 1 2", f"{composed} 3 4"]), cache_dir=tmp_path / "cache"
    )
    assert both.ids([composed, decomposed]).tolist() == [3, 2]


def test_wrong_dimension(file, tmp_path):
    with pytest.raises(
        ValueError, match=r"tiny\.txt has vectors of 3 numbers, expected embedding.dimension=100"
    ):
        load(file, dimension=100, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"embedding\.path=.*no such file"):
        load(tmp_path / name, cache_dir=tmp_path / "cache")


def test_packaged_vectors():
    vocabulary = load()
    assert (len(vocabulary), vocabulary.dimension, vocabulary.name) == (400_002, 50, "glove.6B.50d")
    assert vocabulary.ids(["the", ",", "."]).tolist() == [2, 3, 4]
    np.testing.assert_allclose(vocabulary.vectors[2, :3], [0.418, 0.24968, -0.41242], rtol=1e-6)

    def likeness(a, b):
        a, b = vocabulary.vectors[vocabulary.ids([a, b])]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert likeness("good", "great") > likeness("good", "carburetor") + 0.3


@pytest.fixture
def glove():
    pytest.importorskip("torchtext", reason="torchtext (extra `torchtext`) is not installed")
    from torchtext.vocab import GloVe

    return GloVe


def test_torchtext_fetches_once(glove, file, tmp_path, monkeypatch, capfd):
    archive = tmp_path / "glove.6B.zip"
    with zipfile.ZipFile(archive, "w") as archived:
        archived.write(file, "glove.6B.3d.txt")
    monkeypatch.setitem(glove.url, "6B", archive.as_uri())
    first = TorchText("6B", 3, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(first.vectors[2:], VECTORS)
    archive.unlink()
    assert TorchText("6B", 3, cache_dir=tmp_path / "cache").hash == first.hash
    assert not list(tmp_path.glob("**/.vector_cache"))


def test_torchtext_without_a_network(glove, tmp_path, monkeypatch):
    monkeypatch.setitem(glove.url, "6B", (tmp_path / "missing.zip").as_uri())
    with pytest.raises(
        OSError, match=r"cannot fetch GloVe 6B 100-d .*embedding.path=FILE.*embedding=glove_6b_50d"
    ):
        _ = TorchText("6B", 100, cache_dir=tmp_path / "cache").vectors


def test_torchtext_with_an_unknown_name(glove, tmp_path):
    with pytest.raises(ValueError, match=r"embedding\.name=7B is unknown to torchtext: expected one of .*6B"):
        _ = TorchText("7B", 100, cache_dir=tmp_path / "cache").vectors


def test_torchtext_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchtext.vocab", None)
    with pytest.raises(ImportError, match=r"pip install 'gruland\[torchtext\]'.*embedding.path=FILE"):
        _ = TorchText(cache_dir=tmp_path / "cache").vectors
