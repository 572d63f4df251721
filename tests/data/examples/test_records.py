"""Files of examples: every format is read, and every problem is named with its file and line."""

import gzip
import itertools
import json

import jax
import numpy as np
import pytest

from memgpt_jax.data import TASKS, make_task, tokenizer_of
from memgpt_jax.data.examples.records import read_records
from memgpt_jax.data.examples.trec import read_judgements
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig, LabelledTextTask, document_ids
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextConfig
from memgpt_jax.data.tasks.preferences import PreferencesConfig
from memgpt_jax.data.tasks.questions import QuestionsConfig
from memgpt_jax.data.tasks.retrieval import RetrievalConfig
from memgpt_jax.data.tasks.scored_text import ScoredTextConfig, ScoredTextTask
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig, TaggedTextTask, encode_words
from memgpt_jax.data.tokenizers.byte import ByteTokenizer

ROWS = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(20)]
BYTES = ByteTokenizer()


def written(path, content):
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def two(row):
    """The row with each of two labels."""
    return json_lines([row | {"label": 0}, row | {"label": 1}])


def table(rows, delimiter):
    return delimiter.join(rows[0]) + "\n" + "".join(delimiter.join(map(str, row.values())) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json_lines(ROWS)),
        ("a.jsonl.gz", json_lines(ROWS)),
        ("a.csv", table(ROWS, ",")),
        ("a.tsv", table(ROWS, "\t")),
        ("a.tsv.gz", b"\xef\xbb\xbf" + table(ROWS, "\t").encode()),
    ],
)
def test_tables_give_the_same_records(tmp_path, name, content):
    records = list(read_records(written(tmp_path / name, content)))
    assert [dict(record.values) for record in records] == ROWS
    assert f"{name}, line " in records[3].where


def test_labels_in_front_of_texts(tmp_path):
    path = written(tmp_path / "TREC.train", b"DESC:manner How did it \xfcber go ?\n\nNUM:date When ?\n")
    first, second = read_records(path, "label_first", "latin-1")
    assert first.values == {
        "label": "DESC:manner",
        "coarse": "DESC",
        "text": "How did it \N{LATIN SMALL LETTER U WITH DIAERESIS}ber go ?",
    }
    assert second.where.endswith("TREC.train, line 3")


def test_conll_files(tmp_path):
    path = written(tmp_path / "a.conll", "-DOCSTART- O\n\nAda\tB-person\nwrites\tO\n\n\nRome\tB-place\n")
    first, second = read_records(path, "conll")
    assert first.values == {"words": ["Ada", "writes"], "column1": ["B-person", "O"]}
    assert second.values["words"] == ["Rome"] and second.where.endswith("line 7")
    (tabbed,) = read_records(written(tmp_path / "b.conll", "Ada\tB\tO\t\nwrites\tO\tO\t\n"), "conll")
    assert tabbed.values == {"words": ["Ada", "writes"], "column1": ["B", "O"], "column2": ["O", "O"]}


def labelled(path, **options):
    return LabelledTextConfig(train=str(path), **options)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.jsonl", two({"txt": "x"}), {}, r"a.jsonl, line 1 has no column 'text'; it has 'txt', 'label'"),
        ("a.jsonl", two({"text": 1}), {}, "a.jsonl, line 1: column 'text' must be a string, it is a int"),
        ("a.jsonl", json_lines([{"text": "x", "label": None}] * 20), {}, "column 'label' must be a label, it is null"),
        ("a.jsonl", json_lines([{"text": "x", "label": [1]}] * 20), {}, "column 'label' must be a label, it is a list"),
        ("a.jsonl", json_lines([{"text": "x", "label": " "}] * 20), {}, "column 'label' must be a label, it is empty"),
        ("a.jsonl", json_lines([{"text": "x", "label": 1}] * 20), {}, "has only the label 1"),
        ("a.jsonl", two({"text": " "}), {}, "line 1: the text is empty"),
        ("a.jsonl", "{", {}, "a.jsonl, line 1 is not JSON"),
        ("a.jsonl", "[]\n", {}, "a.jsonl, line 1 must be a JSON object, it is a list"),
        ("a.jsonl", "", {}, "split 'train' of .* has no records"),
        ("a.jsonl", json_lines(ROWS[:2]), {"split": "valid"}, "split 'valid' of .* has no records: of data.train"),
        ("a.jsonl", json_lines(ROWS), {"split": "test"}, "there is no test split: give data.test, or data.test_every"),
        ("a.jsonl", json_lines(ROWS), {"labels": ("a",)}, "the label 'b' is not one of the 1 labels"),
        ("a.csv", "text,label\nx\n", {}, "a.csv, line 2 has 1 fields, and the header of the file names 2 columns"),
        ("a.csv", "text,text\nx,y\n", {}, "a.csv, line 1 names two columns 'text'"),
        ("a.csv", b"text,label\n\xff,a\n", {}, "a.csv is not valid UTF-8 at byte offset 11"),
        ("a.txt", "x", {}, "its suffix must be .jsonl, .csv, .tsv or .parquet"),
        ("a.jsonl.gz", b"not gzip", {}, "a.jsonl.gz"),
        ("a.lines", "word\n", {"form": "label_first"}, "a.lines, line 1 must be a label, a space and a text"),
        ("a.jsonl", '{"text": "x", "label": NaN}\n', {}, "column 'label' must be a label, it is NaN"),
        ("a.jsonl", json_lines(ROWS), {"labels": "ab"}, "data.labels must be a list of labels, got 'ab'"),
        ("a.lines", b"a \xff\n", {"form": "label_first"}, "not valid UTF-8 .* set data.encoding='latin-1'"),
        ("a.jsonl", json_lines(ROWS), {"encoding": "latin-1"}, "data.encoding='latin-1' is for"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, name, content, options, message):
    path = written(tmp_path / name, content) if not name.endswith(".gz") else tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(content)
    split = options.pop("split", "train")
    with pytest.raises(ValueError, match=message):
        LabelledTextTask(labelled(path, **options), split, BYTES)


def test_labels_may_be_numbers_as_in_files(tmp_path):
    path = written(tmp_path / "a.jsonl", two({"text": "x"}) * 10)
    assert LabelledTextTask(labelled(path, labels=(1, 0.0)), "train", BYTES).config.labels == ("1", "0")
    for config, name in ((LabelledTextConfig, "labels"), (TaggedTextConfig, "tags")):
        for labels, message in (
            (("a", None), f"a label of data.{name} must be a label, it is null"),
            ((1, "1"), "distinct"),
        ):
            with pytest.raises(ValueError, match=message):
                config(train=str(path), **{name: labels})


def test_large_numbers_and_tabs(tmp_path):
    path = written(tmp_path / "a.jsonl", json_lines([{"text": "x", "label": 10**17 + i} for i in range(4)]))
    assert len(labelled(path).completed().labels) == 4
    path = written(tmp_path / "a.lines", "pos\tfine film\nneg bad\n")
    assert [dict(r.values)["text"] for r in read_records(path, "label_first")] == ["fine film", "bad"]
    path = written(tmp_path / "a.conll", "a\tO\nb\t\n")
    with pytest.raises(ValueError, match=r"a.conll, line 2 must be a word and its tags"):
        list(read_records(path, "conll"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("# newdoc id = a\n# text = a b\na\tO\nb\tX\n\n# sent_id = 2\nc\tO\n", [["a", "b"], ["c"]]),
        ("# A licence of five words.\n\na O\nb X\n", [["a", "b"]]),
        ("# O\none X\n\n#\tO\n", [["#", "one"], ["#"]]),  # words
        ("a O\n# O\nb X\n", [["a", "#", "b"]]),
        ("# newpar\na O\n", [["a"]]),
    ],
)
def test_comments_of_conll_files_are_no_words(tmp_path, content, words):
    path = written(tmp_path / "a.conll", content)
    assert [record.values["words"] for record in read_records(path, "conll")] == words


def test_half_a_surrogate_pair_is_named(tmp_path):
    for row, read in (({"text": "a \ud83d"}, "text"), ({"text": ["a", "\ud83d"]}, "texts")):
        (record,) = read_records(written(tmp_path / "a.jsonl", json_lines([row])))
        with pytest.raises(
            ValueError, match=r"a.jsonl, line 1: column 'text': the text holds the lone surrogate U\+D83D"
        ):
            getattr(record, read)("text")


def test_judgements_are_lines_that_end_in_a_line_feed(tmp_path):
    found = read_judgements(written(tmp_path / "a.txt", "\ufeff1 0 a 1\r\n2 0 b\x1c 0\n\n"))
    assert [(judgement.query, judgement.document, judgement.relevance) for judgement in found] == [
        ("1", "a", 1),
        ("2", "b", 0),
    ]


def test_tags_of_files_are_those_of_whole_files(tmp_path):
    """A tag in a tenth sentence is known where a document is a file."""
    for number in range(2):
        sentences = [f"a{number}\tO\n\n"] * 9 + ["b\tX\n\n"]
        written(tmp_path / f"{number}.conll", "".join(sentences))
    config = TaggedTextConfig(train=str(tmp_path), form="conll", document="file", valid_every=2)
    assert TaggedTextTask(config, "valid", BYTES).config.tags == ("O", "X")


def test_a_file_that_is_absent(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        LabelledTextTask(labelled(tmp_path / "nowhere.csv"), "train", BYTES)
    with pytest.raises(ValueError, match=r"data.train must name a file or folder"):
        LabelledTextTask(LabelledTextConfig(), "train", BYTES)
    with pytest.raises(ValueError, match=r"data.tokenizer='pretrained' needs a pretrained model"):
        LabelledTextTask(labelled(tmp_path / "nowhere.csv"), "train")


def test_splits_do_not_overlap_and_add_up(tmp_path):
    path = written(tmp_path / "a.jsonl", json_lines(ROWS))
    config = labelled(path, test_every=4, valid_every=3)
    splits = {split: LabelledTextTask(config, split, BYTES) for split in ("train", "valid", "test")}
    texts = {split: [example.text for example in task.examples] for split, task in splits.items()}
    assert sorted(itertools.chain(*texts.values())) == sorted(row["text"] for row in ROWS)
    assert texts["test"] == [ROWS[i]["text"] for i in (3, 7, 11, 15, 19)]
    assert [len(items) for items in texts.values()] == [10, 5, 5]
    few = labelled(path, test_every=4, valid_every=3, max_examples=3)  # the other splits stay as they are
    for split in splits:
        found = [example.text for example in LabelledTextTask(few, split, BYTES).examples]
        assert found == (texts["train"][:3] if split == "train" else texts[split])


def test_rows_hold_each_text_once_with_its_label_at_the_end(tmp_path):
    path = written(tmp_path / "a.jsonl", json_lines(ROWS))
    task = LabelledTextTask(labelled(path, valid_every=20), "train", BYTES)
    batches, seen = task.batches(3, 2, 64), []
    for _, batch in zip(range(8), batches, strict=False):
        tokens, reset, weights = batch.inputs["tokens"], batch.inputs["reset"], batch.weights["labels"]
        for row in range(2):
            for first, end in itertools.pairwise([*reset[row].nonzero()[0], 64]):
                if not weights[row, first:end].any():  # padding, at the end of the row
                    assert end == 64 and not tokens[row, first:].any()
                    continue
                text = BYTES.decode(tokens[row, first + 1 : end].tolist())
                seen.append(text)
                assert weights[row, first:end].tolist() == [0] * (end - first - 1) + [1]
                label = batch.targets["labels"][row, end - 1]
                assert "ab"[label] == ROWS[int(text.split()[-1])]["label"]
    epoch = [row["text"] for row in ROWS[:19]]
    assert sorted(seen[:19]) != seen[:19] and set(seen[:19]) <= set(epoch) and len(seen) > 20


def test_a_cut_text_keeps_its_end_token():
    assert document_ids(BYTES, "abcdef", 4).tolist() == [BYTES.start_id, *b"abc"]


@pytest.mark.parametrize("task", [LabelledTextTask, ScoredTextTask])
def test_texts_are_cut_at_the_side_that_is_asked_for(tmp_path, task):
    rows = [{"text": text, "label": text[0], "number": ord(text[0])} for text in ("abcdef", "uvwxyz")]
    kind = LabelledTextConfig if task is LabelledTextTask else ScoredTextConfig
    path = str(written(tmp_path / "a.jsonl", json_lines(rows)))
    ends = {"right": (b"abcd", b"ab"), "left": (b"cdef", b"ef")}
    for side, (of_text, of_row) in ends.items():
        cut = task(kind(train=path, max_length=5, truncation_side=side), "train", BYTES)
        assert cut.documents[0]["tokens"].tolist() == [BYTES.start_id, *of_text]
        assert cut.row(0, 3)["tokens"].tolist() == [BYTES.start_id, *of_row]
    with pytest.raises(ValueError, match="truncation_side must be one of 'left', 'right', got 'end'"):
        kind(train=path, truncation_side="end")


def test_tags_are_targets_at_the_last_token_of_each_word(tmp_path):
    path = written(tmp_path / "a.conll", "Ada\tB-per\nin\tO\n\nRome\tB-loc\nshe\tO\n\nwas\tO\nhere\tO\n")
    config = TaggedTextConfig(train=str(path), form="conll", valid_every=3, case_as_token_type=True)
    task = TaggedTextTask(config, "train", BYTES)
    assert task.config.tags == ("B-loc", "B-per", "O") and len(task.examples) == 2
    row = task.row(0, 0, 64)
    assert row["tokens"].tolist() == [BYTES.start_id, *b"Ada in"]
    assert row["weights"].nonzero()[0].tolist() == [3, 6] and row["targets"][[3, 6]].tolist() == [1, 2]
    assert row["token_types"].tolist() == [0, 1, 1, 1, 0, 0, 0]
    whole = TaggedTextTask(
        TaggedTextConfig(train=str(path), form="conll", valid=str(path), document="file"), "train", BYTES
    )
    assert whole.examples[0].words == ["Ada", "in", "Rome", "she", "was", "here"]
    parts = [task.row(0, first, 4)["tokens"].tolist() for first in (0, 4)]
    assert [*itertools.chain(*parts)] == row["tokens"].tolist()


def test_a_word_without_tokens_has_a_place():
    encoded = encode_words(BYTES, ["", "a"])
    assert len(encoded.places) == 2 and encoded.places[1] == len(encoded.inputs["tokens"]) - 1


def test_tags_that_do_not_fit_are_named(tmp_path):
    path = written(
        tmp_path / "a.jsonl", json_lines([{"words": ["a", "b"], "tags": ["O"]}, {"words": ["a"], "tags": ["B"]}] * 2)
    )
    with pytest.raises(ValueError, match=r"a.jsonl, line 1: 2 words and 1 tags"):
        TaggedTextTask(TaggedTextConfig(train=str(path), tag_column="tags"), "train", BYTES)
    moved = [
        {"words": ["a"], "tags": ["O"]},
        {"words": ["b", "c"], "tags": ["X"]},
        {"words": ["d"], "tags": ["O", "X"]},
    ]
    path = written(tmp_path / "moved.jsonl", json_lines(moved))
    with pytest.raises(ValueError, match=r"moved.jsonl, line 2: 2 words and 1 tags"):
        TaggedTextConfig(train=str(path), tag_column="tags", document="file").records("train")
    path = written(tmp_path / "b.conll", "a\tO\nb\tB\tx\n")
    with pytest.raises(ValueError, match=r"b.conll, line 2 has 3 columns, and the lines before it 2"):
        list(read_records(path, "conll"))


def test_tags_may_have_spaces_around_them(tmp_path):
    rows = [{"words": ["a", "b"], "tags": [" B-x", "O"]}, {"words": ["a", "b"], "tags": ["O ", "B-x"]}] * 2
    path = written(tmp_path / "a.jsonl", json_lines(rows))
    task = TaggedTextTask(TaggedTextConfig(train=str(path), tag_column="tags"), "train", BYTES)
    assert task.config.tags == ("B-x", "O") and task.examples[0].tags == ["B-x", "O"]


def test_a_split_without_a_label_of_training_gives_a_warning(tmp_path, caplog):
    config = labelled(written(tmp_path / "a.jsonl", json_lines(ROWS)))
    for split in ("train", "valid", "valid"):
        LabelledTextTask(config, split, BYTES)
    assert [record.message for record in caplog.records] == ["split valid has no example of 1 labels: a"]
    LabelledTextTask(labelled(config.train, valid_every=3), "valid", BYTES)
    assert len(caplog.records) == 1


def test_training_does_not_see_the_labels_of_the_test_split(tmp_path):
    train = written(tmp_path / "train.jsonl", json_lines(ROWS))
    permuted = [row | {"label": "ba"["ab".index(row["label"])]} for row in ROWS]
    batches = []
    for name, rows in (("test", ROWS), ("permuted", permuted)):
        config = labelled(train, test=str(written(tmp_path / f"{name}.jsonl", json_lines(rows))))
        task = LabelledTextTask(config, "train", BYTES)
        batches.append([next(iter(task.batches(0, 2, 64))), task.content, task.config.labels])
    jax.tree.map(np.testing.assert_array_equal, *(found[0] for found in batches))
    assert batches[0][1:] == batches[1][1:]


SQUAD = {
    "data": [
        {
            "title": f"t{i}",
            "paragraphs": [
                {
                    "context": f"text {i}",
                    "qas": [{"id": f"{i}", "question": f"who {i}", "answers": [{"text": "text", "answer_start": 0}]}],
                }
            ],
        }
        for i in range(4)
    ]
}
LABELLED = [{"text": f"text {i}", "label": "ab"[i % 2], "number": i, "id": f"{i}"} for i in range(4)]
CONLL = "".join(f"text A\n{i} B\n\n" for i in range(4))


FILES = pytest.mark.parametrize(
    ("kind", "name", "content", "options"),
    [
        (LabelledTextConfig, "a.jsonl", json_lines(LABELLED), {}),
        (LabelledTextConfig, "a.txt", "".join(f"{'ab'[i % 2]} text {i}\n" for i in range(4)), {"form": "label_first"}),
        (MultiLabelTextConfig, "a.jsonl", json_lines(LABELLED), {"label_column": "label"}),
        (ScoredTextConfig, "a.jsonl", json_lines(LABELLED), {}),
        (TaggedTextConfig, "a.conll", CONLL, {"form": "conll"}),
        (
            TaggedTextConfig,
            "a.jsonl",
            json_lines([{"words": ["text", f"{i}"], "column1": ["A", "B"]} for i in range(4)]),
            {},
        ),
        (QuestionsConfig, "a.json", json.dumps(SQUAD), {"form": "squad"}),
        (PreferencesConfig, "a.jsonl", json_lines([{"first": f"text {i}", "second": f"{i}"} for i in range(4)]), {}),
        (RetrievalConfig, "a.jsonl", json_lines(LABELLED), {}),
    ],
)


@FILES
def test_a_run_is_resumed_after_its_files_have_moved(tmp_path, kind, name, content, options):
    """The digest of the examples, which a resumed run compares, does not depend on the place of the file."""
    found = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        if kind is RetrievalConfig:
            judged = written(folder / "j.txt", "".join(f"{i} 0 d 1\n" for i in range(4)))
            documents = written(folder / "d.jsonl", json_lines([{"id": "d", "text": "found"}]))
            options = {"documents": str(documents), "judgements": str(judged)}
        config = kind(train=str(written(folder / name, content)), **options)
        found.append(make_task(config, "train", BYTES).content)
    assert found[0] == found[1]


@FILES
def test_a_tokenizer_is_trained_on_the_training_split(tmp_path, kind, name, content, options):
    path = str(written(tmp_path / name, content))
    if kind is RetrievalConfig:
        options = {"documents": str(written(tmp_path / "d.jsonl", json_lines([{"id": "d", "text": "found"}])))}
    config = kind(train=path, valid_every=2, test_every=4, test_fold=1, **options)
    texts = TASKS.of(config).training_texts(config)
    learned = [index for index in range(4) if f"text {index}" in texts]
    assert learned == [0, 3]  # 1 is for validation, 2 is the test
    more = {QuestionsConfig: ["who 0", "who 3"], PreferencesConfig: ["0", "3"], RetrievalConfig: ["found"]}
    assert sorted(texts) == sorted(["text 0", "text 3", *more.get(kind, [])])


def test_bpe_has_no_piece_of_held_out_records(tmp_path):
    words = [f"{a}{b}" for a in "abcdefgh" for b in "klmnop"]
    rows = [{"text": "zzyyxx " * 9 if i % 4 == 2 else " ".join(words[i:]), "label": "ab"[i % 2]} for i in range(40)]
    path = str(written(tmp_path / "a.jsonl", json_lines(rows)))
    options = {"tokenizer": "bpe", "tokenizer_vocab_size": 310, "cache_dir": str(tmp_path / "cache")}
    for fold, is_held_out in ((1, True), (0, False)):
        config = LabelledTextConfig(train=path, test_every=4, test_fold=fold, **options)
        assert (len(tokenizer_of(config).encode("zzyyxx")) > 1) == is_held_out
