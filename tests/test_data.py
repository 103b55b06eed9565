import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gruland.data import Corpus, Encoded, TextDataModule, subset
from gruland.data.batches import Batches, LengthBuckets, LengthSorted, loader, padding
from gruland.data.labels import SENTIMENT
from gruland.data.prepared import duplicates
from gruland.data.sources import File, Imdb
from gruland.data.splits import NAMES, check_classes, cut, divide, limit_sizes, stratified_order
from gruland.embedding import UNKNOWN, load
from gruland.task import Task

CONF = Path(__file__).parents[1] / "conf"
WORDS = ["good", "bad", "a", "film", "the", ".", "n't", "did", "was"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    random = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.3f}' for x in random.normal(size=4))}" for word in WORDS]
    path = tmp_path_factory.mktemp("vectors") / "tiny.txt"
    path.write_text("\n".join(lines))
    return load(path)


def make_reviews(count, seed=0):
    """Texts of 1 to 30 words, all different, and their labels, every second positive."""
    random = np.random.default_rng(seed)
    texts = [
        f"{i} " + " ".join(random.choice([*WORDS[:5], "zzz"], size=random.integers(0, 30)))
        for i in range(count)
    ]
    return texts, np.arange(count) % 2


def write_csv(path, texts, labels):
    import pandas as pd

    pd.DataFrame(
        {"review": texts, "sentiment": np.where(np.asarray(labels) == 1, "positive", "negative")}
    ).to_csv(path, index=False)
    return path


def write_parquet(path, **columns):
    import pandas as pd

    pd.DataFrame(columns).to_parquet(path)
    return path


@pytest.fixture
def csv(tmp_path):
    return write_csv(tmp_path / "reviews.csv", *make_reviews(80))


def module(vocabulary, path, tmp_path, **settings):
    data = TextDataModule(vocabulary, path=str(path), cache_dir=str(tmp_path / "cache"), **settings)
    data.setup()
    return data


class Memory:
    """A source whose reviews are given; its file stands for their content."""

    def __init__(self, corpus, folder, name="memory"):
        self.name, self.corpus, self.path = name, corpus, folder / name
        self.path.write_text(name)

    def files(self, cache):
        return [self.path]

    def read(self, files):
        return self.corpus


class TestSplits:
    @pytest.mark.parametrize("counts", [(50, 50), (90, 10), (3, 40, 57), (1, 1, 98)])
    def test_every_stretch_is_stratified(self, counts):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
        order = stratified_order(labels, seed=3)
        assert sorted(order) == list(range(100))
        for start in range(0, 100, 7):
            for stop in range(start, 101, 9):
                found = np.bincount(labels[order[start:stop]], minlength=len(counts))
                assert np.all(np.abs(found - (stop - start) * np.array(counts) / 100) <= 2)

    def test_subsets_are_nested_seeded_and_stratified(self):
        labels = np.arange(100) % 2
        small, large = subset(labels, 20, 1), subset(labels, 60, 1)
        assert set(small) < set(large)
        assert labels[small].sum() == 10
        assert np.all(np.diff(small) > 0)
        np.testing.assert_array_equal(small, subset(labels, 20, 1))
        assert set(small) != set(subset(labels, 20, 2))
        np.testing.assert_array_equal(subset(labels, None, 1), np.arange(100))

    def test_subset_keeps_the_global_random_state(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        subset(np.arange(10) % 2, 4, 0)
        np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    @pytest.mark.parametrize("size", [0, -1, 11])
    def test_impossible_subsets(self, size):
        with pytest.raises(ValueError, match=f"{size} reviews .* expected 1 to 10"):
            subset(np.zeros(10), size, 0)

    def test_cut(self):
        labels = np.arange(1000) % 2
        parts = cut(labels, (0.5, 0.25, 0.25), seed=0)
        assert [len(part) for part in parts] == [500, 250, 250]
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
        assert [labels[part].sum() for part in parts] == [250, 125, 125]

    def test_rows_of_multilabel_tasks(self):
        labels = np.random.default_rng(0).integers(0, 2, size=(200, 3)).astype(np.float32)
        parts = cut(labels, (2, 1, 1), seed=0)
        assert [len(part) for part in parts] == [100, 50, 50]
        np.testing.assert_allclose(labels[parts[0]].mean(0), labels.mean(0), atol=0.05)

    def test_auto_and_official_keep_the_training_half(self):
        labels = np.arange(80) % 2
        official = np.array(["train"] * 40 + ["test"] * 40)
        for how in ("auto", "official"):
            parts = divide(labels, official, how, (0.5, 0.25, 0.25), seed=0)
            np.testing.assert_array_equal(parts["train"], np.arange(40))
            rest = np.concatenate([parts["validation"], parts["test"]])
            np.testing.assert_array_equal(np.sort(rest), np.arange(40, 80))
            assert len(parts["validation"]) == len(parts["test"]) == 20

    def test_three_official_parts_are_kept(self):
        official = np.array(["test", "train", "validation"] * 10)
        parts = divide(np.arange(30) % 2, official, "auto", (1, 1, 1), seed=0)
        for name in NAMES:
            assert set(official[parts[name]]) == {name}

    def test_random_divides_all(self):
        official = np.array(["train"] * 40 + ["test"] * 40)
        parts = divide(np.arange(80) % 2, official, "random", (0.5, 0.25, 0.25), seed=0)
        assert {name: len(part) for name, part in parts.items()} == {
            "train": 40,
            "validation": 20,
            "test": 20,
        }
        assert set(official[parts["train"]]) == {"train", "test"}

    def test_official_without_a_split_is_refused(self):
        with pytest.raises(ValueError, match=r"data\.split=official needs a source that has a split"):
            divide(np.arange(8) % 2, None, "official", (1, 1, 1), seed=0)

    def test_limits(self):
        available = {"train": 100, "validation": 50, "test": 30}
        assert limit_sizes(None, available) == available
        assert limit_sizes(10, available) == {"train": 10, "validation": 5, "test": 3}
        assert limit_sizes(1, available) == {"train": 1, "validation": 1, "test": 1}
        assert limit_sizes({"train": 7, "test": None}, available) == {
            "train": 7,
            "validation": 50,
            "test": 30,
        }

    @pytest.mark.parametrize(
        ("limit", "message"),
        [
            (101, r"data\.limit asks for 101 train reviews: expected 1 to 100"),
            ({"test": 31}, r"data\.limit asks for 31 test reviews: expected 1 to 30"),
            ({"dev": 3}, r"data\.limit names dev: expected train, validation, test"),
        ],
    )
    def test_impossible_limits(self, limit, message):
        with pytest.raises(ValueError, match=message):
            limit_sizes(limit, {"train": 100, "validation": 50, "test": 30})

    @pytest.mark.parametrize(
        ("official", "missing"),
        [(["train"] * 8, "validation and test reviews"), (["test", "dev"] * 4, "training reviews")],
    )
    def test_official_splits_of_which_one_is_empty_are_refused_by_name(self, official, missing):
        official = np.array(["validation" if name == "dev" else name for name in official])
        with pytest.raises(ValueError, match=rf"has no {missing}, all 8 are .*data\.split=random"):
            divide(np.arange(8) % 2, official, "auto", (1, 1, 1), seed=0)

    def test_class_counts(self):
        assert check_classes(np.array([0, 1, 1]), SENTIMENT, "test", True) == {"negative": 1, "positive": 2}
        for limited, remedy in ((True, "raise data.limit"), (False, "give more reviews")):
            said = f"the test split has no review of class positive among its 3: {remedy}"
            with pytest.raises(ValueError, match=said):
                check_classes(np.zeros(3, int), SENTIMENT, "test", limited)

    def test_rare_labels_have_to_be_in_train(self):
        task, labels = Task("multilabel", ("a", "b")), np.array([[1, 0], [1, 0]], np.float32)
        assert check_classes(labels, task, "test", True) == {"a": 2, "b": 0}
        with pytest.raises(ValueError, match="train split has no review of class b"):
            check_classes(labels, task, "train", True)


class TestImdb:
    def test_hub_without_a_network(self, vocabulary, tmp_path, monkeypatch):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            datasets, "load_dataset", lambda name: pytest.fail("asked a hub that does not answer")
        )
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        data = TextDataModule(vocabulary, Imdb(), cache_dir=str(tmp_path))
        with pytest.raises(
            OSError, match=r"stanfordnlp/imdb .*go online.*data\.path=FILE.*data=reviews"
        ) as caught:
            data.setup()
        assert "\n" not in str(caught.value)
        assert not [path for path in tmp_path.iterdir() if path.is_dir()]

    def test_hub_is_asked_once(self, vocabulary, tmp_path, monkeypatch):
        import datasets

        texts, labels = make_reviews(16)
        halves = {
            "train": datasets.Dataset.from_dict({"text": texts[:8], "label": labels[:8]}),
            "test": datasets.Dataset.from_dict({"text": texts[8:], "label": labels[8:]}),
            "unsupervised": datasets.Dataset.from_dict({"text": ["?"], "label": [-1]}),
        }
        calls = []
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(datasets, "load_dataset", lambda name: calls.append(name) or halves)
        for _ in range(2):
            data = TextDataModule(vocabulary, Imdb(), cache_dir=str(tmp_path))
            data.setup()
        assert calls == ["stanfordnlp/imdb"]
        assert data.splits["train"].texts == texts[:8]
        assert data.report["sizes"] == {"train": 8, "validation": 4, "test": 4}


class TestEncoded:
    encoded = Encoded(np.array([5, 6, 7, 8, 9, 4], np.int32), np.array([0, 3, 4, 6]))

    def test_sequences(self):
        assert self.encoded.size == 3
        assert self.encoded.lengths.tolist() == [3, 1, 2]
        assert [self.encoded.sequence(i).tolist() for i in range(3)] == [[5, 6, 7], [8], [9, 4]]

    @pytest.mark.parametrize("indices", [[2, 0], [1], [0, 0, 2], []])
    def test_take(self, indices):
        taken = self.encoded.take(indices)
        assert taken.tokens.dtype == np.int32
        found = [taken.sequence(i).tolist() for i in range(taken.size)]
        assert found == [self.encoded.sequence(i).tolist() for i in indices]

    def test_padded(self):
        tokens, lengths = self.encoded.padded()
        assert tokens.tolist() == [[5, 6, 7], [8, 0, 0], [9, 4, 0]]
        assert lengths.tolist() == [3, 1, 2]
        assert tokens.dtype == lengths.dtype == torch.int64


class TestBatches:
    lengths = np.random.default_rng(0).integers(1, 200, size=1003)

    def order(self, seed=0, epoch=0, batch_size=8):
        buckets = LengthBuckets(self.lengths, batch_size, seed)
        buckets.set_epoch(epoch)
        assert len(list(buckets)) == len(buckets)
        return [batch.tolist() for batch in buckets]

    def test_every_review_comes_once(self):
        batches = self.order()
        assert sorted(i for batch in batches for i in batch) == list(range(1003))
        assert sorted({len(batch) for batch in batches}) == [3, 8]

    def test_order_is_a_function_of_seed_and_epoch(self):
        assert self.order() == self.order()
        assert self.order() != self.order(epoch=1)
        assert self.order() != self.order(seed=1)
        assert {tuple(b) for b in self.order()} != {tuple(b) for b in self.order(epoch=1)}, (
            "batches were reused"
        )

    def test_batches_hold_reviews_of_like_length_in_any_order(self):
        longest = [self.lengths[batch].max() for batch in self.order()]
        random = np.random.default_rng(0).permutation(1003)
        shuffled = [random[i : i + 8] for i in range(0, 1003, 8)]
        assert padding(LengthBuckets(self.lengths, 8, 0), self.lengths) < 0.1
        assert padding(shuffled, self.lengths) > 0.3
        assert longest != sorted(longest)
        assert longest != sorted(longest, reverse=True)

    def test_padding_share(self):
        assert padding([np.array([0, 1]), np.array([2])], np.array([4, 2, 3])) == pytest.approx(2 / 11)

    def test_sorted_batches(self):
        batches = list(LengthSorted(self.lengths, 100))
        lengths = self.lengths[np.concatenate(batches)]
        assert np.all(np.diff(lengths) <= 0)
        assert sorted(np.concatenate(batches)) == list(range(1003))

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_loader(self, num_workers):
        random = np.random.default_rng(0)
        encoded = Encoded(
            random.integers(1, 50, self.lengths.sum(), dtype=np.int32),
            np.concatenate([[0], np.cumsum(self.lengths)]),
        )
        labels = np.arange(1003)
        before = torch.get_rng_state()
        batches = list(loader(Batches(encoded, labels), LengthBuckets(self.lengths, 8, 0), num_workers))
        assert torch.equal(before, torch.get_rng_state()), "a loader moved torch's global random state"
        assert [batch.labels.tolist() for batch in batches] == self.order()
        for batch in batches[:5]:
            assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
            for row, length, label in zip(*batch[:3], strict=True):
                assert row[:length].tolist() == encoded.sequence(label).tolist()
                assert not row[length:].any()


class TestModule:
    def test_setup(self, vocabulary, csv, tmp_path):
        data = module(vocabulary, csv, tmp_path)
        texts, labels = make_reviews(80)
        assert data.task == SENTIMENT
        assert data.report["sizes"] == data.report["available"] == {"train": 40, "validation": 20, "test": 20}
        assert data.report["class_counts"]["test"] == {"negative": 10, "positive": 10}
        assert not data.report["limited"]
        ids = np.concatenate([data.splits[name].ids for name in NAMES])
        assert sorted(ids) == list(range(80))
        for part in data.splits.values():
            assert part.texts == [texts[i] for i in part.ids]
            np.testing.assert_array_equal(part.labels, labels[part.ids])
            encoded = data.encode(part.texts)
            np.testing.assert_array_equal(encoded.tokens, part.encoded.tokens)
            np.testing.assert_array_equal(encoded.offsets, part.encoded.offsets)

    def test_encode(self, vocabulary, csv, tmp_path):
        data = module(vocabulary, csv, tmp_path, max_length=3, clean="breaks")
        encoded = data.encode(["A good film.", "Didn't<br />xyzzy", "", "  ", "xyzzy plugh"])
        expected = [["a", "good", "film"], ["did", "n't", "?"], ["?"], ["?"], ["?", "?"]]
        assert [encoded.sequence(i).tolist() for i in range(5)] == [
            vocabulary.ids(w).tolist() for w in expected
        ]
        assert data.encode([]).size == 0

    def test_an_empty_review_and_one_of_unknown_words(self, vocabulary, tmp_path):
        texts = ["", "xyzzy plugh", *(f"film {i}" for i in range(6))]
        corpus = Corpus(texts, np.arange(8) % 2, np.array(["train"] * 4 + ["test"] * 4), SENTIMENT)
        data = TextDataModule(vocabulary, Memory(corpus, tmp_path), cache_dir=str(tmp_path))
        data.setup()
        assert data.splits["train"].encoded.sequence(0).tolist() == [UNKNOWN]
        assert data.splits["train"].encoded.sequence(1).tolist() == [UNKNOWN] * 2
        assert data.report["lengths"]["empty"] == {"train": 1, "validation": 0, "test": 0}

    def test_report(self, vocabulary, tmp_path):
        texts = ["good film", "good film", "bad film", "zzz zzz film the", "good film", "bad", "bad", "the"]
        corpus = Corpus(texts, np.array([1, 1, 0, 0] * 2), np.array(["train"] * 4 + ["test"] * 4), SENTIMENT)
        data = TextDataModule(
            vocabulary, Memory(corpus, tmp_path), max_length=3, batch_size=2, cache_dir=str(tmp_path)
        )
        data.setup()
        report = data.report
        assert report["duplicates"]["within"]["train"] == 1
        assert sum(report["duplicates"]["across"].values()) in (
            2,
            3,
        )  # "bad" may lie in both halves of the test part
        assert report["coverage"]["tokens"]["train"] == pytest.approx(7 / 9)
        assert report["coverage"]["words"] == pytest.approx(4 / 5)
        assert report["lengths"]["cut"] == {"train": 1, "validation": 0, "test": 0}
        assert report["padding"] == pytest.approx(1 / 10)
        assert report["vocabulary"] == {"name": "tiny", "hash": vocabulary.hash, "rows": 11, "dimension": 4}
        assert report["source"] == "memory"

    def test_second_start_reads_the_cache_alone(self, vocabulary, csv, tmp_path, monkeypatch):
        first = module(vocabulary, csv, tmp_path)
        monkeypatch.setattr(File, "read", lambda self, files: pytest.fail("read the source"))
        second = module(vocabulary, csv, tmp_path)
        assert second.report == first.report
        for name in NAMES:
            for one, two in zip(first.splits[name].encoded, second.splits[name].encoded, strict=True):
                np.testing.assert_array_equal(one, two)

    @pytest.mark.parametrize(
        "change",
        [
            {"split_seed": 1},
            {"fractions": (0.4, 0.3, 0.3)},
            {"limit": 10},
            {"limit": {"test": 4}},
            {"max_length": 5},
        ],
    )
    def test_key_holds_every_setting(self, vocabulary, csv, tmp_path, change):
        first = module(vocabulary, csv, tmp_path)
        second = module(vocabulary, csv, tmp_path, **change)
        assert first.report["fingerprint"] != second.report["fingerprint"]
        assert module(vocabulary, csv, tmp_path).report == first.report

    def test_key_holds_the_source_and_the_cleaning(self, vocabulary, tmp_path):
        texts, labels = make_reviews(20)
        path = write_csv(tmp_path / "a.csv", [f"<br />{text}" for text in texts], labels)
        plain, cleaned = (
            module(vocabulary, path, tmp_path),
            module(vocabulary, path, tmp_path, clean="breaks"),
        )
        assert plain.report["lengths"]["mean"]["train"] == pytest.approx(
            cleaned.report["lengths"]["mean"]["train"] + 4
        )
        write_csv(path, texts, labels)
        assert module(vocabulary, path, tmp_path).report["fingerprint"] == cleaned.report["fingerprint"]

    def test_key_holds_the_name_of_a_reading(self, vocabulary, tmp_path):
        texts, labels = make_reviews(20)
        for name, task in (("two", SENTIMENT), ("classes", Task("multiclass", ("no", "yes")))):
            source = Memory(Corpus(texts, labels, None, task), tmp_path)
            source.name = name
            data = TextDataModule(vocabulary, source, cache_dir=str(tmp_path / "cache"))
            data.setup()
            assert data.task == task

    def test_key_holds_the_vocabulary(self, vocabulary, csv, tmp_path):
        other = tmp_path / "other.txt"
        other.write_text("good 1 2\n")
        first, second = module(vocabulary, csv, tmp_path), module(load(other), csv, tmp_path)
        assert first.report["fingerprint"] != second.report["fingerprint"]
        assert second.splits["train"].encoded.tokens.max() == 2

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
    @pytest.mark.parametrize("name", ["train-tokens.npy", "test-labels.npy", "facts.json"])
    def test_damaged_cache_is_made_again(self, vocabulary, csv, tmp_path, caplog, name, damage):
        before = module(vocabulary, csv, tmp_path).report
        (file,) = (tmp_path / "cache").glob(f"reviews-*/{name}")
        content = file.read_bytes()
        if damage == "remove":
            file.unlink()
        else:
            kept = {
                "cut": content[:-5],
                "empty": b"",
                "flip": content[:-8] + bytes([content[-8] ^ 1]) + content[-7:],
            }
            file.write_bytes(kept[damage])
        caplog.clear()
        assert module(vocabulary, csv, tmp_path).report == before
        assert "damaged" in caplog.text

    def test_limit_is_a_stratified_part_of_the_same_split(self, vocabulary, csv, tmp_path, caplog):
        whole, small, large = (module(vocabulary, csv, tmp_path, limit=limit) for limit in (None, 10, 20))
        for name, size in {"train": 10, "validation": 5, "test": 5}.items():
            ids = [set(data.splits[name].ids) for data in (small, large, whole)]
            assert len(ids[0]) == size
            assert ids[0] < ids[1] < ids[2]
        assert small.report["limited"]
        with caplog.at_level(logging.INFO, "gruland"):
            module(vocabulary, csv, tmp_path, limit=10)
        assert "10 of 40 / 5 of 20 / 5 of 20 reviews (train / validation / test)" in caplog.text

    def test_loaders(self, vocabulary, csv, tmp_path):
        data = module(vocabulary, csv, tmp_path, batch_size=8)
        train = data.splits["train"]

        def labels():
            return [batch.labels.tolist() for batch in data.train_dataloader()]

        first = labels()
        assert first == labels()
        data.set_epoch(1)
        assert first != labels()
        data.set_epoch(0)
        assert first == labels()
        assert sum(map(sum, first)) == train.labels.sum()
        for name, batches in (("validation", data.val_dataloader()), ("test", data.test_dataloader())):
            assert sum(len(batch.labels) for batch in batches) == len(data.splits[name].labels)

    def test_set_epoch_reaches_loaders_in_use(self, vocabulary, csv, tmp_path):
        data = module(vocabulary, csv, tmp_path, batch_size=8)
        batches = data.train_dataloader()
        first = [batch.tokens.tolist() for batch in batches]
        data.set_epoch(3)
        later = [batch.tokens.tolist() for batch in batches]
        assert first != later
        assert later == [batch.tokens.tolist() for batch in data.train_dataloader()]

    @pytest.mark.filterwarnings("ignore:.*does not have many workers")
    def test_lightning_sets_the_epoch(self, vocabulary, csv, tmp_path):
        import pytorch_lightning as pl

        class Recorder(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

            def training_step(self, batch, index):
                self.seen.append(batch.tokens.tolist())
                return self.weight * 1.0

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=0.1)

        data, recorder = module(vocabulary, csv, tmp_path, batch_size=8, seed=5), Recorder()
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            log_every_n_steps=1,
        )
        trainer.fit(recorder, data.train_dataloader())
        expected = []
        for epoch in range(3):
            data.set_epoch(epoch)
            expected += [batch.tokens.tolist() for batch in data.train_dataloader()]
        assert recorder.seen == expected

    @pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
    def test_more_than_two_classes(self, vocabulary, tmp_path, kind):
        texts, _ = make_reviews(60)
        labels = np.arange(60) % 3
        if kind == "multilabel":
            labels = np.eye(3, dtype=np.float32)[labels] + np.eye(3, dtype=np.float32)[(labels + 1) % 3]
        task = Task(kind, ("a", "b", "c"))
        source = Memory(Corpus(texts, labels, None, task), tmp_path)
        for _ in range(2):  # from the source, then from the cache
            data = TextDataModule(vocabulary, source, batch_size=10, cache_dir=str(tmp_path / "cache"))
            data.setup()
            assert data.task == task
            assert set(data.report["class_counts"]["train"]) == {"a", "b", "c"}
            for batch in data.train_dataloader():
                assert batch.labels.dtype == (torch.int64 if kind == "multiclass" else torch.float32)
                assert batch.labels.shape == ((10,) if kind == "multiclass" else (10, 3))

    def test_class_missing_from_a_split(self, vocabulary, tmp_path):
        path = write_csv(tmp_path / "a.csv", ["x", "y", "z", "u"], [1, 0, 0, 0])
        with pytest.raises(ValueError, match=r"split has no review of class positive .*data\.split"):
            module(vocabulary, path, tmp_path)
        assert not list((tmp_path / "cache").glob("reviews-*"))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"split": "officail"}, r"data\.split=officail is unknown: expected auto or random or official"),
            ({"clean": "html"}, r"data\.clean=html is unknown: expected none or breaks"),
            ({"fractions": (1, 1)}, r"data\.fractions=\[1, 1\]: expected three numbers above 0"),
            ({"fractions": (1, 1, 0)}, "expected three numbers above 0"),
            ({"fractions": ("a", 1, 1)}, "expected three numbers above 0"),
            ({"max_length": 0}, r"data\.max_length=0: expected .* at least 1, or null for whole reviews"),
            ({"max_length": "long"}, r"data\.max_length=long: expected a whole number"),
            ({"limit": 0.5}, r"data\.limit=0\.5: expected a whole number of at least 1, or null"),
            ({"limit": {"train": 0}}, r"data\.limit=0: expected a whole number"),
            ({"limit": 41}, r"data\.limit asks for 41 train reviews: expected 1 to 40"),
            ({"split_seed": -1}, r"data\.split_seed=-1: expected a whole number of at least 0"),
            ({"batch_size": 0}, r"data\.batch_size=0: expected a whole number of at least 1"),
            ({"num_workers": -1}, r"data\.num_workers=-1: expected"),
            ({"split": "official"}, r"data\.split=official needs a source that has a split"),
        ],
    )
    def test_wrong_settings(self, vocabulary, csv, tmp_path, settings, message):
        with pytest.raises(ValueError, match=message):
            module(vocabulary, csv, tmp_path, **settings)

    def test_cache_below_a_file(self, vocabulary, csv):
        data = TextDataModule(vocabulary, path=str(csv), cache_dir=str(csv / "cache"))
        with pytest.raises(OSError, match=r"cache folder .*reviews\.csv/cache cannot be used"):
            data.setup()


class TestLimits:
    """What is too long, or not known at all, is refused in a line."""

    def test_a_review_that_is_too_long_is_refused_unless_it_is_cut(self, vocabulary, tmp_path):
        texts, labels = make_reviews(20)
        texts[7] = "good film " * 60_000
        path = write_csv(tmp_path / "a.csv", texts, labels)
        with pytest.raises(
            ValueError, match=r"review 8 of the source: a review of 120,000 words .*data\.max_length"
        ):
            module(vocabulary, path, tmp_path)
        report = module(vocabulary, path, tmp_path, max_length=50).report
        assert max(report["lengths"]["longest"].values()) == 50
        assert sum(report["lengths"]["cut"].values()) == 1

    def test_a_text_of_many_megabytes_is_refused_before_it_is_cut_into_words(self, vocabulary, csv, tmp_path):
        data = module(vocabulary, csv, tmp_path)
        start = time.perf_counter()
        with pytest.raises(
            ValueError, match="a review of 50,000,000 characters is too long to be read whole"
        ):
            data.encode(["good film " * 5_000_000])
        assert time.perf_counter() - start < 1

    def test_a_long_review_does_not_stretch_a_batch_of_others(self):
        lengths = np.array([5, 90_000, 7, 40_000, 6] + [10] * 300)
        batches = list(LengthSorted(lengths, 256))
        assert sorted(np.concatenate(batches)) == list(range(305))
        assert max(lengths[batch].max() * len(batch) for batch in batches) <= 2**20
        assert len(batches) < 30

    def test_batches_of_usual_reviews_are_those_of_the_batch_size(self):
        lengths = np.random.default_rng(0).integers(1, 2_500, size=1000)
        assert [len(batch) for batch in LengthSorted(lengths, 256)] == [256, 256, 256, 232]

    def test_vectors_that_know_hardly_a_word_are_refused_with_words_of_both_sides(self, csv, tmp_path):
        path = tmp_path / "shouted.txt"
        path.write_text("".join(f"{word} 1 2\n" for word in [".", ",", *(word.upper() for word in WORDS)]))
        message = r"0\.0% of the words of the reviews have a vector in shouted: the reviews have .*, the vectors 'GOOD'"
        with pytest.raises(ValueError, match=message) as caught:
            module(load(path), csv, tmp_path)
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "cache").glob("reviews-*"))

    def test_labels_that_are_changed_in_place_are_read_again(self, vocabulary, tmp_path, monkeypatch):
        """With the same size and time stamp; the clock stands ahead, so that hashes are remembered."""
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        texts, labels = make_reviews(20)
        path = tmp_path / "a.csv"
        content = "review,sentiment\n" + "".join(f"{t},{y}\n" for t, y in zip(texts, labels, strict=True))
        path.write_text(content)
        stat, before = path.stat(), module(vocabulary, path, tmp_path).report
        while path.stat().st_ctime_ns == stat.st_ctime_ns:
            path.write_text(
                "".join({"0": "1", "1": "0"}.get(c, c) if d == "," else c for c, d in _with_last(content))
            )
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_size == stat.st_size
        after = module(vocabulary, path, tmp_path).report
        assert after["fingerprint"] != before["fingerprint"]


def _with_last(text):
    """Each character with the one before it."""
    return zip(text, " " + text, strict=False)


class TestConfigs:
    def test_reviews(self, vocabulary):
        data = instantiate(
            OmegaConf.load(CONF / "data/reviews.yaml"), vocabulary=vocabulary, limit=40, seed=1
        )
        data.setup()
        assert data.report["available"] == {"train": 12_500, "validation": 6_250, "test": 6_250}
        assert data.report["sizes"] == {"train": 40, "validation": 20, "test": 20}
        assert data.report["lengths"]["longest"]["train"] <= 200
        assert "<br />" in "".join(data.splits["train"].texts)

    def test_imdb_with_a_path(self, vocabulary, csv):
        config = OmegaConf.load(CONF / "data/imdb.yaml")
        data = instantiate(config, vocabulary=vocabulary, path=str(csv), limit={"train": 10})
        data.setup()
        assert data.report["sizes"] == {"train": 10, "validation": 20, "test": 20}

    def test_reuters_and_the_treebank_are_read_by_their_columns(self, vocabulary, tmp_path):
        """Small files of the same columns."""
        split = ["train"] * 8 + ["dev"] * 4 + ["test"] * 4
        sentences = write_parquet(
            tmp_path / "sst.parquet",
            text=[f"good film {i}" for i in range(48)],
            split=split * 3,
            label5=[*[0, 1, 2, 3, 4] * 9, 0, 1, 2],
            label2=[
                [0, 1, -1][i // 16] if i % 2 else 1 - [0, 1, -1][i // 16] if i < 32 else -1 for i in range(48)
            ],
        )
        stories = write_parquet(
            tmp_path / "reuters.parquet",
            text=[f"good film {i}" for i in range(32)],
            modapte=(["train"] * 4 + ["test"] * 3 + ["unused"]) * 4,
            r90=[["earn"], ["acq", "earn"], [], ["acq"]] * 8,
        )
        found = {}
        for name, path in (("sst2", sentences), ("sst5", sentences), ("reuters", stories)):
            node = OmegaConf.merge(
                OmegaConf.load(CONF / "data/reviews.yaml"),
                OmegaConf.load(CONF / f"data/{name}.yaml"),
                {"path": str(path)},
            )
            node.pop("defaults")
            found[name] = instantiate(node, vocabulary=vocabulary)
            found[name].setup()
        assert found["sst2"].task == Task("binary", ("negative", "positive"))
        assert found["sst2"].report["passed_over"] == {"rows without a label": 16}
        assert found["sst5"].task.classes[0] == "very negative"
        assert found["sst5"].report["sizes"] == {"train": 24, "validation": 12, "test": 12}
        assert found["reuters"].task == Task("multilabel", ("acq", "earn"))
        assert found["reuters"].report["passed_over"] == {
            "rows without a label": 8,
            "rows of another split": 4,
        }

    def test_embeddings(self, tmp_path):
        file = tmp_path / "file.txt"
        file.write_text("good 1 2\n")
        for name, overrides in {"glove_6b_50d": {}, "file": {"path": str(file)}}.items():
            vocabulary = instantiate(OmegaConf.load(CONF / f"embedding/{name}.yaml"), **overrides)
            assert vocabulary.freeze
            assert vocabulary.dimension == (2 if overrides else 50)


@pytest.mark.skipif("GRULAND_DATA" not in os.environ, reason="GRULAND_DATA names no folder with imdb.parquet")
def test_full_imdb():
    path = Path(os.environ["GRULAND_DATA"]) / "imdb.parquet"
    corpus = File(path).read([path])
    rows = divide(corpus.labels, corpus.splits, "auto", (0.5, 0.25, 0.25), seed=0)
    assert {name: len(part) for name, part in rows.items()} == {
        "train": 25_000,
        "validation": 12_500,
        "test": 12_500,
    }
    assert all(corpus.labels[part].mean() == 0.5 for part in rows.values())
    found = duplicates({name: [corpus.texts[i] for i in part] for name, part in rows.items()})
    assert found["within"]["train"] == 96
    within, across = found["within"], found["across"]
    assert within["validation"] + within["test"] + across["validation-test"] == 199
    assert across["train-validation"] + across["train-test"] == 123
