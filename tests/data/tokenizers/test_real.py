"""Published vocabularies in the folder `MEMGPT_DATA`: GPT-2's, BERT's, and sentencepiece's own example."""

import json

import pytest
from hypothesis import given, settings

from memgpt_jax.data import read_tokenizer
from memgpt_jax.generation.text import AnswerText
from tests.laws.real_data import DATA
from tests.references.tokenizers import AWKWARD, LEVEL, TEXTS, added, of_json

FOLDER = DATA / "tokenizers"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there is no folder {FOLDER}")


@pytest.fixture(scope="module")
def gpt2():
    vocab = json.loads((FOLDER / "gpt2" / "encoder.json").read_text())
    merges = (FOLDER / "gpt2" / "vocab.bpe").read_text().splitlines()[1:]
    model = {"type": "BPE", "vocab": vocab, "merges": [merge.split(" ") for merge in merges if merge]}
    end = "<|endoftext|>"
    parts = {"added_tokens": added({end: vocab[end]}), "pre_tokenizer": LEVEL, "decoder": LEVEL}
    return of_json(model, {"bos_token": end, "eos_token": end, "unk_token": end}, **parts)


@pytest.fixture(scope="module")
def bert():
    words = (FOLDER / "bert-base-uncased" / "vocab.txt").read_text().splitlines()
    model = {"type": "WordPiece", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "[UNK]"}
    model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}
    parts = {"normalizer": normalizer | {"strip_accents": None}, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    parts["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return of_json(model, names, added_tokens=added({word: words.index(word) for word in special}), **parts)


@pytest.fixture(scope="module")
def pieces():
    return read_tokenizer(FOLDER / "sentencepiece_test" / "test_model.model")


def streamed(tokenizer, ids):
    answer = AnswerText(tokenizer, [tokenizer.start_id])
    return "".join([*map(answer.push, ids), answer.rest()])


@given(text=TEXTS)
@settings(max_examples=50)
def test_gpt2(gpt2, text):
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == streamed(gpt2, ids) == text
    assert sum(gpt2.token_bytes[ids]) == len(text.encode()) and gpt2.eos_id not in ids


def test_known_ids(gpt2, bert, pieces):
    assert gpt2.encode("Hello world") == [15496, 995] and gpt2.lossless
    assert (gpt2.start_id, gpt2.bos_id, gpt2.eos_id, gpt2.stop_ids) == (50256, 50256, 50256, (50256,))
    assert bert.encode("Hello world") == [7592, 2088] and not bert.lossless
    assert (bert.start_id, bert.bos_id, bert.eos_id, bert.pad_id, bert.stop_ids) == (101, None, None, 0, ())
    assert bert.special_ids == {"mask": 103, "cls": 101, "sep": 102}
    assert bert.decode(bert.encode("Hello world")) == "hello world"
    assert (pieces.bos_id, pieces.eos_id, pieces.stop_ids, pieces.start_id) == (
        1,
        2,
        (2,),
        1,
    ) and not pieces.lossless


@given(text=TEXTS)
@settings(max_examples=50)
def test_bert_and_pieces(bert, pieces, text):
    for tokenizer, special in ((bert, {0, 101, 102, 103}), (pieces, {1, 2})):
        ids = tokenizer.encode(text)
        assert not special & set(ids) and streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_unusual_texts_together(gpt2, bert, pieces):
    for tokenizer in (gpt2, bert, pieces):
        ids = tokenizer.encode(" ".join(AWKWARD))
        assert tokenizer.start_id not in ids and streamed(tokenizer, ids) == tokenizer.decode(ids)
