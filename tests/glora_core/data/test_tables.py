"""Tables of labelled texts: every layout, every refusal by file and line, and the fingerprint."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glora_core.data.few_shot import few_shot
from glora_core.data.rows import LONGEST, Columns
from glora_core.data.tables import TextExample, read_table, read_test_table
from glora_core.errors import DataInvalid, LibraryMissing

ROWS = (
    ("train", "good film", "pos"),
    ("train", "bad, really bad", "neg"),
    ("validation", 'so "so"', "neg"),
    ("test", "two\nlines", "pos"),
)
EXPECTED = {
    "train": (TextExample("good film", 1), TextExample("bad, really bad", 0)),
    "val": (TextExample('so "so"', 0),),
    "test": (TextExample("two\nlines", 1),),
}


def as_csv(rows: tuple[tuple[str, ...], ...], header: str) -> str:
    return "\n".join([header, *(",".join('"' + value.replace('"', '""') + '"' for value in row) for row in rows)]) + "\n"


def one_csv(folder: Path) -> Path:
    (folder / "all.csv").write_text(as_csv(ROWS, "split,text,label"))
    return folder / "all.csv"


def one_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"id": 7, "split": split, "text": text, "label": label}) for split, text, label in ROWS]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder / "all.jsonl"


def a_file_for_each_split(folder: Path) -> Path:
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("\ufeff" + as_csv(tuple(row[1:] for row in ROWS if row[0] == split), "text,label"))
    (folder / "test.jsonl").write_text(json.dumps({"text": "two\nlines", "label": "pos"}))
    (folder / "README.md").write_text("not a table")
    return folder


LAYOUTS = pytest.mark.parametrize("layout", [one_csv, one_jsonl, a_file_for_each_split], ids=lambda f: f.__name__)


@LAYOUTS
def test_every_layout_gives_the_same_splits_with_sorted_classes(layout: Callable[[Path], Path], tmp_path: Path):
    found = read_table(layout(tmp_path))
    assert (found.classes, found.splits) == (("neg", "pos"), EXPECTED)


@LAYOUTS
def test_the_fingerprint_is_that_of_the_contents(layout: Callable[[Path], Path], tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "this").mkdir()
    assert read_table(layout(tmp_path / "this")).fingerprint == read_table(one_csv(tmp_path / "other")).fingerprint


@pytest.mark.parametrize(("before", "after"), [("good film", "good films"), ('"train","good film","pos"', '"val","good film","pos"')])
def test_the_fingerprint_changes_with_a_text_or_its_split(tmp_path, before, after):
    path = one_csv(tmp_path)
    path.write_text(path.read_text() + "train,fine,pos\n")
    unchanged = read_table(path).fingerprint
    path.write_text(path.read_text().replace(before, after))
    assert read_table(path).fingerprint != unchanged


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path):
    path = tmp_path / "numbers.jsonl"
    rows = [("train", "a", 10), ("train", "b", 2), ("val", "c", "10")]
    path.write_text("\n".join(json.dumps(dict(zip(("split", "text", "label"), row, strict=True))) for row in rows))
    assert read_table(path).classes == ("2", "10")


def test_shared_texts_and_missing_classes_are_warned_of(tmp_path):
    path = one_csv(tmp_path)
    path.write_text(path.read_text() + "test,good film,pos\n")
    assert read_table(path).warnings == (
        "1 test text is in train too, byte for byte, such as 'all.csv line 7' ('all.csv line 2' in train)",
        "val has no texts of 1 of 2 classes: pos",
        "test has no texts of 1 of 2 classes: neg",
    )


REFUSED = [
    ("no text column", "split,words,label\ntrain,a,x\n", r"t\.csv' line 2: column 'text' is missing; it has split, words, label"),
    ("no split column", "text,label\na,x\n", r"line 2: column 'split' is missing.*accepted are"),
    ("too few values", "split,text,label\ntrain,a,x\ntrain,b\n", r"line 3: 2 values; the header has 3 columns"),
    ("blank text", "split,text,label\ntrain, ,x\n", r"line 2: text is ' '"),
    ("no label", "split,text,label\ntrain,a,\n", r"line 2: label is ''; accepted is a name"),
    ("strange split", "split,text,label\ndev,a,x\n", r"line 2: split is 'dev'; accepted are train, val, validation, test"),
    ("column twice", "split,text,text,label\n", r"line 1: column 'text' is there twice"),
    ("huge field", f"split,text,label\ntrain,{'a' * (LONGEST + 1)},x\n", r"line 2: a field of more than 131,072 characters"),
    ("huge line", f"split,text,label\ntrain,{'a' * 4 * LONGEST},x\n", r"line 2 has 524,288 characters or more"),
    ("no label but a text", f"split,text,label\ntrain,a,{'word ' * 60}\n", r"line 2: label is 'word word.*is this the column of labels\?"),
    ("label on two lines", 'split,text,label\ntrain,a,"x\ny"\n', r"line 3: label is 'x\\ny'; accepted is a name of up to 200"),
    ("open quote", 'split,text,label\ntrain,"a,x\n', r"line 2: unexpected end of data"),
    ("one class", "split,text,label\ntrain,a,x\nval,b,x\n", r"one class only \(x\)"),
    ("class that train lacks", "split,text,label\ntrain,a,x\ntrain,b,y\nval,c,z\n", r"line 4: label 'z' is none of .* train: x, y"),
    ("no val", "split,text,label\ntrain,a,x\ntrain,b,y\n", r"no texts of split 'val'"),
    ("nothing", "", r"no texts of split 'train'"),
]


@pytest.mark.parametrize(("content", "told"), [pytest.param(content, told, id=name) for name, content, told in REFUSED])
def test_a_table_that_cannot_be_used_is_refused_by_file_and_line(tmp_path, content, told):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataInvalid, match=told):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"split": "train", "text": "\\ud83d", "label": 1}', "half of a surrogate pair"),
        ("[" * 100_000, "is not JSON"),
        ("{", "is not JSON"),
        ("[1]", "accepted is a JSON object"),
        ('{"split": "train", "text": "a", "label": 1.5}', "label is 1.5"),
    ],
)
def test_a_line_of_json_that_cannot_be_used_is_refused_by_its_number(tmp_path, line, told):
    path = one_jsonl(tmp_path)
    path.write_text(path.read_text() + line)
    with pytest.raises(DataInvalid, match=rf"all\.jsonl' line 6:? .*{told}"):
        read_table(path)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"split,text,label\ntrain,\xff,x\n")
    with pytest.raises(DataInvalid, match=r"t\.csv' line 2 is not UTF-8 text: byte 0xff at character 7"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("name", ["nowhere", "t.xlsx", ""])
def test_what_is_no_table_is_refused_with_what_would_be_accepted(tmp_path, name):
    (tmp_path / "t.xlsx").write_text("")
    with pytest.raises(DataInvalid, match=r"accepted are a \.csv or \.jsonl file"):
        read_table(tmp_path / name)


def test_two_files_of_one_split_are_refused(tmp_path):
    a_file_for_each_split(tmp_path)
    (tmp_path / "val.jsonl").write_text("")
    with pytest.raises(DataInvalid, match="another file for val; leave one of them"):
        read_table(tmp_path)


def test_a_split_column_that_contradicts_the_files_name_is_refused(tmp_path):
    a_file_for_each_split(tmp_path)
    (tmp_path / "train.csv").write_text("text,label,split\na,pos,train\nb,neg,test\n")
    with pytest.raises(DataInvalid, match=r"train\.csv' line 3: split is 'test' in what is train by its name"):
        read_table(tmp_path)


def test_columns_may_have_other_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("part,body,topic\ntrain,a,x\ntrain,b,y\nval,c,x\n")
    columns = Columns("body", "topic", "part")
    assert read_table(path, columns).splits["val"] == (TextExample("c", 0),)
    with pytest.raises(
        DataInvalid, match=r"line 2: column 'words' is missing; it has part, body, topic; accepted .* words, topic and part"
    ):
        read_table(path, Columns("words", "topic", "part"))


def test_a_folder_may_hold_one_file_of_all_splits(tmp_path):
    one_csv(tmp_path).rename(tmp_path / "data.csv")
    assert read_table(tmp_path).splits == EXPECTED
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    with pytest.raises(DataInvalid, match=r"several data sets of texts: data\.csv, train\.csv; leave one"):
        read_table(tmp_path)


def test_a_folder_of_images_is_called_what_it_is(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataInvalid, match="it has folders of images, which a transformers: backbone does not read"):
        read_table(tmp_path)


def test_a_text_with_two_labels_is_told_of(tmp_path):
    path = one_csv(tmp_path)
    path.write_text(path.read_text() + "train,good film,neg\n")
    assert read_table(path).warnings[-1] == "1 texts of train have more than one label, such as that of all.csv line 2 and all.csv line 7"


def test_facts_count_texts_and_name_lines(tmp_path):
    path = one_csv(tmp_path)
    path.write_text(path.read_text() + "test,good film,pos\n")
    facts = read_table(path).facts()
    assert (facts["kind"], facts["counts"]["train"]) == ("texts", [1, 1])
    assert facts["duplicates"] == [{"splits": ["train", "test"], "texts": 1, "examples": [["all.csv line 2", "all.csv line 7"]]}]


def test_few_shots_of_texts_are_drawn_per_class_and_few_are_told_of(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [("train", f"text {i}", "x" if i < 9 else "y") for i in range(11)] + [("val", "v", "x")]
    path.write_text("\n".join(json.dumps(dict(zip(("split", "text", "label"), row, strict=True))) for row in rows))
    drawn, more = (few_shot(read_table(path), shots, seed=3) for shots in (2, 4))
    assert drawn.counts == {"train": (2, 2), "val": (1, 0)}
    assert set(drawn.splits["train"]) <= set(more.splits["train"])
    assert drawn.fingerprint != more.fingerprint != read_table(path).fingerprint
    assert "1 of 2 classes have fewer than 4 texts in train and keep them all: y" in more.warnings


@pytest.fixture
def data(tmp_path: Path):
    """Three classes; the further test sets have some of them."""
    (tmp_path / "data.csv").write_text("split,text,label\ntrain,a,x\ntrain,b,y\ntrain,c,z\nval,d,x\n")
    return read_table(tmp_path)


@pytest.mark.parametrize("name", ["t.csv", "further/test.csv"])
def test_a_further_test_set_is_a_table_of_some_of_the_classes(tmp_path, data, name):
    (tmp_path / "further").mkdir()
    (tmp_path / name).write_text("split,text,label\ntrain,e,z\nanything,f,y\n")
    found = read_test_table((tmp_path / name).parent if "/" in name else tmp_path / name, data)
    assert (found.classes, found.splits) == (("x", "y", "z"), {"test": (TextExample("e", 2), TextExample("f", 1))})


def test_a_further_test_set_may_have_the_index_that_pandas_writes(tmp_path, data):
    (tmp_path / "t.csv").write_text(",text,label\n0,e,z\n1,f,y\n")
    assert read_test_table(tmp_path / "t.csv", data).splits == {"test": (TextExample("e", 2), TextExample("f", 1))}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("text,label\ne,z\nf,w\n", r"t\.csv' line 3: label 'w' is none of the data set's classes: x, y, z"),
        ("text,label\ne,z\n", "has texts of 1 class; two at least"),
        ("words,label\ne,z\n", r"t\.csv' line 2: column 'text' is missing"),
    ],
)
def test_a_further_test_set_that_does_not_fit_is_refused(tmp_path, data, content, told):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(DataInvalid, match=told):
        read_test_table(tmp_path / "t.csv", data)


def test_a_saved_folder_without_its_library_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(LibraryMissing, match="pip install datasets"):
        read_table(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Saves splits as `datasets` does, with labels of named classes in an order of their own."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})

    def save(**splits: list[tuple[str, int]]) -> Path:
        tables = {name: {"text": [text for text, _ in rows], "label": [label for _, label in rows]} for name, rows in splits.items()}
        built = {name: datasets.Dataset.from_dict(table, features=features) for name, table in tables.items()}
        datasets.DatasetDict(built).save_to_disk(str(tmp_path / "saved"))
        return tmp_path / "saved"

    return save


def test_a_saved_folder_keeps_the_order_of_its_classes(saved):
    found = read_table(saved(train=[("a", 0), ("b", 1)], validation=[("c", 1)]))
    assert found.classes == ("pos", "neg")
    assert found.splits == {"train": (TextExample("a", 0), TextExample("b", 1)), "val": (TextExample("c", 1),)}


def test_a_saved_row_without_a_label_is_refused_by_its_number(saved):
    folder = saved(train=[("a", 0), ("b", 1)], validation=[("c", 1)], test=[("d", 0), ("e", -1)])
    with pytest.raises(DataInvalid, match=r"saved' test row 1: label is -1; accepted is 0 to 1"):
        read_table(folder)


@pytest.mark.parametrize("named", ["../elsewhere.arrow", "/etc/elsewhere.arrow", 7])
def test_a_saved_folder_that_names_files_outside_of_it_is_refused_before_they_are_read(saved, named):
    folder = saved(train=[("a", 0), ("b", 1)], validation=[("c", 1)])
    state = json.loads((folder / "train" / "state.json").read_text())
    (folder / "train" / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": named}]}))
    with pytest.raises(DataInvalid, match=r"train/state\.json' names .* as a file of the table; accepted are files beside it"):
        read_table(folder)


def test_a_saved_folder_that_names_a_split_outside_of_it_is_refused_before_it_is_read(saved):
    folder = saved(train=[("a", 0), ("b", 1)], validation=[("c", 1)])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "../other"]}')
    with pytest.raises(DataInvalid, match=r"has a split '\.\./other'; accepted are train"):
        read_table(folder)


@pytest.mark.parametrize("file", ["dataset_dict.json", "train/state.json", "train/dataset_info.json"])
def test_a_description_of_saved_tables_beyond_the_bound_is_refused(saved, file):
    folder = saved(train=[("a", 0), ("b", 1)], validation=[("c", 1)])
    os.truncate(folder / file, 2**24 + 1)
    with pytest.raises(DataInvalid, match=r"\.json' has 16,777,217 bytes; accepted are up to 16,777,216"):
        read_table(folder)


def test_a_saved_column_that_is_not_asked_for_is_not_decoded(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("string"), "seen": datasets.Image()})
    rows = {"text": ["a", "b"], "label": ["x", "y"], "seen": [{"bytes": b"no image", "path": None}] * 2}
    tables = {split: datasets.Dataset.from_dict(rows, features=features) for split in ("train", "validation")}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    assert read_table(tmp_path / "saved").classes == ("x", "y")


def test_a_table_is_a_file_and_a_pipe_by_that_name_is_none(tmp_path):
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(DataInvalid, match=r"has no train\.csv or train\.jsonl"):
        read_table(tmp_path)


def test_a_further_table_is_a_file_and_a_pipe_by_that_name_is_none(tmp_path):
    (tmp_path / "own").mkdir()
    data = read_table(a_file_for_each_split(tmp_path / "own"))
    (tmp_path / "further").mkdir()
    os.mkfifo(tmp_path / "further" / "test.csv")
    with pytest.raises(DataInvalid, match="has 0 tables named test"):
        read_test_table(tmp_path / "further", data)


def test_the_header_of_what_is_no_table_is_told_in_short_and_printable(tmp_path):
    (tmp_path / "notes.csv").write_text("secret\x1b" * 40 + "," + "secret" * 40 + "\nx,y\n")
    with pytest.raises(DataInvalid, match="column 'text' is missing; it has ") as refusal:
        read_table(tmp_path / "notes.csv")
    assert str(refusal.value).count("secret") < 15
    assert str(refusal.value).isprintable()


def test_a_header_of_too_many_columns_is_refused(tmp_path):
    (tmp_path / "wide.csv").write_text("," * 10_000 + "\n")
    with pytest.raises(DataInvalid, match="10,001 columns; accepted are at most 10,000"):
        read_table(tmp_path / "wide.csv")


@pytest.mark.parametrize("character", ["\x1b", "\x85", "\u2028", "\u2029"])
def test_a_label_of_more_than_one_line_is_refused_and_told_escaped(tmp_path, character):
    (tmp_path / "all.csv").write_text(f"split,text,label\ntrain,a,x{character}y\n")
    with pytest.raises(DataInvalid, match="accepted is a name of up to 200 characters on one line") as refusal:
        read_table(tmp_path / "all.csv")
    assert repr(f"x{character}y") in str(refusal.value)
