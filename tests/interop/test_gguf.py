"""A GGUF file gives the same model as the weights from which it was made."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import memgpt_jax as mg
from memgpt_jax import models
from memgpt_jax.data import read_tokenizer
from memgpt_jax.models.quantization import quantize_params
from memgpt_jax.ops import Int8Groups
from tests.references import foreign

gguf = pytest.importorskip("gguf")
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GPT2_NAMES = {
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
BYTES = sorted(set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256)))
ALPHABET = [chr(byte) for byte in BYTES] + [chr(256 + i) for i in range(256 - len(BYTES))]


def interleaved(array, heads):
    """Reorder rotary pairs from (i, i + K/2) to (2i, 2i + 1), the layout of GGUF."""
    return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def write(path, case, kind="llama", extra=None):
    """A foreign model as a GGUF file."""
    shapes = json.loads(foreign.STORED.read_text())[case]["shapes"]
    tensors = {name: foreign.tensor(name, shape) for name, shape in shapes.items()}
    return write_tensors(path, foreign.CASES[case], tensors, kind, extra)


def write_tensors(path, values, tensors, kind="llama", extra=None, quantisation=None):
    """Write tensors, by their names in transformers, to a GGUF file; matrices are quantised if a kind is given."""
    writer = gguf.GGUFWriter(path, kind)
    writer.add_context_length(values["max_position_embeddings"])
    writer.add_embedding_length(values["hidden_size"])
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(values["num_attention_heads"])
    writer.add_head_count_kv(values["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    writer.add_rope_freq_base(values.get("rope_theta", 10000.0))
    if "head_dim" in values:
        writer.add_key_length(values["head_dim"])
    for name, array in tensors.items():
        base, _, ending = name.rpartition(".")
        for heads, part in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
            if part in base and kind == "llama":
                array = interleaved(array, values[heads])
        if base.startswith("model.layers"):
            _, _, number, rest = base.split(".", 3)
            base = f"blk.{number}.{NAMES[rest]}"
        else:
            base = NAMES[base]
        if quantisation is None or array.ndim == 1:
            writer.add_tensor(f"{base}.{ending}", array)
        else:
            writer.add_tensor(f"{base}.{ending}", gguf.quantize(array, quantisation), raw_dtype=quantisation)
    if extra is not None:
        extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case, kind", [("llama", "llama"), ("llama_tied", "llama"), ("qwen2", "qwen2")])
def test_weights_are_those_of_the_folder(case, kind, tmp_path):
    expected = mg.from_pretrained(foreign.write(case, tmp_path / "folder"))
    got = mg.from_pretrained(write(tmp_path / "model.gguf", case, kind))
    jax.tree.map(np.testing.assert_array_equal, models.to_params(got), models.to_params(expected))
    for name in ("num_kv_heads", "head_dim", "window_size", "tie_embeddings", "attention_bias", "activation"):
        assert getattr(got.config, name) == getattr(expected.config, name)
    assert got.config.rotary_base == pytest.approx(expected.config.rotary_base)
    assert got.config.norm_epsilon == pytest.approx(expected.config.norm_epsilon)


def write_gpt2(path):
    """A foreign GPT-2 as a GGUF file, where matmuls are [out, in]."""
    values, shapes = foreign.CASES["gpt2"], json.loads(foreign.STORED.read_text())["gpt2"]["shapes"]
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(values["n_positions"])
    writer.add_embedding_length(values["n_embd"])
    writer.add_block_count(values["n_layer"])
    writer.add_feed_forward_length(values["n_inner"])
    writer.add_head_count(values["n_head"])
    writer.add_layer_norm_eps(values.get("layer_norm_epsilon", 1e-5))
    for name, shape in shapes.items():
        base, _, ending = name.rpartition(".")
        array = foreign.tensor(name, shape)
        array = np.ascontiguousarray(array.T) if ".c_" in base and ending == "weight" else array
        if base.startswith("transformer.h."):
            _, _, number, rest = base.split(".", 3)
            base = f"blk.{number}.{GPT2_NAMES[rest]}"
        else:
            base = GPT2_NAMES[base]
        writer.add_tensor(f"{base}.{ending}", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_weights_of_gpt2_are_those_of_the_folder(tmp_path):
    expected = mg.from_pretrained(foreign.write("gpt2", tmp_path / "folder"))
    got = mg.from_pretrained(write_gpt2(tmp_path / "model.gguf"))
    jax.tree.map(np.testing.assert_array_equal, models.to_params(got), models.to_params(expected))
    assert got.config == dataclasses.replace(expected.config, norm_epsilon=got.config.norm_epsilon)
    assert got.config.norm_epsilon == pytest.approx(expected.config.norm_epsilon)


def rounded(array, kind):
    """An array after quantisation in blocks of 32: a float16 scale and integers of 8 or 4 bits."""
    blocks = array.reshape(-1, 32).astype(np.float32)
    if kind == "Q8_0":
        scale, low, high = np.abs(blocks).max(axis=1, keepdims=True) / 127, -127, 127
    else:  # the number of the largest magnitude is -8
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
        scale, low, high = largest / -8, -8, 7
    numbers = np.clip(np.floor(blocks / scale + 0.5), low, high)
    return (numbers * scale.astype(np.float16).astype(np.float32)).reshape(array.shape)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_quantised_weights(kind, tmp_path):
    values = {"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 1, "head_dim": 32}
    values |= {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 96, "rms_norm_eps": 1e-5}
    values |= {"max_position_embeddings": 32, "tie_word_embeddings": True}
    shapes = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64)}
    shapes |= {"self_attn.o_proj": (64, 64), "mlp.gate_proj": (96, 64), "mlp.up_proj": (96, 64)}
    shapes |= {"mlp.down_proj": (64, 96), "input_layernorm": (64,), "post_attention_layernorm": (64,)}
    shapes = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    shapes |= {"model.embed_tokens.weight": (64, 64), "model.norm.weight": (64,)}
    tensors = {name: foreign.tensor(name, shape) for name, shape in shapes.items()}
    path = write_tensors(tmp_path / "model.gguf", values, tensors, quantisation=gguf.GGMLQuantizationType[kind])
    blocks = {name: rounded(array, kind) if array.ndim == 2 else array for name, array in tensors.items()}
    (tmp_path / "config.json").write_text(json.dumps(values))
    save_file(blocks, tmp_path / "model.safetensors")
    expected, got = (models.to_params(mg.from_pretrained(source)) for source in (tmp_path, path))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got, expected)
    assert max(np.abs(blocks[name] - array).max() for name, array in tensors.items()) > 1e-4  # something was lost
    if kind == "Q8_0":
        assert_kept(got)


def assert_kept(params):
    """`mg.quantize` with "q8_0" restores exactly the matrices of these parameters."""
    config = mg.ModelConfig(vocab_size=64, memory=mg.NoMemoryConfig())
    small = quantize_params(config, params, "q8_0")
    matrices = jax.tree.leaves(small, is_leaf=lambda leaf: isinstance(leaf, Int8Groups))
    pairs = [pair for pair in zip(jax.tree.leaves(params), matrices, strict=True) if isinstance(pair[1], Int8Groups)]
    assert len(pairs) == 5  # two of attention, two of the feed-forward layer, the embeddings
    for array, matrix in pairs:
        rows = np.asarray(matrix[np.arange(len(matrix.values))])
        assert any(np.array_equal(rows, side) for side in (array, array.T))


def test_the_factors_of_llama_3_are_recognised(tmp_path):
    factors = np.array([1.0, 1.0, 4.5, 32.0], np.float32)

    def wrong(writer):
        writer.add_tensor("rope_freqs.weight", factors)

    with pytest.raises(ValueError, match=r"rope_freqs.weight is not the scaling of Llama 3.1"):
        mg.from_pretrained(write(tmp_path / "wrong.gguf", "llama_tied", extra=wrong))


def test_an_unknown_architecture_is_named(tmp_path):
    with pytest.raises(ValueError, match="architecture 'falcon' is not supported; valid: llama, qwen2"):
        mg.from_pretrained(write(tmp_path / "model.gguf", "llama", "falcon"))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"something else, long enough to hold a header" * 9)
    with pytest.raises(ValueError, match=r"model.gguf cannot be read as GGUF"):
        mg.from_pretrained(tmp_path / "model.gguf")


def byte_level(writer):
    """A byte-level BPE with two merges and two control tokens."""
    tokens = [*ALPHABET, "th", "the", "<|endoftext|>", "<|im_start|>"]
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - 2) + [gguf.TokenType.CONTROL] * 2
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(len(tokens) - 2)


@pytest.mark.parametrize("text", ["the theme 123", "na\u00efve \N{GRINNING FACE}\n\n\t", "<|im_start|>", ""])
def test_a_byte_level_tokenizer(text, tmp_path):
    tokenizer = mg.load_tokenizer(write(tmp_path / "model.gguf", "llama", extra=byte_level))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert sum(tokenizer.token_bytes[ids]) == len(text.encode())
    assert tokenizer.start_id == 258 and tokenizer.vocab_size == 260
    assert not {258, 259} & set(ids)
    assert tokenizer.decode([258, *ids, 259]) == text
    if text.startswith("the"):
        assert ids[0] == 257
    tokenizer.save(tmp_path / "saved")
    again = read_tokenizer(tmp_path / "saved")
    assert again.encode(text) == ids and again.fingerprint == tokenizer.fingerprint


def sentence_pieces(writer):
    """A sentencepiece BPE with byte fallback."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3, *[6] * 256]
    words = {"\u2581": -6.0, "t": -5.0, "h": -5.1, "e": -5.2, "th": -1.0, "the": -2.0, "\u2581the": -3.0}
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*pieces, *words])
    writer.add_token_scores([0.0] * len(pieces) + list(words.values()))
    writer.add_token_types([*kinds, *[1] * len(words)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)


@pytest.mark.parametrize("text", ["the the", "h\u00e9\n", "  the"])
def test_a_sentencepiece_tokenizer(text, tmp_path):
    tokenizer = mg.load_tokenizer(write(tmp_path / "model.gguf", "llama", extra=sentence_pieces))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.start_id == 1
    assert sum(tokenizer.token_bytes[ids]) == len(text.encode())


def test_the_ids_that_end_a_text_are_those_of_the_tokenizer(tmp_path):
    origin = mg.from_pretrained(write(tmp_path / "model.gguf", "llama", extra=sentence_pieces)).origin
    assert origin.stop_ids == (2,) and origin.config["bos_token_id"] == 1


def test_safetensors_are_preferred_to_a_gguf_file(tmp_path, caplog):
    foreign.write("llama", tmp_path)
    expected = mg.from_pretrained(tmp_path)
    path = write(tmp_path / "other.gguf", "llama_tied")
    got = mg.from_pretrained(tmp_path)
    assert got.config == expected.config and "model.safetensors is read, other.gguf is not" in caplog.text
    (tmp_path / "model.safetensors").unlink()
    assert mg.from_pretrained(tmp_path).config == mg.from_pretrained(path).config  # beside a config.json alone
    write(tmp_path / "third.gguf", "llama")
    with pytest.raises(ValueError, match=r"is not one .gguf file: other.gguf, third.gguf"):
        mg.from_pretrained(tmp_path)
