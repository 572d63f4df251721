"""One small tokenizer of every kind that can be loaded, and texts that mean something to some of them."""

import functools
import io
import json
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import gguf
import sentencepiece
from hypothesis import strategies as st

from memgpt_jax.data import ByteTokenizer, SentencePieceTokenizer, read_tokenizer
from memgpt_jax.data.tokenizers.files import Settings
from memgpt_jax.data.tokenizers.json_file import ALPHABET, JsonTokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import train_sentencepiece

ENGLISH = Path(textwrap.__file__).read_text()
JAPANESE = (
    "日本語のテキストです。空白はありません。\n吾輩は猫である。名前はまだ無い。\n你好世界这是一个没有空格的文本\n"
)
ODD = "▁ \ue000 \0 🙂 e\u0301 \r\n x\x0by\x0cz\x85\u2028\u2029 \ufffd <unk> <s> ▅ \t\xa0\u3000\n" * 9
TEXTS_OF_BPE = {
    "english": (ENGLISH, 400),
    "without spaces": (JAPANESE, 330),
    "odd characters": (ODD, 268),
    "one character": ("a" * 200, 266),
    "tabs": ("def f(x):\n\treturn\tx\n\tif x:\n\t\ty\n" * 9, 280),
}
AWKWARD = [
    *("<s>", "</s>", "<document>", "<|endoftext|>", "[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>", "<mask>", "<0x41>"),
    *(
        "<extra_id_0>",
        "<sep>",
        "<|im_end|>",
        "<tool>",
        "▁",
        "\ue000",
        "\ue000a",
        "\0",
        "\t",
        "\n",
        "\r",
        "\x0b",
        "\x0c",
    ),
    *(
        "\x85",
        "\u2028",
        "\ufffd",
        "🙂",
        "e\u0301",
        "\xa0",
        "\u3000",
        " ",
        "  ",
        "##",
        "Ġ",
        "é",
        "don't",
        " n't",
        " .",
        "▅",
    ),
    *("猫", "ﬁ", "Ⅷ", "the", "hello", "A", "'s"),
]
TEXTS = st.lists(
    st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)), max_size=8
).map("".join)

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz<>/[]|_!.,'"]
MARK = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def added(tokens: dict[str, int], **flags) -> list[dict]:
    return [{"id": i, "content": text} | FLAGS | {"special": True} | flags for text, i in tokens.items()]


def of_json(model: dict, names: dict, **parts) -> JsonTokenizer:
    content = {"version": "1.0", "model": model} | parts
    return JsonTokenizer(json.dumps(content), settings=Settings.naming(**names))


def byte_level(merges=(), level=LEVEL, more=(), names=None, **parts) -> JsonTokenizer:
    pieces = [*ALPHABET, "<|endoftext|>", "th", "the", "Ġ.", *("".join(merge) for merge in merges)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    tokens = added({"<|endoftext|>": 256}) + list(more)
    merges = [["t", "h"], ["th", "e"], ["Ġ", "."], *merges]
    names = names or {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    model = {"type": "BPE", "vocab": vocab, "merges": merges} | parts.pop("model", {})
    return of_json(model, names, **{"added_tokens": tokens, "pre_tokenizer": level, "decoder": LEVEL} | parts)


def special_merges() -> JsonTokenizer:
    """The model itself can make a special token of characters."""
    return byte_level([["<", "s"], ["<s", ">"]], more=added({"<s>": 261}))


def whole_words() -> JsonTokenizer:
    """Words that are in the vocabulary are tokens, whatever the merges are."""
    cut = {"type": "Split", "pattern": {"String": "猫"}, "behavior": "Isolated", "invert": False}
    level = {"type": "Sequence", "pretokenizers": [cut, LEVEL | {"use_regex": False}]}
    return byte_level(level=level, model={"ignore_merges": True})


def ordinary_added() -> JsonTokenizer:
    more = added({"<tool>": 260, "<\uff5cfim▁hole\uff5c>": 261}, special=False)
    return byte_level(more=more)


def named_end() -> JsonTokenizer:
    """Only the settings call the end special, and the model can make it of characters."""
    merges = [["<", "s"], ["<s", ">"]]
    more = added({"<s>": 261, "<|im_end|>": 262}, special=False)
    return byte_level(merges, more=more, names={"bos_token": "<s>", "eos_token": "<|im_end|>"})


def llama(**parts) -> JsonTokenizer:
    pieces = ["<unk>", "<s>", "</s>", *BYTE_TOKENS, "▁", *LETTERS, "▁a", "th", "the", "▁the", "▁▁"]
    merges = [["▁", "a"], ["t", "h"], ["th", "e"], ["▁", "the"], ["▁", "▁"]]
    model = {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": merges, "unk_token": "<unk>"}
    model |= {"byte_fallback": True, "fuse_unk": True}
    space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoder = {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, mark]}
    tokens = added({"<unk>": 0, "<s>": 1, "</s>": 2})
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return of_json(model, names, **{"added_tokens": tokens, "normalizer": normalizer, "decoder": decoder} | parts)


def metaspace_llama() -> JsonTokenizer:
    first = MARK | {"prepend_scheme": "first", "split": False}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, first]}
    return llama(normalizer=None, pre_tokenizer=first, decoder=decoder)


def gemma() -> JsonTokenizer:
    space = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    decoder = {"type": "Sequence", "decoders": [space, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return llama(normalizer=space | {"pattern": {"String": " "}, "content": "▁"}, decoder=decoder)


def bert(cut: str = "BertPreTokenizer") -> JsonTokenizer:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *LETTERS,
        *(f"##{c}" for c in LETTERS),
        "the",
        "##the",
        "don",
    ]
    model = {"type": "WordPiece", "vocab": {p: i for i, p in enumerate(pieces)}, "unk_token": "[UNK]"}
    model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True}
    parts = {"normalizer": normalizer | {"strip_accents": None}, "pre_tokenizer": {"type": cut}}
    parts["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    return of_json(model, names, added_tokens=added({p: i for i, p in enumerate(pieces[:5])}), **parts)


def unigram(fallback: bool = False) -> JsonTokenizer:
    pieces = ["<pad>", "</s>", "<unk>", *(BYTE_TOKENS if fallback else []), "▁", *LETTERS, "▁the", "the", "猫"]
    first = len(pieces)
    pieces += [f"<extra_id_{i}>" for i in reversed(range(100))]
    model = {"type": "Unigram", "vocab": [[p, -1.0 - i / 100] for i, p in enumerate(pieces)], "unk_id": 2}
    tokens = added({p: i for i, p in enumerate(pieces[:3])} | {p: i for i, p in enumerate(pieces) if i >= first})
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, MARK]} if fallback else MARK
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    model |= {"byte_fallback": fallback}
    return of_json(model, names, added_tokens=tokens, pre_tokenizer=MARK, decoder=decoder)


def words() -> JsonTokenizer:
    pieces = ["<unk>", "<s>", "</s>", "the", "hello", "猫", "."]
    model = {"type": "WordLevel", "vocab": {p: i for i, p in enumerate(pieces)}, "unk_token": "<unk>"}
    names = {"bos_token": "<s>", "eos_token": "</s>"}  # not among the added tokens: the settings alone name them
    return of_json(model, names, pre_tokenizer={"type": "WhitespaceSplit"})


def word_ends() -> JsonTokenizer:
    """GPT's first tokenizer: the last piece of a word is marked."""
    pieces = ["<unk>", *LETTERS, *(f"{c}</w>" for c in LETTERS), "th", "the</w>"]
    model = {"type": "BPE", "vocab": {p: i for i, p in enumerate(pieces)}, "merges": [["t", "h"], ["th", "e</w>"]]}
    model |= {"unk_token": "<unk>", "end_of_word_suffix": "</w>"}
    end = added({"<|endoftext|>": len(pieces)})
    parts = {"pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "BPEDecoder", "suffix": "</w>"}}
    return of_json(model, {"bos_token": "<|endoftext|>"}, added_tokens=end, **parts)


def pieces_of(texts: list[str], settings: dict | None = None, files: dict | None = None, **options):
    model = io.BytesIO()
    defaults = {"vocab_size": 400, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20), model_writer=model, **defaults | options
    )
    files = {name: json.dumps(content).encode() for name, content in (files or {}).items()}
    if settings:
        files["tokenizer_config.json"] = json.dumps(settings).encode()
    return SentencePieceTokenizer(model.getvalue(), Settings(files))


LINES = ["hello again my friend, the cat is 猫", "don't  say <sep> the A", "the theme"]


def chat() -> SentencePieceTokenizer:
    """Ends that are a user-defined symbol, and tokens behind those of the model."""
    settings = {"eos_token": "<sep>", "pad_token": {"content": "<pad>"}}
    more = {"<|im_end|>": {"special": True}, "<tool>": {"special": False}, "<pad>": {"special": True}}
    symbols = {"model_type": "bpe", "byte_fallback": True, "user_defined_symbols": ["<sep>"]}
    size = pieces_of(LINES, **symbols).vocab_size
    decoder = {str(size + i): {"content": text} | flags for i, (text, flags) in enumerate(more.items())}
    return pieces_of(LINES, settings | {"added_tokens_decoder": decoder}, **symbols)


def t5_pieces() -> SentencePieceTokenizer:
    ids = {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    size = pieces_of(LINES, **ids).vocab_size
    extra = {f"<extra_id_{i}>": size + 99 - i for i in range(100)}
    return pieces_of(LINES, {"eos_token": "</s>"}, {"added_tokens.json": extra}, **ids)


def in_gguf(fill: Callable[[gguf.GGUFWriter], None]):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        fill(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return read_tokenizer(path)


def gguf_bytes(writer: gguf.GGUFWriter) -> None:
    tokens = [*ALPHABET, "th", "the", "<|endoftext|>", "<|im_end|>", "<tool>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 258 + [3, 3, 4])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(258)
    writer.add_eos_token_id(259)
    writer.add_eot_token_id(258)


def gguf_pieces(writer: gguf.GGUFWriter) -> None:
    words = ["▁", "t", "h", "e", "th", "the", "▁the", "<tool>"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *BYTE_TOKENS, *words])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(words) - 1) + [4])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


BPE = {"model_type": "bpe", "vocab_size": 350}
KINDS: dict[str, Callable] = {
    "byte": ByteTokenizer,
    **{f"bpe of {name}": functools.partial(train_sentencepiece, [t], size) for name, (t, size) in TEXTS_OF_BPE.items()},
    "pieces, normalised": functools.partial(pieces_of, LINES, model_type="unigram"),
    "pieces, unigram in bytes": functools.partial(pieces_of, LINES, model_type="unigram", byte_fallback=True),
    "pieces, bpe in bytes": functools.partial(pieces_of, LINES, byte_fallback=True, **BPE),
    "pieces, bpe": functools.partial(pieces_of, LINES, **BPE),
    "pieces, plain": functools.partial(
        pieces_of,
        LINES,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        **BPE,
    ),
    "pieces, user-defined": functools.partial(
        pieces_of, LINES, byte_fallback=True, user_defined_symbols=["<sep>", "<s>x", "▁"], **BPE
    ),
    "pieces, chat": chat,
    "pieces, T5": t5_pieces,
    "byte level": byte_level,
    "byte level, space first": functools.partial(byte_level, level=LEVEL | {"add_prefix_space": True}),
    "byte level, normalised": functools.partial(byte_level, normalizer={"type": "NFC"}),
    "byte level, special merges": special_merges,
    "byte level, whole words": whole_words,
    "byte level, added": ordinary_added,
    "byte level, named end": named_end,
    "byte level, added byte": functools.partial(byte_level, more=added({"<é>": 260}, special=False)),
    "byte level, added stripped": functools.partial(byte_level, more=added({"<t>": 260}, special=False, lstrip=True)),
    "llama": llama,
    "llama, metaspace": metaspace_llama,
    "gemma": gemma,
    "bert": bert,
    "bert, at spaces": functools.partial(bert, "WhitespaceSplit"),
    "unigram": unigram,
    "unigram in bytes": functools.partial(unigram, True),
    "words": words,
    "word ends": word_ends,
    "gguf, gpt2": functools.partial(in_gguf, gguf_bytes),
    "gguf, llama": functools.partial(in_gguf, gguf_pieces),
}
LOSSLESS = {"byte", *(f"bpe of {name}" for name in TEXTS_OF_BPE), "byte level", "byte level, special merges"}
LOSSLESS |= {"byte level, named end", "byte level, whole words", "byte level, added", "gguf, gpt2"}


@functools.cache
def make(kind: str):
    return KINDS[kind]()
