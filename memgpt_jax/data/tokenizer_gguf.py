"""Tokenizers inside of GGUF files."""

import json
from pathlib import Path
from typing import Any

from memgpt_jax.data.tokenizer import SentencePieceTokenizer, Tokenizer
from memgpt_jax.data.tokenizer_json import JsonTokenizer

CONTROL, USER_DEFINED = 3, 4  # kinds of tokens, numbered alike by GGUF and by sentencepiece
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PLAIN_BYTES = BYTES | {"use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "default": [BYTES],
    "gpt-2": [BYTES],
    "smollm": [DIGITS, BYTES],
    "llama-bpe": [_split(LETTERS + r"\p{N}{1,3}" + OTHERS), PLAIN_BYTES],
    "qwen2": [_split(LETTERS + r"\p{N}" + OTHERS), PLAIN_BYTES],
}
"""How a text is cut before it is encoded, by `tokenizer.ggml.pre`."""


def from_gguf(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file: byte-level BPE, or sentencepiece. Raises `ValueError` for another kind."""
    from gguf import GGUFReader

    prefix = "tokenizer.ggml."
    fields = GGUFReader(path).fields
    values = {name.removeprefix(prefix): fields[name].contents() for name in fields if name.startswith(prefix)}
    kind = values.get("model")
    if kind == "gpt2":
        return _byte_level(path, values)
    if kind == "llama":
        return _sentencepiece(values)
    raise ValueError(f"{path}: a tokenizer of kind {kind!r} is not supported; valid: gpt2, llama")


def _byte_level(path: Path, values: dict[str, Any]) -> JsonTokenizer:
    cut = values.get("pre", "default")
    if cut not in PRE_TOKENIZERS:
        raise ValueError(f"{path}: tokenizer.ggml.pre={cut!r} is not supported; valid: {', '.join(PRE_TOKENIZERS)}")
    tokens, kinds = values["tokens"], values["token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": token, "special": kind == CONTROL} | flags
        for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    content = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[cut]},
        "decoder": PLAIN_BYTES,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in values["merges"]],
        },
    }
    first = values.get("bos_token_id", values.get("eos_token_id"))
    return JsonTokenizer(json.dumps(content), tokens[first])


def _sentencepiece(values: dict[str, Any]) -> SentencePieceTokenizer:
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for token, score, kind in zip(values["tokens"], values["scores"], values["token_type"], strict=True):
        model.pieces.add(piece=token, score=score, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(model.pieces), True
    for name in ("unk", "bos", "eos"):
        default = {"unk": "unknown"}.get(name, name)
        number = values.get(f"{default}_token_id", -1)
        setattr(trainer, f"{name}_id", number)
        if number >= 0:
            setattr(trainer, f"{name}_piece", model.pieces[number].piece)
    trainer.pad_id = -1
    normalizer.name, normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = "identity", False, True
    normalizer.add_dummy_prefix = values.get("add_space_prefix", True)
    return SentencePieceTokenizer(model.SerializeToString())
