"""Small random models of the transformers library, with odd sizes: their configs, their tensors, their outputs.

Tensors follow from their names and shapes, so that `foreign.json` need not hold them: it has each model's config, the
names and shapes of its tensors, and what the library computes. `python tests/references/foreign.py` writes it again,
with torch and transformers installed; where they are, the tests compare with the library itself too.
"""

import json
import zlib
from pathlib import Path

import numpy as np

OUTPUTS = ("logits", "prediction_logits", "seq_relationship_logits", "last_hidden_state", "pooler_output")
STORED = Path(__file__).with_suffix(".json")
LLAMA = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 52,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
}
BERT = {
    "vocab_size": 41,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 44,
    "max_position_embeddings": 32,
    "type_vocab_size": 3,
}
XLNET = {
    "model_type": "xlnet",
    "architectures": ["XLNetLMHeadModel"],
    "vocab_size": 39,
    "d_model": 20,
    "n_layer": 2,
    "n_head": 5,
    "d_inner": 44,
}
ENCODERS = {
    "bert": BERT | {"model_type": "bert", "architectures": ["BertModel"]},
    "bert_masked": BERT | {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "relu"},
    "bert_pretraining": BERT | {"model_type": "bert", "architectures": ["BertForPreTraining"]},
    "roberta": BERT | {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"], "type_vocab_size": 1},
    "xlnet": XLNET | {"ff_activation": "gelu_new"},
    "xlnet_near": XLNET | {"architectures": ["XLNetModel"], "clamp_len": 4, "layer_norm_eps": 1e-5},
    "xlnet_two_streams": XLNET,
}
TWO_STREAMS = ("xlnet_two_streams",)
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 43,
    "d_model": 20,
    "d_kv": 6,
    "d_ff": 36,
    "num_layers": 3,
    "num_decoder_layers": 2,  # with more of them than of the encoder's, the library cannot generate
    "num_heads": 5,
    "n_positions": 48,
    "relative_attention_num_buckets": 10,
    "relative_attention_max_distance": 15,
    "decoder_start_token_id": 0,
}
ENCODER_DECODERS = {
    "t5": T5,
    "t5_v11": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "layer_norm_epsilon": 1e-5},
}
CASES = (
    ENCODERS
    | ENCODER_DECODERS
    | {
        "gpt2": {
            "model_type": "gpt2",
            "vocab_size": 37,
            "n_embd": 20,
            "n_layer": 3,
            "n_head": 5,
            "n_positions": 96,
            "n_inner": 44,
        },
        "gpt2_exact_gelu": {
            "model_type": "gpt2",
            "vocab_size": 31,
            "n_embd": 12,
            "n_layer": 2,
            "n_head": 3,
            "n_positions": 40,
            "activation_function": "gelu",
            "layer_norm_epsilon": 1e-3,
        },
        "llama": LLAMA | {"model_type": "llama"},
        "llama_tied": LLAMA | {"model_type": "llama", "tie_word_embeddings": True, "head_dim": 6, "rope_theta": 500.0},
        "llama_biases": LLAMA | {"model_type": "llama", "attention_bias": True},
        "llama_linear": LLAMA | {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        "llama3": LLAMA
        | {
            "model_type": "llama",
            "head_dim": 8,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        "llama_yarn": LLAMA
        | {
            "model_type": "llama",
            "head_dim": 16,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "beta_fast": 4.0,
                "original_max_position_embeddings": 12,
            },
        },
        "mistral": LLAMA | {"model_type": "mistral", "sliding_window": 7},
        "qwen2": LLAMA | {"model_type": "qwen2", "tie_word_embeddings": True},
    }
)


def tokens_of(case: str, length: int = 19) -> np.ndarray:
    """Ids [2, length] to read."""
    lowest = 2 if CASES[case]["model_type"] == "roberta" else 0  # it takes the id 1 for padding, wherever it stands
    return np.random.default_rng(1).integers(lowest, CASES[case]["vocab_size"], (2, length))


def valid_of(tokens: np.ndarray) -> np.ndarray:
    """Which of the tokens that an encoder reads are not padding: the second row ends earlier."""
    valid = np.ones(tokens.shape, bool)
    valid[1, -5:] = False
    return valid


def source_of(case: str) -> np.ndarray:
    """What an encoder-decoder's encoder reads."""
    return tokens_of(case, 29)


def types_of(case: str, tokens: np.ndarray) -> np.ndarray:
    """The kinds of an encoder's tokens."""
    return np.arange(tokens.size).reshape(tokens.shape) % CASES[case].get("type_vocab_size", 2)


def order_of(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rank for each token, padding last, and the places [2, 4] of the last four in order that are not padding.

    What comes first in order sees nothing; the library then attends to everything, and we to nothing.
    """
    drawn = np.where(valid_of(tokens), np.random.default_rng(2).random(tokens.shape), 2)
    order = drawn.argsort(axis=1, kind="stable").argsort(axis=1)
    last = np.where(valid_of(tokens), order, -1).argsort(axis=1)[:, -4:]
    return order, last


def tensor(name: str, shape) -> np.ndarray:
    """The values of a tensor, drawn by its name: norms near 1, others large enough to matter."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    is_norm = name.endswith("weight") and len(shape) == 1
    return (1 + 0.2 * drawn if is_norm else 0.3 * drawn).astype(np.float32)


def write(case: str, folder: Path) -> Path:
    """The model in a folder, in the layout of the transformers library."""
    from safetensors.numpy import save_file

    stored = json.loads(STORED.read_text())[case]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[case]))
    tensors = {name: tensor(name, shape) for name, shape in stored["shapes"].items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def expected(case: str) -> dict[str, np.ndarray]:
    """What the library computes for `tokens_of(case)`, by name of the output."""
    stored = json.loads(STORED.read_text())[case]
    return {name: np.array(values, np.float32) for name, values in stored["outputs"].items()}


class Numbers:
    """A tokenizer: texts of numbers, each its own id."""

    start_id, stop_ids, pad_id, fingerprint = 0, (0,), None, "numbers"

    def __init__(self, case: str):
        self.vocab_size = CASES[case]["vocab_size"]

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids) -> str:
        return "".join(f" {token}" for token in ids)


def library_model(case: str):
    """The library's own model, its tensors as above."""
    import torch
    import transformers

    values = dict(CASES[case])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    name = values.get("architectures", [None])[0]
    kind = getattr(transformers, name) if name else transformers.AutoModelForCausalLM
    config._attn_implementation = "eager"
    model = (kind(config) if name else kind.from_config(config)).eval()
    if case == "t5_v11":  # transformers 5 ties its output, until from_pretrained finds another one in the file
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(tensor(name, parameter.shape)))
    return model


def library_outputs(case: str, model=None) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Outputs by name, of the model above or of another one, and the shape of every tensor."""
    import torch

    model = library_model(case) if model is None else model
    tokens = tokens_of(case)
    inputs = {"input_ids": tokens}
    if case in ENCODERS:
        inputs |= {"attention_mask": valid_of(tokens).astype(np.int64), "token_type_ids": types_of(case, tokens)}
    if case in TWO_STREAMS:
        order, places = order_of(tokens)
        hidden = order[:, None, :] >= order[:, :, None]
        targets = places[:, :, None] == np.arange(tokens.shape[1])
        inputs |= {"perm_mask": hidden.astype(np.float32), "target_mapping": targets.astype(np.float32)}
    if case in ENCODER_DECODERS:
        source = source_of(case)
        inputs = {"input_ids": source, "attention_mask": valid_of(source).astype(np.int64), "decoder_input_ids": tokens}
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(values) for name, values in inputs.items()})
    outputs = {name: found[name].numpy() for name in OUTPUTS if name in found and found[name] is not None}
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return outputs, shapes


def main() -> None:
    stored = {}
    for case in CASES:
        outputs, shapes = library_outputs(case)
        rounded = {name: np.round(values.astype(np.float64), 6).tolist() for name, values in outputs.items()}
        stored[case] = {"shapes": shapes, "outputs": rounded}
    STORED.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
