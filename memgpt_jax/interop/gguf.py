"""Weights of GGUF files: dequantised, and renamed to the layout of the transformers library."""

import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax.data.tokenizers.gguf_reader import read_fields
from memgpt_jax.interop.families.llama import LLAMA
from memgpt_jax.interop.families.settings import layers, number, only, read, size, word
from memgpt_jax.interop.tensors import Contents, Tensors

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
"""The names of tensors by architecture; Mistral and SmolLM have the architecture `llama`."""
TRANSPOSED = r"\.c_\w+\.weight$"
"""Pattern of the names of GPT-2's matmuls, which are [out, in] in GGUF files and [in, out] in transformers."""
TEXTS = r"tokenizer\.(?!ggml\.(bos|eos)_token_id$)"
"""Pattern of the start of the names of fields that only the tokenizer uses."""
TOKEN_IDS = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")


SETTINGS = {
    "context_length": size(),
    "embedding_length": size(),
    "block_count": layers(),
    "feed_forward_length": size(),
    "attention.head_count": size(),
    "attention.causal": only(True),
    "attention.scale": only(None, 0.0),
    "attention.clamp_kqv": only(None, 0.0),
    "attention.max_alibi_bias": only(None, 0.0),
    "attention.sliding_window": only(None, 0),
    "attn_logit_softcapping": only(None, 0.0),
    "final_logit_softcapping": only(None, 0.0),
    "expert_count": only(None, 0),
    "expert_used_count": only(None, 0),
    "logit_scale": only(None, 0.0, 1.0),
    "embedding_scale": only(None, 1.0),
    "residual_scale": only(None, 1.0),
    "use_parallel_residual": only(False),
}
"""All keys that begin with the name of the architecture, without that name."""
GPT2_SETTINGS = SETTINGS | {"attention.layer_norm_epsilon": number(), "attention.head_count_kv": size(None)}
LLAMA_SETTINGS = SETTINGS | {
    "attention.head_count_kv": size(None),
    "attention.key_length": size(None),
    "attention.value_length": size(None),
    "attention.layer_norm_rms_epsilon": number(),
    "rope.freq_base": number(10000.0, low=1.0),
    "rope.dimension_count": size(None),
    "rope.scaling.type": word({kind: kind for kind in ("none", "linear", "yarn")}, "linear"),
    "rope.scaling.factor": number(None, low=1.0)._replace(also=("rope.scale_linear",)),
    "rope.scaling.original_context_length": size(None),
    "rope.scaling.attn_factor": number(1.0),
    "rope.scaling.yarn_ext_factor": only(None, 1.0),
    "rope.scaling.yarn_attn_factor": only(None, 1.0),
    "rope.scaling.yarn_log_multiplier": only(None, 0.0),
    "rope.scaling.yarn_beta_fast": number(32.0),
    "rope.scaling.yarn_beta_slow": number(1.0),
}
HARMLESS = frozenset(("vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type"))
FILE_SETTINGS = {"general.type": only("model"), "split.count": only(None, 0, 1)}
"""Settings of a file that contains a complete model."""


def read_gguf(path: Path) -> Contents:
    """The settings and tensors of a GGUF file, in the layout of the transformers library.

    Raises:
        ValueError: the file is damaged, or its architecture, a setting, a tensor's kind or its rotary factors are not
            supported.
    """
    fields, tensors = read_fields(path, lambda name: not re.match(TEXTS, name))
    kind = fields.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(f"{path}: architecture {kind!r} is not supported; valid: {', '.join(ARCHITECTURES)}")
    read(FILE_SETTINGS, fields, harmless=frozenset(fields), where=str(path))
    values = _values(kind, fields, tensors, str(path))
    values["tie_word_embeddings"] = "output.weight" not in tensors
    if kind == "llama" and "rope_freqs.weight" in tensors:
        if "rope_scaling" in values:
            raise ValueError(f"{path}: rope_freqs.weight together with rope.scaling.factor is not supported")
        factors = _dequantized(path, tensors.pop("rope_freqs.weight"))
        values["rope_scaling"] = _llama3(factors, values, str(path))

    values |= {name.rpartition(".")[2]: fields[name] for name in TOKEN_IDS if isinstance(fields.get(name), int)}
    places = {_name(name, ARCHITECTURES[kind]): tensor for name, tensor in tensors.items()}

    def read_tensors(names: Iterable[str]) -> dict[str, np.ndarray]:
        found = {}
        for name in names:
            array = _dequantized(path, places[name])
            if kind == "llama" and (match := re.search(r"self_attn\.([qk])_proj", name)):
                array = _halves(array, values["num_attention_heads" if match[1] == "q" else "num_key_value_heads"])
            found[name] = array.T if re.search(TRANSPOSED, name) else array
        return found

    shapes = {name: tuple(int(size) for size in tensor.shape) for name, tensor in places.items()}
    shapes = {name: shape if re.search(TRANSPOSED, name) else shape[::-1] for name, shape in shapes.items()}
    return Contents(values, Tensors(shapes, read_tensors))


def _dequantized(path: Path, tensor: Any) -> np.ndarray:
    from gguf.quants import dequantize

    try:
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
    except Exception as error:  # an unknown quantisation, or a damaged shape
        raise ValueError(f"{path}: {tensor.name} cannot be dequantised: {error}") from None


def _values(kind: str, fields: dict[str, Any], tensors: dict[str, Any], where: str) -> dict[str, Any]:
    """The file's settings as llama.cpp uses them, under the keys of config.json."""
    table = GPT2_SETTINGS if kind == "gpt2" else LLAMA_SETTINGS
    given = {name.removeprefix(f"{kind}."): value for name, value in fields.items() if name.startswith(f"{kind}.")}
    found = read(table, given, harmless=HARMLESS, where=f"{where}: {kind}", strict=True)
    heads, width = found["attention.head_count"], found["embedding_length"]
    embedding = tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise ValueError(f"{where}: the tensor token_embd.weight is missing, or no matrix")
    if width % heads and found.get("attention.key_length") is None:
        raise ValueError(f"{where}: {kind}: attention.head_count={heads} must divide embedding_length={width}")
    rows = int(embedding.shape[1])
    if kind == "gpt2":
        if found["attention.head_count_kv"] not in (None, heads):
            raise ValueError(
                f"{where}: {kind}: attention.head_count_kv must be attention.head_count={heads}, as GPT-2 has no groups"
            )
        return {
            "model_type": kind,
            "vocab_size": rows,
            "n_embd": width,
            "n_layer": found["block_count"],
            "n_head": heads,
            "n_inner": found["feed_forward_length"],
            "n_positions": found["context_length"],
            "layer_norm_epsilon": found["attention.layer_norm_epsilon"],
        }
    head_dim = found["attention.key_length"] or width // heads
    for name in ("attention.value_length", "rope.dimension_count"):
        if found[name] not in (None, head_dim):
            raise ValueError(
                f"{where}: {kind}.{name}={found[name]} is not supported; valid: {head_dim}, the length of keys"
            )
    values = {
        "model_type": kind,
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": found["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": found["attention.head_count_kv"] or heads,
        "head_dim": head_dim,
        "intermediate_size": found["feed_forward_length"],
        "max_position_embeddings": found["context_length"],
        "rms_norm_eps": found["attention.layer_norm_rms_epsilon"],
        "rope_theta": found["rope.freq_base"],
    }
    values |= _scaling(found, f"{where}: {kind}")
    try:
        LLAMA.from_hf(values)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('config.json: ')}") from None
    return values


def _scaling(found: dict[str, Any], where: str) -> dict[str, Any]:
    """`rope_scaling` of config.json. The default kind is linear; `attn_factor` multiplies yarn's own factor."""
    kind, factor = found["rope.scaling.type"], found["rope.scaling.factor"] or 1.0
    attention = found["rope.scaling.attn_factor"]
    for name, neutral in (("rope.scaling.attn_factor", 1.0), ("rope.scaling.yarn_ext_factor", None)):
        if kind != "yarn" and found[name] != neutral:
            raise ValueError(f"{where}: {name}={found[name]} is not supported without rope.scaling.type=yarn")
    if kind == "none" or (kind == "linear" and factor == 1):
        return {}
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        scaling |= {
            "attention_factor": attention * (1 + 0.1 * math.log(factor)),
            "beta_fast": found["rope.scaling.yarn_beta_fast"],
            "beta_slow": found["rope.scaling.yarn_beta_slow"],
        }
        if found["rope.scaling.original_context_length"]:
            scaling["original_max_position_embeddings"] = found["rope.scaling.original_context_length"]
    return {"rope_scaling": scaling}


def _name(name: str, names: dict[str, str]) -> str:
    base, _, ending = name.rpartition(".")
    for pattern, theirs in names.items():
        if match := re.fullmatch(pattern, base):
            return f"{match.expand(theirs)}.{ending}"
    return name  # is reported as unexpected


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rotary channel pairs from (2i, 2i + 1), the layout of GGUF, to (i, i + K/2)."""
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _llama3(factors: np.ndarray, values: dict[str, Any], where: str) -> dict[str, Any]:
    """The scaling of Llama 3.1 that gives these rotary factors; `ValueError` if there is none."""
    from memgpt_jax.config.rotary import RotaryScalingConfig
    from memgpt_jax.ops.attention.positions import scale_frequencies

    pairs, base, largest = values["head_dim"] // 2, values["rope_theta"], float(np.max(factors, initial=0))
    largest = largest if np.isfinite(largest) else 0.0
    turns = base ** (-np.arange(pairs) / pairs) / (2 * np.pi)
    config = RotaryScalingConfig(kind="llama3", factor=max(largest, 1.0), original_positions=8192)
    scaling = dataclasses.asdict(config)
    del scaling["attention_factor"]
    expected = turns / scale_frequencies(turns, base, **scaling)
    if factors.shape != (pairs,) or not np.allclose(expected, factors, rtol=1e-4):
        raise ValueError(f"{where}: rope_freqs.weight is not the scaling of Llama 3.1, the only one that is supported")
    return {
        "rope_type": "llama3",
        "factor": config.factor,
        "low_freq_factor": config.slow_turns,
        "high_freq_factor": config.fast_turns,
        "original_max_position_embeddings": config.original_positions,
    }
