"""Triples from texts, from records to triples: an encoder-decoder learns to write them."""

from itertools import product

import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from tests.laws.models import random_params
from tests.pipelines.test_text_to_text import MODELS, OPTIONS

VERBS = {"saw": "see", "met": "meet"}
RECORDS = [
    {"text": f"{a} {verb} {b}", "triples": [[a, relation, b]] if a != b else []}
    for (verb, relation), a, b in product(VERBS.items(), "abc", "abc")
]


@pytest.mark.slow
def test_triples_are_learned_written_and_parsed(tmp_path):
    model = MODELS["encoder-decoder"]
    task = mg.TextPairsConfig(form="triples", metrics=("triples",), max_new_tokens=16)
    run = mg.finetune(
        mg.from_params(model, random_params(model)),
        task,
        train=RECORDS,
        valid=RECORDS,
        workdir=tmp_path,
        tokenizer=ByteTokenizer(),
        **OPTIONS | {"metric": "triple_f1", "sequence_length": 16, "epochs": 200},
    )
    found = run.evaluation
    assert found["triple_f1"] == found["triple_precision"] == 1 and found["malformed_lines"] == 0
    (written,) = mg.pipeline(run.workdir)("b met c")
    assert mg.data.parse_triples(written["generated_text"]).triples == [("b", "meet", "c")]
