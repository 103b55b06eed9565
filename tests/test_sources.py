"""Files of labelled texts are read whole, or refused in one line that names the place and the way out."""

import gzip
import json
import logging
import zipfile
from typing import ClassVar

import numpy as np
import pytest

from gruland.data import Corpus, TextDataModule
from gruland.data.labels import SENTIMENT, read_labels
from gruland.data.sources import File, Reviews
from gruland.embedding import load
from gruland.task import Task


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("good 1 2\nbad 2 1\nfilm 1 1\n")
    return load(path)


def read(path, **columns):
    source = File(path, **columns)
    return source.read(source.files(path.parent))


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def rows_of(corpus):
    """Texts with the names of their classes, in any order."""
    if corpus.task.kind == "multilabel":
        names = [{c for c, one in zip(corpus.task.classes, row, strict=True) if one} for row in corpus.labels]
    else:
        names = [corpus.task.classes[label] for label in corpus.labels]
    splits = [None] * len(names) if corpus.splits is None else corpus.splits.tolist()
    return sorted(zip(corpus.texts, map(str, names), splits, strict=True))


def refused(path, message, **columns):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read(path, **columns)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


class TestFormats:
    texts: ClassVar = ['Good, "very"\ngood', "bad <br />", "NA", "schön\u2028weit\x85"]
    labels = ("positive", "negative", "positive", "negative")
    splits = ("train", "train", "test", "test")

    def every_kind(self, folder):
        import datasets
        import pandas as pd

        table = pd.DataFrame({"text": self.texts, "label": self.labels, "split": self.splits})
        for suffix, separator in ((".csv", ","), (".tsv", "\t")):
            table.to_csv(folder / f"a{suffix}", index=False, sep=separator)
        written(folder / "a.jsonl", table.to_json(orient="records", lines=True))
        table.to_parquet(folder / "a.parquet")
        datasets.Dataset.from_dict(dict(table)).save_to_disk(folder / "saved")
        for i, (text, label, split) in enumerate(zip(self.texts, self.labels, self.splits, strict=True)):
            for file in (folder / "aclImdb" / split / label[:3] / f"{i}_8.txt",):
                file.parent.mkdir(parents=True, exist_ok=True)
                written(file, text)
        for missing in ("train/neg", "train/pos", "test/neg", "test/pos"):
            assert (folder / "aclImdb" / missing).is_dir()
        return ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "saved", "aclImdb"]

    def test_all_kinds_of_files_agree(self, tmp_path):
        expected = sorted(zip(self.texts, self.labels, self.splits, strict=True))
        for name in self.every_kind(tmp_path):
            corpus = read(tmp_path / name)
            assert rows_of(corpus) == expected, name
            assert corpus.task == SENTIMENT
            assert corpus.labels.dtype == np.int64
            assert corpus.passed_over == {}

    @pytest.mark.parametrize("header", ["review,sentiment", "text,label", "Text,LABEL", "review,label"])
    def test_the_usual_names_of_columns_are_found(self, tmp_path, header):
        corpus = read(written(tmp_path / "a.csv", f"{header}\nfine,1\ndull,0\n"))
        assert rows_of(corpus) == [("dull", "negative", None), ("fine", "positive", None)]

    def test_other_columns_are_named(self, tmp_path):
        path = written(tmp_path / "a.csv", "id,body,stars,text,part\n1,fine,pos,x,dev\n2,dull,neg,y,train\n")
        corpus = read(path, text="body", label="stars", split_column="part")
        assert rows_of(corpus) == [("dull", "negative", "train"), ("fine", "positive", "validation")]

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"text": "boddy", "label": "stars"}, r"no column boddy \(data\.text\).*did you mean body\?"),
            ({"text": "body"}, r"no column label or sentiment: give data\.label=COLUMN, one of body, stars"),
        ],
    )
    def test_a_column_that_is_missing_is_named_with_those_there_are(self, tmp_path, columns, message):
        refused(written(tmp_path / "a.csv", "body,stars\nfine,pos\ndull,neg\n"), message, **columns)
        refused(parquet(tmp_path / "a.parquet", body=["a"], stars=["pos"]), message, **columns)

    def test_two_columns_of_usual_names_have_to_be_chosen_from(self, tmp_path):
        path = written(tmp_path / "a.csv", "text,review,label\nx,y,1\nz,u,0\n")
        refused(path, r"the columns text and review: give data\.text=COLUMN")
        assert read(path, text="review").texts == ["y", "u"]

    def test_another_separator_is_guessed_at(self, tmp_path):
        refused(
            written(tmp_path / "a.csv", "review;sentiment\nfine;pos\n"), "seem to be separated by semicolons"
        )

    def test_packaged_reviews(self, tmp_path):
        corpus = Reviews().read(Reviews().files(tmp_path))
        assert len(corpus.texts) == 25_000
        assert np.bincount(corpus.labels).tolist() == [12_500, 12_500]
        assert corpus.splits is None
        assert corpus.texts[0].startswith("I rented I AM CURIOUS-YELLOW")


class TestCsv:
    """What a lenient reader takes for something else."""

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                "review,sentiment\nGreat, funny film,positive\nBad,negative\n",
                "line 2 has 3 fields, the header 2",
            ),
            ("review,sentiment\nGreat film,1,0\nBad film,0,0\n", "line 2 has 3 fields, the header 2"),
            ("review,sentiment\nx,positive\ny\n", "line 3 has 1 field, the header 2"),
            (
                'review,sentiment\n"Open,positive\nNext,negative\nLast "one",positive\n',
                "line 2 is no row of a CSV",
            ),
            (
                'id,review,sentiment\n"1","Fine \\"film\\", really",1\n"2","Bad",0\n',
                "line 2 is no row of a CSV",
            ),
            ('review,sentiment\na,positive\n"b\nc",negative\n"d,positive\n', "line 5 is no row of a CSV"),
            (
                'review,sentiment\n"Open,positive\nNext",negative\nMore,negative\n',
                "line 2: a quote that is opened",
            ),
            ("review,sentiment,review\na,1,b\nc,0,d\n", "has the column review twice"),
            ("review,sentiment\n", "holds no reviews"),
            ("", "is empty"),
            ("review,sentiment\nx,positive\ny,\n", "line 3 has the label '': expected a class"),
            ("review,sentiment\nx,positive\ny,positive\nz,", "line 4 has the label ''"),
        ],
    )
    def test_what_is_not_well_formed_is_refused_with_its_line(self, tmp_path, content, message):
        refused(written(tmp_path / "a.csv", content), message)

    def test_a_backslash_that_hides_a_quote_is_told_how_to_write_it(self, tmp_path):
        path = written(tmp_path / "a.csv", 'review,sentiment\n"Fine \\"film\\", really",1\n"Bad",0\n')
        refused(path, r'write quotes inside them twice \(""\)')

    def test_a_surplus_column_that_the_header_names_is_read_right(self, tmp_path):
        corpus = read(written(tmp_path / "a.csv", "review,sentiment,x\nGreat film,1,0\nBad film,0,0\n"))
        assert rows_of(corpus) == [("Bad film", "negative", None), ("Great film", "positive", None)]

    def test_texts_stay_whole(self, tmp_path):
        """A NUL, a carriage return, a very long text, quotes that stand in the middle."""
        texts = ["a\0b", "a\rb", "a\r\nb\r\nc", "good " * 40_000, 'The "x" y', "", " "]
        path = tmp_path / "a.csv"
        import csv

        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("review", "sentiment"), *((t, i % 2) for i, t in enumerate(texts))])
        assert read(path).texts == texts

    def test_a_byte_order_mark_is_no_part_of_the_header(self, tmp_path):
        assert read(written(tmp_path / "a.csv", "\ufeffreview,sentiment\nx,1\ny,0\n")).texts == ["x", "y"]

    def test_blank_lines_are_counted(self, tmp_path):
        corpus = read(written(tmp_path / "a.csv", "review,sentiment\nx,1\n\ny,0\n\n\n"))
        assert corpus.texts == ["x", "y"]
        assert corpus.passed_over == {"blank lines": 3}

    def test_line_numbers_count_the_lines_of_texts(self, tmp_path):
        refused(
            written(tmp_path / "a.csv", 'review,sentiment\n"a\nb\nc",1\n\nd,0\ne,0,1\n'),
            "line 7 has 3 fields",
        )

    def test_a_tsv_without_quoting_is_read_as_it_stands(self, tmp_path):
        """GLUE's files write quotes as they come."""
        path = written(tmp_path / "a.tsv", 'sentence\tlabel\n" open\t1\na "b" c\t0\n')
        assert read(path, text="sentence").texts == ['" open', 'a "b" c']
        refused(written(tmp_path / "b.tsv", 'text\tlabel\n"a \\"b\\" c"\t1\nd\t0\n'), "line 2 is no row")


class TestJsonLines:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "x", "label": 1', "line 2 is no JSON"),
            ('["x", 1]', "line 2 is no object"),
            ('{"text": "x", "text": "y", "label": 1}', "line 2 is no JSON .a key comes twice"),
            ('{"text": "\\ud83d", "label": 1}', "line 2 holds half a surrogate pair"),
            ('{"text": "x"}', "line 2 has the label None: expected a class"),
            ('{"text": "x", "label": NaN}', "line 2 has the label nan: expected a class"),
            ('{"text": "x", "label": 0.5}', r"line 2 has the label 0\.5: expected the name or the number"),
            ('{"text": "x", "label": {}}', r"line 2 has the label {}: expected the name or the number"),
            ('{"text": "x", "label": [1]}', "line 1 has one label, others have a list"),
            ('{"text": 3, "label": 1}', "line 2 is no text but 3"),
            ('{"label": 1}', "line 2 is no text but None"),
        ],
    )
    def test_what_is_no_review_is_refused_with_its_line(self, tmp_path, line, message):
        refused(written(tmp_path / "a.jsonl", '{"text": "x", "label": 0}\n' + line + "\n"), message)

    def test_line_separators_inside_a_text_are_no_line_ends(self, tmp_path):
        path = written(tmp_path / "a.jsonl", '{"text": "a\u2028b", "label": 0}\n\n{"text": "c", "label": 1}')
        corpus = read(path)
        assert corpus.texts == ["a\u2028b", "c"]
        assert corpus.passed_over == {"blank lines": 1}


class TestParquet:
    def test_what_is_incomplete_is_refused_with_its_row(self, tmp_path):
        path = tmp_path / "a.parquet"
        refused(parquet(path, text=["x", None], label=[0, 1]), "row 2 is no text but None")
        refused(parquet(path, text=["x", "y"], label=[0, None]), "row 2 has the label None")
        refused(
            parquet(path, text=["x"], label=[1], split=["tset"]), "row 1 has the split 'tset', expected train"
        )
        refused(written(path, b"PAR1"), "is no readable Parquet file")
        refused(written(path, "text,label\n"), "is no readable Parquet file")

    def test_names_of_classes_that_the_file_holds_are_taken(self, tmp_path):
        import datasets

        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["world", "sports", "arts"]),
            }
        )
        table = datasets.Dataset.from_dict({"text": list("abc"), "label": [2, 0, 1]}, features=features)
        table.to_parquet(tmp_path / "a.parquet")
        table.save_to_disk(tmp_path / "saved")
        datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "parts")
        for name in ("a.parquet", "saved", "parts"):
            corpus = read(tmp_path / name)
            assert corpus.task == Task("multiclass", ("arts", "sports", "world"))
            assert {row[:2] for row in rows_of(corpus)} == {("a", "arts"), ("b", "world"), ("c", "sports")}
        assert set(corpus.splits) == {"train", "test"}


class TestClasses:
    labels: ClassVar = {
        "numbers": ([10, 2, 2, 1], Task("multiclass", ("1", "2", "10")), [2, 1, 1, 0]),
        "whole floats": ([1.0, 2.0, 2.0, 3.0], Task("multiclass", ("1", "2", "3")), [0, 1, 1, 2]),
        "names": (["b", " a", "b", "c "], Task("multiclass", ("a", "b", "c")), [1, 0, 1, 2]),
        "two names": (["spam", "ham", "ham", "spam"], Task("binary", ("ham", "spam")), [1, 0, 0, 1]),
        "polarity": ([-1, 1, 1, -1], Task("binary", ("-1", "1")), [0, 1, 1, 0]),
        "truth": ([True, False, False, True], Task("binary", ("false", "true")), [1, 0, 0, 1]),
        "sentiments": (["Pos", "0", "NEGATIVE", "1"], SENTIMENT, [1, 0, 0, 1]),
    }

    @pytest.mark.parametrize("kind", labels)
    def test_classes_come_from_the_labels(self, kind):
        values, task, numbers = self.labels[kind]
        corpus = Corpus.of(list("abcd"), values)
        assert (corpus.task, corpus.labels.tolist()) == (task, numbers)

    @pytest.mark.parametrize("kind", ["numbers", "names", "two names", "sentiments"])
    def test_every_format_gives_the_same_classes(self, tmp_path, kind):
        values, task, numbers = self.labels[kind]
        pairs = list(zip("abcd", values, strict=True))
        files = [
            written(
                tmp_path / "a.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in pairs)
            ),
            parquet(tmp_path / "a.parquet", text=list("abcd"), label=values),
            written(
                tmp_path / "a.jsonl",
                "\n".join(json.dumps({"text": text, "label": label}) for text, label in pairs),
            ),
        ]
        for file in files:
            corpus = read(file)
            assert (corpus.task, corpus.labels.tolist()) == (task, numbers)

    def test_lists_of_labels_make_a_multilabel_task(self, tmp_path):
        values = [["a", "b"], ["c"], [], ["b"]]
        files = [
            parquet(tmp_path / "a.parquet", text=list("xyzu"), label=values),
            written(
                tmp_path / "a.jsonl",
                "\n".join(
                    json.dumps({"text": text, "label": label})
                    for text, label in zip("xyzu", values, strict=True)
                ),
            ),
        ]
        for file in files:
            corpus = read(file)
            assert corpus.task == Task("multilabel", ("a", "b", "c"))
            assert corpus.labels.dtype == np.float32
            assert corpus.labels.tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
            skipped = read(file, incomplete="skip", classes=["b", "a"])
            assert skipped.labels.tolist() == [[1, 1], [1, 0]]
            assert skipped.passed_over == {"rows without a label": 2}

    def test_columns_of_zeros_and_ones_make_a_multilabel_task(self, tmp_path):
        path = written(tmp_path / "a.csv", "text,toxic,obscene,id\nx,1,0,1\ny,0,0,2\nz,1,1,3\n")
        corpus = read(path, label=["toxic", "obscene"])
        assert corpus.task == Task("multilabel", ("toxic", "obscene"))
        assert corpus.labels.tolist() == [[1, 0], [0, 0], [1, 1]]
        refused(path, "line 3 has the value '2' in the column id: expected 1 or 0", label=["id", "toxic"])

    def test_chosen_classes_have_their_order_and_names(self, tmp_path):
        path = written(tmp_path / "a.csv", "text,label\nx,1\ny,0\nz,-1\nu,0\n")
        refused(path, "line 4 has the label '-1', expected one of 1, 0; data.incomplete=skip", classes=[1, 0])
        corpus = read(path, classes={0: "no", 1: "yes"}, incomplete="skip")
        assert corpus.task == Task("binary", ("no", "yes"))
        assert corpus.labels.tolist() == [1, 0, 0]
        assert corpus.passed_over == {"rows without a label": 1}

    def test_given_classes_are_spelled_as_labels_are(self):
        for labels, classes, expected in (
            ([True, False], [False, True], ["true", "false"]),
            ([1.0, 2.0], [2.0, 1], ["1", "2"]),
        ):
            numbers, task = read_labels(labels, classes)
            assert [task.classes[number] for number in numbers] == expected

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["a"] * 4, "have the label 'a' alone: expected two or more classes"),
            ([f"text {i}" for i in range(50)], r"50 different values in 50 rows.*data\.label=COLUMN"),
        ],
    )
    def test_what_are_no_classes_is_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            Corpus.of(["x"] * len(labels), labels)

    def test_rows_of_another_split_are_left_out_where_that_is_said(self, tmp_path):
        path = written(tmp_path / "a.csv", "text,label,split\nx,1,train\ny,0,unused\nz,0,test\n")
        refused(path, "line 3 has the split 'unused'")
        corpus = read(path, incomplete="skip")
        assert corpus.texts == ["x", "z"]
        assert corpus.passed_over == {"rows of another split": 1}


class TestFolders:
    @pytest.fixture
    def acl(self, tmp_path):
        root = tmp_path / "aclImdb"
        for split in ("train", "test"):
            for label in ("neg", "pos"):
                (root / split / label).mkdir(parents=True)
                for i in range(3):
                    written(
                        root / split / label / f"{i}_{2 if label == 'neg' else 9}.txt", f"{split} {label} {i}"
                    )
        return root

    def test_only_reviews_are_read_and_the_others_counted(self, acl):
        for name in ("._0_2.txt", ".DS_Store", "notes.txt", "0_2.txt~"):
            written(acl / "train" / "neg" / name, b"\xff\xfe no review")
        (acl / "train" / "unsup").mkdir()
        written(acl / "train" / "unsup" / "0_0.txt", "no label")
        (acl / "imdb.vocab").symlink_to("/nowhere/at/all")
        corpus = read(acl)
        assert len(corpus.texts) == 12
        assert corpus.passed_over == {"files that are no review": 4}
        assert rows_of(corpus)[0] == ("test neg 0", "negative", "test")

    def test_the_run_says_what_was_passed_over(self, acl, vocabulary, tmp_path, caplog):
        for split in ("train", "test"):
            for label in ("neg", "pos"):
                for i in range(3):
                    written(acl / split / label / f"{i}_5.txt", f"good film {split} {label} {i}")
        written(acl / "train" / "neg" / "notes.txt", "notes")
        data = TextDataModule(vocabulary, path=str(acl), cache_dir=str(tmp_path / "cache"))
        with caplog.at_level(logging.INFO, "gruland"):
            data.setup()
        assert data.report["passed_over"] == {"files that are no review": 1}
        assert "passed over: 1 files that are no review" in caplog.text

    def test_an_empty_folder_is_named(self, acl):
        for file in (acl / "train" / "neg").iterdir():
            file.unlink()
        refused(acl, r"train/neg holds no review: expected files <number>_<rating>\.txt")

    def test_a_missing_folder_is_named(self, acl, tmp_path):
        import shutil

        shutil.rmtree(acl / "test" / "pos")
        refused(acl, "has no folder test/pos")
        (tmp_path / "empty").mkdir()
        refused(tmp_path / "empty", "holds no folders of classes: expected train/neg")

    def test_any_folders_of_classes_are_read(self, tmp_path):
        for label in ("world", "sports", "arts"):
            (tmp_path / "news" / label).mkdir(parents=True)
            written(tmp_path / "news" / label / "1.txt", label)
        corpus = read(tmp_path / "news")
        assert corpus.task == Task("multiclass", ("arts", "sports", "world"))
        assert corpus.splits is None
        assert rows_of(corpus) == [(label, label, None) for label in ("arts", "sports", "world")]

    def test_a_review_that_is_not_utf8_is_named(self, acl):
        written(acl / "train" / "neg" / "0_2.txt", b"fine\ncaf\xe9")
        refused(acl, r"0_2\.txt, line 2 is not UTF-8 \(byte 0xe9\)")


class TestForeignFiles:
    table = "review,sentiment\ncafé,positive\nschön,negative\n"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (table.encode("utf-16"), r"is text in UTF-16: .*iconv -f UTF-16 -t UTF-8"),
            (table.encode("utf-16-le"), r"is text in UTF-16: .*iconv -f UTF-16LE -t UTF-8"),
            (table.encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xe9\).*iconv -f WINDOWS-1252"),
            (gzip.compress(table.encode(), mtime=0), "is compressed by gzip: unpack it"),
            (b"PAR1\x15\x04", r"is a Parquet file: give it a name that ends in \.parquet"),
            (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is an HTML page"),
            (b"\n  <html>", "is an HTML page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ],
    )
    def test_a_file_is_called_what_it_is_with_the_way_out(self, tmp_path, content, message):
        for suffix in (".csv", ".tsv", ".jsonl"):
            refused(written(tmp_path / f"a{suffix}", content), message)

    def test_archives_are_called_so_whatever_their_name(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.csv", self.table)
        refused(tmp_path / "a.zip", r"is a zip archive: unpack it \(`unzip 'a\.zip'`\)")
        refused(written(tmp_path / "a.csv", (tmp_path / "a.zip").read_bytes()), "is a zip archive")
        refused(written(tmp_path / "a.csv.gz", gzip.compress(b"x", mtime=0)), "is compressed by gzip")
        refused(
            written(tmp_path / "a.bin", b"\x00\x01\x02"), "is none of the known kinds: expected a file .csv"
        )

    def test_nothing_at_the_path(self, tmp_path):
        refused(tmp_path / "nowhere.csv", r"data\.path=.*nowhere\.csv does not exist: expected a file \.csv")


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"path": 3}, r"data\.path=3: expected a file"),
            ({"path": "a.csv", "text": 3}, r"data\.text=3: expected the name of a column"),
            ({"path": "a.csv", "label": ["a"]}, r"data\.label=\['a'\]: expected two or more columns"),
            ({"path": "a.csv", "label": ["a", "b"], "classes": ["a", "b"]}, r"data\.classes: the columns"),
            ({"path": "a.csv", "classes": "neg"}, r"data\.classes=neg: expected a list of labels"),
            ({"path": "a.csv", "classes": [1]}, r"data\.classes=\[1\]: expected two or more different"),
            (
                {"path": "a.csv", "incomplete": "drop"},
                r"data\.incomplete=drop is unknown: expected refuse or skip",
            ),
            ({"text": "body"}, r"data\.text=body: it is read with data\.path=FILE alone"),
            ({"incomplete": "skip"}, r"data\.incomplete=skip: it is read with data\.path=FILE alone"),
            ({"source": "imbd"}, r"data\.source=imbd: expected the source's class .*data=imdb"),
            ({"seed": -1}, r"data\.seed=-1: expected a whole number"),
            ({"cache_dir": 3}, r"data\.cache_dir=3: expected a text"),
            ({"batch_size": True}, r"data\.batch_size=True: expected a whole number"),
            ({"fractions": [1, 1, float("nan")]}, r"data\.fractions=.*expected three numbers"),
        ],
    )
    def test_what_cannot_work_is_refused_before_anything_is_read(self, vocabulary, settings, message):
        with pytest.raises(ValueError, match=message):
            TextDataModule(vocabulary, **settings)

    def test_the_key_holds_how_a_file_is_read(self, vocabulary, tmp_path):
        rows = "".join(f"good {i},bad {i},{i % 2},{(i + 1) % 2}\n" for i in range(20))
        path = written(tmp_path / "a.csv", f"text,other,label,opposite\n{rows}")

        def report(**settings):
            data = TextDataModule(vocabulary, path=str(path), cache_dir=str(tmp_path / "cache"), **settings)
            data.setup()
            return data.report["fingerprint"], data.report["class_counts"]["train"]

        found = [
            report(),
            report(text="other"),
            report(label="opposite"),
            report(classes={0: "no", 1: "yes"}),
        ]
        assert len({fingerprint for fingerprint, _ in found[:3]}) == 3
        assert set(found[3][1]) == {"no", "yes"}
        assert report() == found[0]

    def test_the_key_holds_the_attributes_of_a_source(self, vocabulary, tmp_path):
        path = written(tmp_path / "file", "x")

        class Mine:
            name = "mine"

            def __init__(self, word):
                self.word = word

            def files(self, cache):
                return [path]

            def read(self, files):
                return Corpus.of([f"{self.word} {i}" for i in range(20)], [i % 2 for i in range(20)])

        for word in ("good", "bad", "good"):
            data = TextDataModule(vocabulary, Mine(word), cache_dir=str(tmp_path / "cache"))
            data.setup()
            row = vocabulary.ids([word])[0]
            assert (data.splits["train"].encoded.tokens == row).sum() == 10
