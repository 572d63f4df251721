"""The byte and BPE tokenizers are lossless, and count the bytes of texts."""

import textwrap
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies as st

from memgpt_jax.data import ByteTokenizer, SentencePieceTokenizer, read_tokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import _training_lines, train_sentencepiece

SAMPLE = [Path(textwrap.__file__).read_text(), "Täglich grüßt 東京 🙂 ▁ \ue000 \0 \ufffd <unk>\r\n" * 20]
# Every character, and often those that mean something to sentencepiece or to our escapes.
TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" ▁\ue000ab\n\r\t\0\ufffd\u2028\f\x85<unk>"))
)


@pytest.fixture(scope="module", params=["bpe", "byte"])
def tokenizer(request):
    return ByteTokenizer() if request.param == "byte" else train_sentencepiece(SAMPLE, 400)


@hypothesis.given(text=TEXTS)
@hypothesis.settings(deadline=None, max_examples=300, derandomize=True)
def test_every_text_round_trips_and_its_bytes_are_counted(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(np.array([tokenizer.start_id, *ids], np.int32)) == text
    assert tokenizer.start_id not in ids
    assert tokenizer.token_bytes[np.array(ids, np.int32)].sum() == len(text.encode())


@pytest.mark.parametrize("text", ["", " ", "  lead", "trail \n", "a\0b", "▁▁ a▁", "\ue000a\ue000b\ue000", " ⁇ ", "<s>"])
def test_unusual_texts_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_token_bytes_of_specials_are_zero(tokenizer):
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,) and tokenizer.token_bytes.dtype == np.int32
    assert tokenizer.token_bytes[tokenizer.start_id] == 0


def test_incomplete_characters_are_replaced(tokenizer):
    assert tokenizer.decode(tokenizer.encode("𐍈")[:-1] + tokenizer.encode("a")).endswith("a")
    assert "\ufffd" in tokenizer.decode(tokenizer.encode("𐍈")[:-1])


def test_a_saved_tokenizer_round_trips(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = read_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer) and loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode(SAMPLE[0]) == tokenizer.encode(SAMPLE[0])


def test_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no tokenizer: none of tokenizer.json, tokenizer.model"):
        read_tokenizer(tmp_path)


def test_training_is_deterministic_and_uses_runs_of_spaces():
    first, second = (train_sentencepiece(iter(SAMPLE), 400) for _ in range(2))
    assert first.model == second.model and first.vocab_size == 400
    assert len(first.encode("    ")) < 4
    assert len(first.encode("\n\n\n")) == 3
    assert train_sentencepiece(SAMPLE, 390).fingerprint != first.fingerprint


def test_lines_can_be_encoded_separately():
    tokenizer = train_sentencepiece(SAMPLE, 400)
    text = SAMPLE[0] + SAMPLE[1] + "a\rb\u2028c\f d\n\n x"
    whole = tokenizer.processor.encode(text.replace("\ue000", "\ue000b").replace("▁", "\ue000a"))
    assert tokenizer.encode(text) == whole


def test_training_text_is_limited(monkeypatch):
    monkeypatch.setattr("memgpt_jax.data.tokenizers.sentencepiece_file.TRAINING_CHARACTERS", 10)
    monkeypatch.setattr("memgpt_jax.data.tokenizers.sentencepiece_file.LONGEST_LINE", 4)

    def texts():
        yield "abcdef\n"
        yield "ghijkl"
        raise AssertionError("read beyond the cap")

    assert list(_training_lines(texts())) == ["abcd", "ef\n", "ghi"]


def test_a_vocabulary_too_large_for_the_text_is_refused():
    with pytest.raises(ValueError, match=r"data.tokenizer_vocab_size=4096 does not fit the training text"):
        train_sentencepiece(["abc\n"], 4096)


def test_a_model_of_another_program(tmp_path):
    """A model without our escapes works, and starts documents with its own begin symbol."""
    (tmp_path / "text").write_text("\n".join(SAMPLE))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "m"), vocab_size=350, model_type="bpe",
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer((tmp_path / "m.model").read_bytes())
    assert tokenizer.start_id == tokenizer.processor.bos_id() == 1
    assert tokenizer.decode(tokenizer.encode("return memory 東")) == "return memory 東"
