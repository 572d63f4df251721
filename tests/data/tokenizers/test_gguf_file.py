"""Tokenizers of GGUF files are read as by llama.cpp, or refused with the name of the file."""

import random

import gguf
import pytest

from memgpt_jax.data import read_tokenizer
from memgpt_jax.data.tokenizers.json_file import ALPHABET
from tests.references.tokenizers import BYTE_TOKENS

WORDS = ["▁", "a", "▁a", "b"]
PIECES = {"tokens": ["<unk>", "<s>", "</s>", *BYTE_TOKENS, *WORDS], "model": "llama"}
PIECES |= {"token_type": [2, 3, 3] + [6] * 256 + [1] * 4, "scores": [0.0] * 259 + [-9.0, -9.0, -1.0, -9.0]}
PIECES |= {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
LEVEL = {"tokens": [*ALPHABET, "ab", "<|end|>", "<|turn|>"], "model": "gpt2", "merges": ["a b"], "pre": "gpt-2"}
LEVEL |= {"token_type": [1] * 257 + [3, 3], "bos_token_id": 257, "eos_token_id": 257}
KINDS = {"pieces": PIECES, "level": LEVEL}


def write(path, values):
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in values.items():
        name = name if name.startswith("tokenizer.") else f"tokenizer.ggml.{name}"
        kinds = {str: writer.add_string, int: writer.add_uint32, list: writer.add_array, bool: writer.add_bool}
        kinds[type(value)](name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def changed(values, changes):
    return {name: value for name, value in (values | changes).items() if value is not None}


def more(values, tokens, kind):
    """Additional tokens, all of one kind."""
    changes = {"tokens": values["tokens"] + tokens, "token_type": values["token_type"] + [kind] * len(tokens)}
    return changes | ({"scores": values["scores"] + [0.0] * len(tokens)} if "scores" in values else {})


READABLE = {
    "no scores": ("pieces", {"scores": None}),
    "no kinds": ("pieces", {"token_type": None}),
    "no scores, no kinds": ("pieces", {"scores": None, "token_type": None}),
    "no ids": ("pieces", {"bos_token_id": None, "eos_token_id": None, "unknown_token_id": None}),
    "no ids, no kinds": ("pieces", {"bos_token_id": None, "eos_token_id": None, "token_type": None}),
    "ids beyond": ("pieces", {"padding_token_id": 4_000_000, "eot_token_id": 999}),
    "fillers": ("pieces", more(PIECES, ["[PAD]"] * 3, 4)),
    "unused fillers": ("pieces", more(PIECES, ["[PAD]"] * 2, 5)),
    "empty": ("pieces", more(PIECES, ["", ""], 1)),
    "second unknown": ("pieces", more(PIECES, ["<UNK>"], 2)),
    "space first": ("pieces", {"add_space_prefix": False}),
    "level": ("level", {}),
    "level, no kinds": ("level", {"token_type": None}),
    "level, fillers": ("level", more(LEVEL, ["[PAD]"] * 3, 4)),
    "level, control fillers": ("level", more(LEVEL, ["<|end|>"] * 2, 3)),
    "level, empty": ("level", more(LEVEL, [""] * 2, 1)),
    "level, padding with a character": ("level", {"padding_token_id": 0}),
    "level, no pre": ("level", {"pre": None}),
    "level, ids beyond": ("level", {"padding_token_id": 4_000_000}),
}


@pytest.mark.parametrize("name", READABLE)
def test_unusual_files_are_read_as_by_llama_cpp(name, tmp_path):
    kind, changes = READABLE[name]
    values = changed(KINDS[kind], changes)
    tokenizer = read_tokenizer(write(tmp_path / "m.gguf", values))
    assert tokenizer.vocab_size == len(values["tokens"])
    text = "a a é"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and len(ids) < 10
    expected = (1, 2) if kind == "pieces" else (257, 257)
    assert (tokenizer.bos_id, tokenizer.eos_id) == expected and tokenizer.start_id == expected[0]
    assert tokenizer.stop_ids == expected[1:] and tokenizer.pad_id is None
    assert not set(tokenizer.encode("<s> </s> <|end|> [PAD]<no text 259>")) & {*expected}
    tokenizer.save(tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    assert again.fingerprint == tokenizer.fingerprint and again.stop_ids == tokenizer.stop_ids


def test_ordinary_special_tokens_and_ends(tmp_path):
    changes = {"eot_token_id": 258, "padding_token_id": 258, "tokenizer.chat_template": "{{ messages }}"}
    tokenizer = read_tokenizer(write(tmp_path / "m.gguf", changed(LEVEL, changes)))
    assert (tokenizer.stop_ids, tokenizer.pad_id) == ((257, 258), 258) and tokenizer.lossless
    tokenizer.save(tmp_path / "saved")
    assert "{{ messages }}" in (tmp_path / "saved" / "tokenizer_config.json").read_text()
    again = read_tokenizer(tmp_path / "saved")
    assert (again.stop_ids, again.pad_id, again.bos_id) == ((257, 258), 258, 257)


REFUSED = {
    "another kind": ("pieces", {"model": "bert"}, "a tokenizer of kind 'bert' is not supported; valid: llama, gpt2"),
    "no kind": ("pieces", {"model": None}, "a tokenizer of kind None is not supported"),
    "no tokens": ("pieces", {"tokens": None}, "tokenizer.ggml.tokens must be a list of str"),
    "tokens that are numbers": ("pieces", {"tokens": [1, 2]}, "tokenizer.ggml.tokens must be a list of str"),
    "fewer scores": ("pieces", {"scores": [0.0]}, "tokenizer.ggml.scores has 1 entries for 263 tokens"),
    "fewer kinds": ("level", {"token_type": [1]}, "tokenizer.ggml.token_type has 1 entries for 259 tokens"),
    "unknown kinds": ("level", {"token_type": [9] * 259}, r"tokenizer.ggml.token_type holds \[9\]; valid: 1, 2, 3"),
    "no merges": ("level", {"merges": None}, "tokenizer.ggml.merges must be a list of str"),
    "half a merge": ("level", {"merges": ["ab"]}, "tokenizer.ggml.merges holds 'ab', which is not two tokens"),
    "merge of no tokens": ("level", {"merges": ["猫 猫"]}, "the content of tokenizer.json is not a tokenizer"),
    "unknown cut": ("level", {"pre": "x"}, "tokenizer.ggml.pre='x' is not supported; valid: default, gpt-2"),
    "no special tokens": ("level", {"bos_token_id": None, "eos_token_id": None}, "no special token can start"),
    "the same word twice": ("pieces", more(PIECES, ["a"], 1), r"the ids \[260, 263\] are the same token 'a'"),
    "the same bytes twice": ("level", more(LEVEL, ["ab"], 1), r"the ids \[256, 259\] are the same token 'ab'"),
    "nothing unknown": ("pieces", {"token_type": [1, 3, 3] + [6] * 256 + [1] * 4}, "no token for unknown text"),
    "fewer bytes": ("pieces", {"token_type": [2, 3, 3] + [6] * 255 + [1] * 5}, "byte"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_tokenizers_are_refused(name, tmp_path):
    kind, changes, message = REFUSED[name]
    path = write(tmp_path / "m.gguf", changed(KINDS[kind], changes))
    with pytest.raises(ValueError, match=f"{path}: its tokenizer cannot be used: .*{message}"):
        read_tokenizer(path)


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_read_or_refused_by_name(kind, tmp_path):
    path, choose = write(tmp_path / "m.gguf", KINDS[kind]), random.Random(0)
    content = path.read_bytes()
    for _ in range(60):
        start = choose.randrange(len(content))
        stop = start + choose.choice([0, 1, 1, 1, 7, len(content)])
        path.write_bytes(content[:start] + choose.randbytes(choose.choice([0, 1, 1, 1, 7])) + content[stop:])
        try:
            read_tokenizer(path)
        except ValueError as error:
            assert str(path) in str(error)


def test_several_files_in_a_folder(tmp_path):
    write(tmp_path / "m-00001-of-00002.gguf", LEVEL)
    write(tmp_path / "m-00002-of-00002.gguf", PIECES)
    assert read_tokenizer(tmp_path).vocab_size == 259
    write(tmp_path / "a.gguf", LEVEL)
    with pytest.raises(ValueError, match=r"holds several GGUF files: a.gguf, m-00001-of-00002.gguf, .*; name one"):
        read_tokenizer(tmp_path)
