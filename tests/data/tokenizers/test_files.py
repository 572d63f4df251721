"""The files of tokenizers: special ids, saving, and damaged files."""

import json
import random
import shutil

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from memgpt_jax.data import ByteTokenizer, read_tokenizer
from memgpt_jax.data.tokenizers.files import Settings
from memgpt_jax.data.tokenizers.json_file import JsonTokenizer
from memgpt_jax.files import checksums
from tests.references.tokenizers import LINES, added, bert, byte_level, llama, make, pieces_of, unigram

CONFIG, MAP, GENERATION = "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"
BESIDE = {
    CONFIG: '{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false},\n "model_max_length": 1e30}',
    MAP: '{"pad_token": "<unk>",   "unk_token": "<unk>"}',
    "added_tokens.json": '{"</s>": 2}',
    "chat_template.jinja": "{% for message in messages %}é{{ message }}\r\n{% endfor %}",
    "chat_template.json": '{"chat_template": "x"}',
    GENERATION: '{"eos_token_id": [2, 7], "temperature": 0.6}\n',
}


def write(folder, tokenizer, **files):
    """A folder of another program: without checksums, with other files beside the tokenizer."""
    tokenizer.save(folder)
    for path in folder.iterdir():
        if path.name not in ("tokenizer.json", "tokenizer.model"):
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content.encode())
    return folder


def configured(folder, tokenizer, config, **files):
    return write(folder, tokenizer, **{CONFIG: json.dumps(config)}, **{n: json.dumps(v) for n, v in files.items()})


def ids_of(tokenizer):
    return tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.stop_ids, tokenizer.start_id


@pytest.mark.parametrize("make_one", [llama, lambda: pieces_of(LINES, byte_fallback=True, vocab_size=350)])
def test_unused_files_survive_load_and_save_unchanged(make_one, tmp_path):
    source = write(tmp_path / "source", make_one(), **BESIDE)
    read_tokenizer(source).save(tmp_path / "again")
    for path in source.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in (tmp_path / "again").iterdir()} == {p.name for p in source.iterdir()} | {"SHA256SUMS"}
    assert ids_of(read_tokenizer(tmp_path / "again")) == (1, 2, 0, (2, 7), 1)


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({"bos_token": "<s>", "eos_token": "</s>"}, {}, (1, 2, None, (2,), 1)),
        ({"bos_token": {"content": "<s>"}, "eos_token": None}, {}, (1, None, None, (), 1)),
        ({"bos_token": None, "eos_token": "</s>", "pad_token": "</s>"}, {}, (None, 2, 2, (2,), 2)),
        ({"bos_token": "<s>"}, {}, (1, None, None, (), 1)),
        ({"bos_token": "<s>"}, {MAP: {"eos_token": "</s>", "pad_token": {"content": "<unk>"}}}, (1, 2, 0, (2,), 1)),
        ({"bos_token": "<s>"}, {GENERATION: {"eos_token_id": 2}}, (1, 2, None, (2,), 1)),
        ({"eos_token": "</s>"}, {GENERATION: {"eos_token_id": [5, 2], "pad_token_id": 0}}, (None, 2, 0, (2, 5), 2)),
        ({"eos_token": "</s>"}, {GENERATION: {"eos_token_id": None}}, (None, 2, None, (2,), 2)),
        ({"eos_token": None}, {GENERATION: {"eos_token_id": 2}}, (None, None, None, (2,), 1)),
        ({"bos_token": "<s>", "eos_token": "</s>"}, {GENERATION: {"eos_token_id": [999_999]}}, (1, 2, None, (2,), 1)),
        ({"bos_token": "<none>", "eos_token": "</s>"}, {}, (None, 2, None, (2,), 2)),
        ({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "a"}, {}, (1, 2, None, (2,), 1)),
        ({}, {}, (None, None, None, (), 1)),
    ],
    ids=str,
)
def test_the_files_name_the_special_ids(config, files, expected, tmp_path, caplog):
    folder = configured(tmp_path, llama(), config, **files)
    assert ids_of(read_tokenizer(folder)) == expected
    warned = "<none>" in str(config) or "'a'" in str(config) or "999999" in str(files)
    assert bool(caplog.records) == warned
    if config and not warned and None not in config.values():  # a sentencepiece model has ids of its own
        pieces = configured(tmp_path / "pieces", pieces_of(LINES, byte_fallback=True, vocab_size=350), config, **files)
        found = read_tokenizer(pieces)
        assert (found.bos_id, found.eos_id or 2, found.pad_id) == (1, 2, expected[2])
        assert set(found.stop_ids) == {2, *expected[3]} and found.start_id == 1


def test_special_ids_without_settings(tmp_path):
    assert ids_of(read_tokenizer(write(tmp_path / "a", byte_level()))) == (None, 256, None, (256,), 256)
    assert ids_of(read_tokenizer(write(tmp_path / "b", unigram()))) == (None, 1, None, (1,), 1)
    assert ids_of(read_tokenizer(write(tmp_path / "c", bert()))) == (None, None, None, (), 2)
    assert ids_of(read_tokenizer(write(tmp_path / "d", make("pieces, T5")))) == (None, 1, 0, (1,), 1)
    assert ids_of(read_tokenizer(write(tmp_path / "e", make("bpe of tabs")))) == (1, 1, None, (1,), 1)
    assert ids_of(ByteTokenizer()) == (256, 256, None, (256,), 256)


@pytest.mark.parametrize(("other", "start"), [("<|endoftext|>", 256), ("<|other|>", 260)])
def test_marks_of_turns_start_documents_only_if_no_usual_token_can(other, start, tmp_path):
    chat = byte_level(more=added({"<|im_start|>": 260, "<|im_end|>": 261}))
    chat.save(tmp_path)
    content = (tmp_path / "tokenizer.json").read_text("utf-8").replace("<|endoftext|>", other)
    names = Settings.naming(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>")
    assert ids_of(JsonTokenizer(content, settings=names)) == (260, 261, 261, (261,), start)


def test_no_text_is_encoded_to_an_end_token_that_is_an_ordinary_piece():
    tokenizer = make("pieces, chat")
    size, end = tokenizer.processor.vocab_size(), tokenizer.processor.piece_to_id("<sep>")
    assert ids_of(tokenizer) == (1, end, size + 2, (end,), 1) and tokenizer.vocab_size == size + 3
    assert not {end, size, size + 1, size + 2} & set(tokenizer.encode("say <sep><pad><|im_end|><tool>"))
    assert tokenizer.decode([size, *tokenizer.encode("a"), size + 1, end, *tokenizer.encode("b")]) == "a<tool> b"


@pytest.mark.parametrize("first", ["byte", "llama", "pieces, T5", "bert", "bpe of tabs"])
@pytest.mark.parametrize("second", ["byte", "gemma", "pieces, chat", "unigram", "bpe of english"])
def test_the_last_save_is_read(first, second, tmp_path):
    (tmp_path / "spiece.model").write_bytes(make("pieces, bpe").model)
    for name in ("vocab.txt", "merges.txt", "added_tokens.json", GENERATION):
        (tmp_path / name).write_text('{"<s>": 1}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    make(first).save(tmp_path)
    make(second).save(tmp_path)
    found = read_tokenizer(tmp_path)
    assert found.fingerprint == make(second).fingerprint and ids_of(found) == ids_of(make(second))
    make(second).save(tmp_path / "alone")
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (tmp_path / "alone").iterdir()} | {
        "alone", "model.safetensors",
    }  # fmt: skip
    checksums.verify(tmp_path)


def test_a_failed_save_keeps_the_old_tokenizer(tmp_path, monkeypatch):
    llama().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        bert().save(tmp_path)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tokenizers_that_contradict_each_other_are_both_named(tmp_path):
    model = make("pieces, bpe in bytes").model
    for name, other in {"byte": ByteTokenizer(), "gpt2": byte_level(), "bert": bert()}.items():
        other.save(tmp_path / name)
        (tmp_path / name / "tokenizer.model").write_bytes(model)
        with pytest.raises(ValueError, match=r"contradict each other, tokenizer.json and tokenizer.model: remove"):
            read_tokenizer(tmp_path / name)
    for name in ("spiece.model", "tokenizer.model"):
        (tmp_path / name).write_bytes(model)
    assert read_tokenizer(tmp_path).fingerprint == make("pieces, bpe in bytes").fingerprint
    (tmp_path / "spiece.model").write_bytes(make("pieces, bpe").model)
    with pytest.raises(ValueError, match=r"contradict each other, spiece.model and tokenizer.model"):
        read_tokenizer(tmp_path)


def test_a_published_folder_with_both_forms_of_one_tokenizer(tmp_path):
    """As in Llama folders, the tokenizer.json has the pieces of the sentencepiece model; the tokenizer.json is read."""
    pieces = make("pieces, bpe in bytes")
    words = [pieces.processor.id_to_piece(i) for i in range(pieces.vocab_size)]
    model = {"type": "BPE", "vocab": {word: i for i, word in enumerate(words)}, "merges": [], "unk_token": "<unk>"}
    content = {"version": "1.0", "model": model, "added_tokens": added({"<unk>": 0, "<s>": 1, "</s>": 2})}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer.model").write_bytes(pieces.model)
    assert hasattr(read_tokenizer(tmp_path), "tokenizer")
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert hasattr(read_tokenizer(tmp_path), "tokenizer")


@pytest.mark.parametrize("kind", ["byte", "bert", "bpe of tabs", "pieces, chat"])
def test_every_flipped_bit_is_detected(kind, tmp_path):
    make(kind).save(tmp_path)
    choose = random.Random(kind)
    for path in [path for path in tmp_path.iterdir() if path.name != checksums.SUMS]:
        content = path.read_bytes()
        for _ in range(4):
            changed, place = bytearray(content), choose.randrange(len(content))
            changed[place] ^= 1 << choose.randrange(8)
            path.write_bytes(changed)
            with pytest.raises(checksums.DamagedError, match=path.name):
                read_tokenizer(tmp_path)
        path.write_bytes(content)
    read_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders without checksums, as written by another library."""
    root = tmp_path_factory.mktemp("foreign")
    for kind in ("byte level, added", "llama", "bert", "unigram in bytes", "words", "pieces, chat", "bpe of tabs"):
        make(kind).save(root / kind)
        (root / kind / checksums.SUMS).unlink()
    return root


@given(data=st.data())
@settings(max_examples=150, phases=[Phase.explicit, Phase.generate])
def test_random_damage_is_read_or_refused_by_name(folders, data):
    choose = data.draw(st.randoms(use_true_random=False))
    source, target = choose.choice(sorted(p for p in folders.iterdir() if p.name != "damaged")), folders / "damaged"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = choose.choice(sorted(target.iterdir()))
    content = bytearray(path.read_bytes())
    start = choose.randrange(len(content))
    stop = start + choose.choice([0, 1, 1, 1, 7, len(content)])
    content[start:stop] = choose.randbytes(choose.choice([0, 1, 1, 1, 7]))
    path.write_bytes(content)
    try:
        tokenizer = read_tokenizer(target)
    except ValueError as error:
        assert str(target) in str(error)
        return
    try:
        assert isinstance(tokenizer.decode(tokenizer.encode("the cat <s> é 猫")), str)
    except ValueError as error:
        assert "cannot be encoded" in str(error)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json is not UTF-8"),
        ("tokenizer.json", b"[]", "the content of tokenizer.json is not a tokenizer"),
        ("tokenizer.json", b"", "the content of tokenizer.json is not a tokenizer"),
        ("tokenizer.json", b'{"a":' * 5000, "the content of tokenizer.json is not a tokenizer"),
        (
            "tokenizer.json",
            b'{"model": {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []}}',
            "ids must be from 0",
        ),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "ids must be from 0"),
        ("tokenizer.model", b"", "tokenizer.model is not a sentencepiece model: it holds no pieces"),
        ("tokenizer.model", b"garbage", "tokenizer.model is not a sentencepiece model: "),
        (CONFIG, b"[1]", "tokenizer_config.json must contain a JSON object, got list"),
        (CONFIG, b'{"eos_token": 3}', "tokenizer_config.json: eos_token must be the text of a token, got 3"),
        (CONFIG, b'{"eos_token": {"content": []}}', "eos_token must be the text of a token"),
        (CONFIG, b"[" * 100_000, "tokenizer_config.json is nested too deeply"),
        (CONFIG, b'{"additional_special_tokens": 1}', "additional_special_tokens must be a list of tokens, got 1"),
        (CONFIG, b'{"added_tokens_decoder": {"x": 1}}', "added_tokens_decoder of tokenizer_config.json ids to tokens"),
        ("added_tokens.json", b'{"<x>": -1}', "the added token '<x>' has the id -1"),
        (GENERATION, b'{"eos_token_id": "2"}', "generation_config.json: eos_token_id must be an id or a list of ids"),
        (GENERATION, b"{", "generation_config.json is not JSON"),
    ],
    ids=str,
)
def test_damaged_files_are_named(name, content, message, tmp_path):
    if name != "tokenizer.model":
        write(tmp_path, llama())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=str(tmp_path)) as raised:
        read_tokenizer(tmp_path)
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["tokenizer.json", CONFIG])
def test_a_byte_order_mark_is_skipped(name, tmp_path):
    configured(tmp_path, llama(), {"bos_token": "<s>"})
    expected = read_tokenizer(tmp_path).encode("the a")
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert read_tokenizer(tmp_path).encode("the a") == expected


def test_unreadable_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.model cannot be read: No such file"):
        read_tokenizer(tmp_path / "none.model")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes.txt is not a tokenizer: neither tokenizer.json nor a .model"):
        read_tokenizer(tmp_path / "notes.txt")


def test_a_vocabulary_may_have_unused_ids():
    tokenizer = byte_level(more=added({"<far>": 900}))
    assert tokenizer.vocab_size >= 261 and tokenizer.decode(range(tokenizer.vocab_size)).endswith("the .")
    assert tokenizer.token_bytes[np.arange(256)].sum() == 256
