"""GGUF files as a source of weights: dequantised, and renamed to the layout of the transformers library."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.interop.tensors import Tensors

LLAMA_NAMES = {
    r"token_embd": "model.embed_tokens",
    r"output_norm": "model.norm",
    r"output": "lm_head",
    r"blk\.(\d+)\.attn_norm": r"model.layers.\1.input_layernorm",
    r"blk\.(\d+)\.ffn_norm": r"model.layers.\1.post_attention_layernorm",
    r"blk\.(\d+)\.attn_([qkv])": r"model.layers.\1.self_attn.\2_proj",
    r"blk\.(\d+)\.attn_output": r"model.layers.\1.self_attn.o_proj",
    r"blk\.(\d+)\.ffn_(gate|up|down)": r"model.layers.\1.mlp.\2_proj",
}
GPT2_NAMES = {
    r"token_embd": "transformer.wte",
    r"position_embd": "transformer.wpe",
    r"output_norm": "transformer.ln_f",
    r"output": "lm_head",
    r"blk\.(\d+)\.attn_norm": r"transformer.h.\1.ln_1",
    r"blk\.(\d+)\.ffn_norm": r"transformer.h.\1.ln_2",
    r"blk\.(\d+)\.attn_qkv": r"transformer.h.\1.attn.c_attn",
    r"blk\.(\d+)\.attn_output": r"transformer.h.\1.attn.c_proj",
    r"blk\.(\d+)\.ffn_up": r"transformer.h.\1.mlp.c_fc",
    r"blk\.(\d+)\.ffn_down": r"transformer.h.\1.mlp.c_proj",
}
ARCHITECTURES = {"llama": LLAMA_NAMES, "qwen2": LLAMA_NAMES, "gpt2": GPT2_NAMES}
"""Of each, what tensors are called there; Mistral and SmolLM are `llama` in such files."""
TURNED = r"\.c_\w+\.weight$"
"""Names of the matmuls of GPT-2, which are [out, in] in these files and [in, out] in transformers."""
TEXTS = r"tokenizer\.(?!ggml\.(bos|eos)_token_id$)"
"""How the names of fields begin that only the tokenizer needs."""
TOKEN_IDS = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")


def read_gguf(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Values as those of a config.json, and the tensors by the names that transformers has.

    Raises:
        ValueError: the file is damaged, or its architecture, a tensor's kind or its rotary factors are not known here.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ValueError(f"{path} cannot be read as GGUF: {error}") from None
    fields = {name: field.contents() for name, field in reader.fields.items() if not re.match(TEXTS, name)}
    kind = fields.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise ValueError(f"{path}: architecture {kind!r} is not supported; valid: {', '.join(ARCHITECTURES)}")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    values = _values(kind, fields, tensors["token_embd.weight"])
    values["tie_word_embeddings"] = "output.weight" not in tensors
    if "rope_freqs.weight" in tensors:
        values["rope_scaling"] = _llama3(_dequantized(path, tensors.pop("rope_freqs.weight")), values)

    values |= {name.rpartition(".")[2]: fields[name] for name in TOKEN_IDS if isinstance(fields.get(name), int)}
    places = {_name(name, ARCHITECTURES[kind]): tensor for name, tensor in tensors.items()}

    def read_tensors(names: Iterable[str]) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            array = _dequantized(path, places[name])
            if kind == "llama" and (match := re.search(r"self_attn\.([qk])_proj", name)):
                array = _halves(array, values["num_attention_heads" if match[1] == "q" else "num_key_value_heads"])
            found[name] = array.T if re.search(TURNED, name) else array
        return found

    shapes = {name: tuple(int(size) for size in tensor.shape) for name, tensor in places.items()}
    return values, Tensors(
        {name: x if re.search(TURNED, name) else x[::-1] for name, x in shapes.items()}, read_tensors
    )


def _dequantized(path: Path, tensor) -> np.ndarray:
    from gguf.quants import dequantize

    try:
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
    except NotImplementedError as error:
        raise ValueError(f"{path}: {tensor.name} cannot be dequantised: {error}") from None


def _values(kind: str, fields: dict[str, Any], embedding) -> dict[str, Any]:
    get = lambda name, *default: fields.get(f"{kind}.{name}", *default)  # noqa: E731
    heads, width = get("attention.head_count"), get("embedding_length")
    if kind == "gpt2":
        return {
            "model_type": kind,
            "vocab_size": int(embedding.shape[1]),
            "n_embd": width,
            "n_layer": get("block_count"),
            "n_head": heads,
            "n_inner": get("feed_forward_length"),
            "n_positions": get("context_length"),
            "layer_norm_epsilon": get("attention.layer_norm_epsilon"),
        }
    values = {
        "model_type": kind,
        "vocab_size": int(embedding.shape[1]),
        "hidden_size": width,
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": get("attention.key_length", width // heads),
        "intermediate_size": get("feed_forward_length"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base", 10000.0),
    }
    scaling = get("rope.scaling.type", "none")
    if scaling != "none":
        values["rope_scaling"] = {
            "rope_type": scaling,
            "factor": get("rope.scaling.factor"),
            "original_max_position_embeddings": get("rope.scaling.original_context_length"),
        }
    return values


def _name(name: str, names: dict[str, str]) -> str:
    base, _, ending = name.rpartition(".")
    for pattern, theirs in names.items():
        if match := re.fullmatch(pattern, base):
            return f"{match.expand(theirs)}.{ending}"
    return name  # reported as left over


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Rotary channel pairs (2i, 2i + 1) of these files as (i, i + K/2)."""
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _llama3(factors: np.ndarray, values: dict[str, Any]) -> dict[str, Any]:
    """The scaling of Llama 3.1 that these rotary factors come from; `ValueError` if they do not."""
    from memgpt_jax.config_positions import RotaryScalingConfig
    from memgpt_jax.ops.positions import stretched

    config = RotaryScalingConfig(kind="llama3", factor=float(factors.max()), original_positions=8192)
    turns = values["rope_theta"] ** (-np.arange(len(factors)) / len(factors)) / (2 * np.pi)
    if not np.allclose(turns / stretched(turns, values["rope_theta"], config), factors, rtol=1e-4):
        raise ValueError("rope_freqs.weight holds other factors than those of Llama 3.1, which is not supported")
    return {
        "rope_type": "llama3",
        "factor": config.factor,
        "low_freq_factor": config.slow_turns,
        "high_freq_factor": config.fast_turns,
        "original_max_position_embeddings": config.original_positions,
    }
