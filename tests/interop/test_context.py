"""The context length of a pretrained model is read, saved, and used for warnings."""

import dataclasses
import json

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.models.arguments import check_context
from tests.references import foreign

LENGTHS = {"llama": 32, "gpt2": None, "mistral": None, "qwen2": 32, "t5": 48}
"""None: learned positions, whose table is the limit, or a window that is sliding in transformers too."""


@pytest.mark.parametrize("case", LENGTHS)
def test_context_length_of_a_pretrained_model(case, tmp_path):
    model = mg.from_pretrained(foreign.write(case, tmp_path / "theirs"))
    decoder = model.config.decoder if case == "t5" else model.config
    values = foreign.CASES[case]
    known = values.get("n_positions" if case == "t5" else "max_position_embeddings", decoder.num_positions)
    assert decoder.context_length == (None if LENGTHS[case] is None else known)
    mg.save_pretrained(model, tmp_path / "ours")
    assert "memgpt" not in json.loads((tmp_path / "ours" / "config.json").read_text())
    assert mg.from_pretrained(tmp_path / "ours").config == model.config
    free = mg.from_pretrained(tmp_path / "theirs", context_length=None)
    mg.save_pretrained(free, tmp_path / "free")
    assert mg.from_pretrained(tmp_path / "free").config == free.config


@pytest.mark.slow
def test_a_call_beyond_the_context_is_reported(tmp_path):
    """A warning is logged for long documents, in one call or several; not for short documents or padding."""
    decoder = mg.from_pretrained(foreign.write("llama", tmp_path))
    context = decoder.config.context_length
    tokens, state = np.ones((1, context + 1), np.int32), decoder.init_state(1)
    with pytest.warns(UserWarning, match=f"longer than context_length={context} tokens") as caught:
        decoder(tokens, state)
    assert caught[0].filename == __file__
    places = np.arange(context + 1)[None]
    check_context(decoder.config, places, places < context)
    check_context(decoder.config, places % 20, None)
    check_context(dataclasses.replace(decoder.config, context_length=None), places, None)
    check_context(dataclasses.replace(decoder.config, memory=mg.KVMemoryConfig()), places, None)
    with pytest.warns(UserWarning, match="attends to the window_size"):
        check_context(decoder.config, places[:, -1:], np.ones((1, 1), bool))
