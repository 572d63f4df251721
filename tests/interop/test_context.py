"""How long a text a pretrained model was trained with is known, and goes through saving."""

import json

import foreign
import pytest

import memgpt_jax as mg

LENGTHS = {"llama": 32, "gpt2": None, "mistral": None, "qwen2": 32, "t5": 48}
"""None: learned positions, which end by themselves, or a window that slides in transformers too."""


@pytest.mark.parametrize("case", LENGTHS)
def test_the_context_of_a_pretrained_model(case, tmp_path):
    model = mg.from_pretrained(foreign.write(case, tmp_path / "theirs"))
    decoder = model.config.decoder if case == "t5" else model.config
    values = foreign.CASES[case]
    known = values.get("n_positions" if case == "t5" else "max_position_embeddings", decoder.num_positions)
    assert decoder.context_length == (None if LENGTHS[case] is None else known)
    model.save_pretrained(tmp_path / "ours")
    assert "memgpt" not in json.loads((tmp_path / "ours" / "config.json").read_text())
    assert mg.from_pretrained(tmp_path / "ours").config == model.config
    free = mg.from_pretrained(tmp_path / "theirs", context_length=None)
    free.save_pretrained(tmp_path / "free")
    assert mg.from_pretrained(tmp_path / "free").config == free.config
