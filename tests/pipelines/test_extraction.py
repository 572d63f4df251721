"""Triples from texts, from records to triples: written by an encoder-decoder, and by tags and pairs of entities."""

from itertools import product

import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from tests.laws.models import random_params
from tests.pipelines.test_text_to_text import BARE, MODELS, OPTIONS

VERBS = {"saw": "see", "met": "meet"}
PEOPLE, CITIES = ("Ada", "Bob", "Eve", "Tom"), ("Rom", "Ulm", "Bar", "Lvi")
ENCODER = mg.EncoderConfig(**BARE, heads=())
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
        **OPTIONS | {"sequence_length": 16, "epochs": 200},
    )
    found = run.evaluation
    assert found["triple_f1"] == found["triple_precision"] == 1 and found["malformed_lines"] == 0
    (written,) = mg.pipeline(run.workdir)("b met c")
    assert mg.data.parse_triples(written["generated_text"]).triples == [("b", "meet", "c")]


SENTENCES = [
    {
        "text": f"{a} {verb} {b}",
        "entities": [
            {"start": 0, "end": 3, "type": "person"},
            {"start": len(verb) + 5, "end": len(verb) + 8, "type": kind},
        ],
        "relations": [{"head": 0, "relation": verb, "tail": 1}] if verb != "or" else [],
    }
    for verb, kind, names in (("met", "person", PEOPLE), ("saw", "city", CITIES), ("or", "person", PEOPLE))
    for a, b in product(PEOPLE, names)
]


NEW = {"Bob met Ada": [("Bob", "met", "Ada")], "Ada saw Rom": [("Ada", "saw", "Rom")], "Ada or Bob": []}


@pytest.mark.slow
def test_triples_by_tags_and_pairs(tmp_path):
    train = [row for row in SENTENCES if row["text"] not in NEW]
    options = {"train": train, "valid": train[::2], "tokenizer": ByteTokenizer(), "epochs": 12}
    options |= {"batch_size": 4, "sequence_length": 64, "learning_rate": 3e-3, "dropout": 0.0, "print_progress": False}
    base = mg.from_params(ENCODER, random_params(ENCODER))
    tags = mg.TaggedTextConfig(form="entities", tag_column="tags")
    tag = mg.finetune(base, tags, workdir=tmp_path / "tags", **options)
    relate = mg.finetune(base, mg.LabelledTextConfig(form="entity_pairs"), workdir=tmp_path / "pairs", **options)
    assert tag.evaluation["f1"] == relate.evaluation["accuracy"] == 1

    tag = mg.pipeline(tag.workdir, aggregation_strategy="simple")
    relate = mg.pipeline(relate.workdir)

    def triples(text):
        entities = [(found["start"], found["end"], found["entity_group"]) for found in tag(text)]
        pairs = mg.data.entity_pairs(text, entities)
        labels = [found["label"] for found in relate([pair.text for pair in pairs])]
        return [(pair.head, label, pair.tail) for pair, label in zip(pairs, labels, strict=True) if label != "none"]

    for text, found in NEW.items():
        assert triples(text) == found
