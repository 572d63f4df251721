"""Small random models of pictures and sound of the transformers library: see `foreign.py`.

`python -m tests.references.foreign_media` writes `foreign_media.json` again, with torch and transformers installed.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from tests.references.foreign import tensor

STORED = Path(__file__).with_suffix(".json")
VIT = {
    "model_type": "vit",
    "architectures": ["ViTModel"],
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "intermediate_size": 44,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 3,
}
WHISPER = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "vocab_size": 43,
    "d_model": 20,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 5,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 36,
    "decoder_ffn_dim": 28,
    "num_mel_bins": 6,
    "max_source_positions": 11,
    "max_target_positions": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
TOWERS = {
    "text": {
        "vocab_size": 37,
        "hidden_size": 20,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "max_position_embeddings": 12,
        "pad_token_id": 1,
        "bos_token_id": 35,
        "eos_token_id": 36,
        "projection_dim": 14,
    },
    "vision": {
        "hidden_size": 24,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 12,
        "patch_size": 4,
        "num_channels": 3,
        "projection_dim": 14,
    },
}
CASES = {
    "clip_text": TOWERS["text"] | {"model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"]},
    "clip_vision": TOWERS["vision"]
    | {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModelWithProjection"]},
    "clip": {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": 14,
        "text_config": TOWERS["text"] | {"model_type": "clip_text_model"},
        "vision_config": TOWERS["vision"] | {"model_type": "clip_vision_model"},
    },
    "vit": VIT,
    "vit_labels": VIT
    | {
        "architectures": ["ViTForImageClassification"],
        "id2label": {"0": "cat", "1": "dog", "2": "owl"},
        "label2id": {"cat": 0, "dog": 1, "owl": 2},
        "hidden_act": "relu",
    },
    "whisper": WHISPER,
}
OUTPUTS = {
    "vit": ("last_hidden_state", "pooler_output", "logits"),
    "whisper": ("logits", "encoder_last_hidden_state"),
    "clip_text_model": ("last_hidden_state", "text_embeds"),
    "clip_vision_model": ("image_embeds",),  # its last hidden states are not normalised there
    "clip": ("text_embeds", "image_embeds"),
}
"""The outputs that are compared, by model_type."""


def pixels_of(case: str) -> np.ndarray:
    """Pictures [2, Y, X, C]."""
    size = CASES[case].get("image_size", TOWERS["vision"]["image_size"])
    return np.random.default_rng(3).normal(size=(2, size, size, 3)).astype(np.float32)


def frames_of(case: str) -> np.ndarray:
    """Log-mel frames [2, T, M]."""
    shape = (2, 2 * CASES[case]["max_source_positions"], CASES[case]["num_mel_bins"])
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


def tokens_of(case: str) -> np.ndarray:
    """Ids [2, 9] of a decoder."""
    return np.random.default_rng(5).integers(CASES[case]["vocab_size"], size=(2, 9))


def text_of() -> tuple[np.ndarray, np.ndarray]:
    """Ids [2, 9] of texts with their end, and which are not padding: the second text is shorter."""
    values = TOWERS["text"]
    tokens = np.random.default_rng(6).integers(2, values["bos_token_id"], (2, 9))
    tokens[0, -1] = tokens[1, 5] = values["eos_token_id"]
    tokens[1, 6:] = values["pad_token_id"]
    return tokens, tokens != values["pad_token_id"]


def write(case: str, folder: Path) -> Path:
    """The model in a folder, in the layout of the transformers library."""
    return _write(case, folder, json.loads(STORED.read_text())[case]["shapes"])


def _write(case: str, folder: Path, shapes: dict[str, list[int]]) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CASES[case]))
    tensors = {name: np.asarray(tensor(name, shape)) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def expected(case: str) -> dict[str, np.ndarray]:
    """What the library computes, by name of the output."""
    stored = json.loads(STORED.read_text())[case]
    return {name: np.array(values, np.float32) for name, values in stored["outputs"].items()}


def library_outputs(case: str, folder: Path) -> dict[str, np.ndarray]:
    """Outputs of the library by name, of the model in a folder."""
    import torch
    import transformers

    kind = getattr(transformers, CASES[case]["architectures"][0])
    model, notes = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not any(notes[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), notes
    type_of, inputs = CASES[case]["model_type"], {}
    if type_of == "whisper":
        inputs = {"input_features": frames_of(case).transpose(0, 2, 1), "decoder_input_ids": tokens_of(case)}
    if type_of in ("clip", "clip_text_model"):
        tokens, valid = text_of()
        inputs |= {"input_ids": tokens, "attention_mask": valid.astype(np.int64)}
    if type_of in ("clip", "clip_vision_model", "vit"):
        inputs |= {"pixel_values": pixels_of(case).transpose(0, 3, 1, 2)}
    with torch.no_grad():
        found = model.eval()(**{name: torch.from_numpy(values.copy()) for name, values in inputs.items()})
    return {name: found[name].numpy() for name in OUTPUTS[type_of] if found.get(name) is not None}


def _saved_shapes(case: str) -> dict[str, list[int]]:
    """The shape of every tensor in a file of the library, without tied copies."""
    import transformers
    from safetensors.numpy import load_file

    values = dict(CASES[case])
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, values["architectures"][0])(config).save_pretrained(folder)
        return {name: list(array.shape) for name, array in load_file(f"{folder}/model.safetensors").items()}


def main() -> None:
    stored = {}
    for case in CASES:
        shapes = _saved_shapes(case)
        with tempfile.TemporaryDirectory() as folder:
            outputs = library_outputs(case, _write(case, Path(folder), shapes))
        rounded = {name: np.round(values.astype(np.float64), 6).tolist() for name, values in outputs.items()}
        stored[case] = {"shapes": shapes, "outputs": rounded}
    STORED.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
