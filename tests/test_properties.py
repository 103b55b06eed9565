"""What holds for any input: the tokenizer, the readers, the configuration, a landscape's arithmetic."""

from __future__ import annotations

import csv
import json
import math
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from omegaconf import OmegaConf

from gruland import config, embedding, trust
from gruland.data.sources import File
from gruland.data.tokenizer import tokenize
from gruland.files import read_json, write_json
from gruland.landscape import random_directions
from gruland.landscape.directions import displace
from gruland.runs.seals import check_config, seal_config

#: The same examples each time, whatever the machine is busy with; a test's folder serves all of them.
lean = settings(
    max_examples=30, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

#: Letters with marks, quotes, dashes, joiners, emoji, other alphabets, line ends, besides any character at all.
LETTERS = some.one_of(
    some.sampled_from("aZ09 .,'\"-–…’\n\t\r\x85\xad\u0301\u200b\u200d\ufeffiİßΣéе́फ़ि中👩🏽"),
    some.characters(exclude_categories=["Cs"]),
)
TEXTS = some.text(LETTERS, max_size=40)


# -- tokenizer


@lean
@given(TEXTS, TEXTS)
def test_words_are_the_text_in_order_and_end_at_spaces(one, other):
    words = tokenize(one)
    assert all(word and not word.isspace() for word in words)
    assert tokenize(f"{one}\n{other}") == words + tokenize(other)
    assert tokenize(" ".join(words)) == words


@lean
@given(TEXTS)
def test_words_do_not_depend_on_how_their_letters_are_composed(text):
    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(unicodedata.normalize("NFC", text))


# -- readers

REVIEWS = some.lists(some.tuples(TEXTS, some.sampled_from(["positive", "negative"])), min_size=1, max_size=8)


def written_delimited(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        delimiter = "," if path.suffix == ".csv" else "\t"
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])


def written_lines(path, rows):
    path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), encoding="utf-8")


def written_parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [n for _, n in rows]}), path)


@pytest.mark.parametrize(
    ("suffix", "write"),
    [
        (".csv", written_delimited),
        (".tsv", written_delimited),
        (".jsonl", written_lines),
        (".parquet", written_parquet),
    ],
)
@lean
@given(REVIEWS)
def test_reviews_come_back_as_they_were_written(tmp_path, suffix, write, rows):
    path = tmp_path / f"reviews{suffix}"
    write(path, rows)
    corpus = File(path).read([path])
    assert corpus.texts == [text for text, _ in rows]
    assert [corpus.task.classes[label] for label in corpus.labels] == [label for _, label in rows]


@lean
@given(
    some.lists(some.text(LETTERS.filter(lambda c: not c.isspace()), min_size=1), min_size=2, max_size=6, unique=True),
    some.data(),
)  # fmt: skip
def test_vectors_come_back_as_they_were_written(tmp_path, words, data):
    words = [f"x{word}" for word in words]  # no number, nor the mark of a file's byte order
    floats = some.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = data.draw(
        some.lists(some.tuples(floats, floats, floats), min_size=len(words), max_size=len(words))
    )
    path = tmp_path / "vectors.txt"
    lines = [f"{word} {' '.join(map(repr, row))}\n" for word, row in zip(words, rows, strict=True)]
    path.write_text("".join(lines), encoding="utf-8", newline="")
    found = embedding.load(path, cache_dir=tmp_path / "cache")
    assert found.words == words
    np.testing.assert_array_equal(found.vectors[2:], np.array(rows, np.float32))


# -- configuration

PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inside: some.lists(inside, max_size=3) | some.dictionaries(some.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)  # fmt: skip


@lean
@given(PLAIN, some.data())
def test_json_comes_back_or_is_known_to_be_damaged(tmp_path, value, data):
    path = tmp_path / "value.json"
    write_json(path, {"value": value})
    assert repr(read_json(path)) == repr({"value": value})
    content = bytearray(path.read_bytes())
    content[data.draw(some.integers(0, len(content) - 1))] ^= 1 << data.draw(some.integers(0, 7))
    path.write_bytes(content)
    try:
        found = read_json(path)
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{path} is not ")  # either of two is right
    else:
        assert repr(found.get("value")) == repr(value)


@lean
@given(
    some.sampled_from(["seed", "model.hidden_size", "data.limit", "landscape.size"]),
    some.integers() | some.text("abc"),
)
def test_an_edited_configuration_is_known_unless_its_checksum_is_taken_out(tmp_path, key, value):
    path = tmp_path / "config.yaml"
    before = OmegaConf.create({"seed": 0, "model": {"hidden_size": 4}, "data": {"path": "a"}})
    now = before.copy()
    OmegaConf.update(now, key, value)
    mark, _, _ = seal_config(OmegaConf.to_yaml(before)).partition("\n")
    for text, same in ((OmegaConf.to_yaml(before), True), (OmegaConf.to_yaml(now), now == before)):
        path.write_text(f"{mark}\n{text.replace('path: a', 'path: elsewhere')}")
        if same:
            check_config(path, trust.read_config(path))
        else:
            with pytest.raises(ValueError, match=r"config\.yaml is not what the run wrote"):
                check_config(path, trust.read_config(path))
    path.write_text(OmegaConf.to_yaml(now))
    check_config(path, trust.read_config(path))


@lean
@given(some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_a_path_is_what_was_typed_or_is_refused_in_a_line(text):
    try:
        (override,) = config.parse(config.typed([f"data.path={text}"]))
    except ValueError as error:
        message = str(error)
        assert message.startswith("data.path=")  # either of two is right
        return
    if not override.is_sweep_override() and isinstance(override.value(), str):
        assert override.value() == text or any(mark in text for mark in "'\"\\${}")


# -- a landscape's arithmetic

STEPS = some.floats(-4, 4)
SHAPES = some.dictionaries(
    some.sampled_from(["a.weight", "b.weight", "a.bias"]),
    some.lists(some.integers(1, 5), min_size=1, max_size=2),
    min_size=1,
)


def tensors(shapes, seed):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


@lean
@given(SHAPES, STEPS, STEPS)
def test_a_point_of_a_plane_is_the_sum_of_its_steps(shapes, alpha, beta):
    weights, *directions = (tensors(shapes, seed) for seed in range(3))
    point = displace(weights, directions, (alpha, beta))
    for name, weight in weights.items():
        expected = weight + alpha * directions[0][name] + beta * directions[1][name]
        torch.testing.assert_close(point[name], expected, rtol=1e-12, atol=1e-12)
    back = displace(point, directions, (-alpha, -beta))
    for name, weight in weights.items():
        torch.testing.assert_close(back[name], weight, rtol=1e-12, atol=1e-12)


@lean
@given(some.integers(2, 5), some.integers(1, 5), some.integers(0, 2**31), some.floats(1e-3, 1e3))
def test_filter_normalized_directions_have_the_norm_of_each_row_and_grow_with_it(rows, columns, seed, scale):
    weights = tensors({"a.weight": [rows, columns]}, 0)
    directions = random_directions(weights, seed=seed, normalization="filter")
    for direction in directions:
        torch.testing.assert_close(direction["a.weight"].norm(dim=1), weights["a.weight"].norm(dim=1))
    larger = random_directions({"a.weight": scale * weights["a.weight"]}, seed=seed, normalization="filter")
    for direction, more in zip(directions, larger, strict=True):
        torch.testing.assert_close(more["a.weight"], scale * direction["a.weight"])
    assert all(math.isfinite(float(direction["a.weight"].sum())) for direction in directions)
