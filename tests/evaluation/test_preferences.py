"""Pairs of texts of which a model finds one likelier."""

import dataclasses
import difflib
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import make_task
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.evaluation.metrics.preferences import preference_metrics
from tests.laws.models import random_params
from tests.laws.real_data import DATA

BIAS = DATA / "bias"
SIZES = {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 8}
PAIRS = [
    ("the cats sleep", "the cats slept!", "verb"),
    ("an old cat saw", "a cat", "article"),
    ("a cat", "a dog", "verb"),
]


def write(folder: Path, lines: list[str], name: str = "pairs.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def table(folder: Path) -> mg.PreferencesConfig:
    lines = ["first,second,kind", *(",".join(pair) for pair in PAIRS)]
    return mg.PreferencesConfig(test=write(folder, lines), group_column="kind", tokenizer="byte")


def experiment(data: mg.PreferencesConfig, **evaluation) -> mg.ExperimentConfig:
    memory = mg.KVMemoryConfig(memory_size=16, head_dim=8)
    return mg.ExperimentConfig(
        model=mg.ModelConfig(**SIZES, window_size=8, memory=memory),
        data=data,
        training=mg.TrainingConfig(sequence_length=16),
        evaluation=mg.EvaluationConfig(split="test", max_documents=None, max_tokens=None, **evaluation),
    )


@pytest.mark.parametrize("batch_size, chunk_length", [pytest.param(1, 8, marks=pytest.mark.slow), (4, 16)])
def test_likelihoods_are_those_of_one_text_read_whole(tmp_path, batch_size, chunk_length):
    config = experiment(table(tmp_path), batch_size=batch_size, chunk_length=chunk_length)
    model = mg.functional(config.model)
    params = random_params(model.config)
    found = evaluate(config, params, ByteTokenizer())

    @jax.jit
    def text_loss(ids):
        logits, _ = model.apply(params, ids[None, :-1], model.init_state(1), alignment="any")
        return -jnp.take_along_axis(jax.nn.log_softmax(logits[0]), ids[1:, None], axis=1).sum()

    def nats(text: str) -> float:
        return float(text_loss(np.array([ByteTokenizer().start_id, *ByteTokenizer().encode(text)], np.int32)))

    first, second = ([nats(pair[place]) for pair in PAIRS] for place in (0, 1))
    differences = np.array(second) - np.array(first)
    assert found["difference"] == pytest.approx(differences.mean(), rel=1e-4)
    assert found["preferred"] == np.mean(differences > 0) and found["pairs"] == 3
    assert found["loss"] == pytest.approx(sum(first) / sum(len(pair[0]) for pair in PAIRS), rel=1e-4)
    assert set(found["groups"]) == {"article", "verb"}


def encoder(**changes) -> mg.EncoderConfig:
    sizes = SIZES | {"vocab_size": 260, "position": "learned", "num_positions": 32, "memory": mg.NoMemoryConfig()}
    return mg.EncoderConfig(**sizes | changes)


def with_model(config: mg.ExperimentConfig, model: mg.EncoderConfig, **changes) -> mg.ExperimentConfig:
    return dataclasses.replace(config, model=model, data=dataclasses.replace(config.data, **changes))


@pytest.mark.parametrize("shared_only", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_pseudo_likelihoods_are_those_of_one_masked_token_at_a_time(tmp_path, shared_only):
    config = with_model(experiment(table(tmp_path), batch_size=4, chunk_length=24), encoder(), shared_only=shared_only)
    model = mg.functional(config.model)
    params = random_params(model.config)
    found = evaluate(config, params, ByteTokenizer())
    apply = jax.jit(lambda tokens, valid: jax.nn.log_softmax(model.apply(params, tokens, valid=valid)[0]))

    def nats(text: str, other: str) -> float:
        codes, total = np.array([256, *text.encode()]), 0.0
        shared = difflib.SequenceMatcher(None, text.encode(), other.encode(), autojunk=False).get_matching_blocks()
        places = [a + i for a, _, size in shared for i in range(size)] if shared_only else range(len(text))
        for place in places:
            tokens = np.zeros((1, 24), np.int32)
            tokens[0, : len(codes)] = codes
            tokens[0, 1 + place] = 257
            total -= float(apply(tokens, np.arange(24)[None] < len(codes))[0, 1 + place, codes[1 + place]])
        return total

    first = np.array([nats(one, other) for one, other, _ in PAIRS])
    second = np.array([nats(other, one) for one, other, _ in PAIRS])
    assert found["difference"] == pytest.approx((second - first).mean(), abs=1e-4)
    assert found["preferred"] == np.mean(second > first) and found["pairs"] == 3
    tokens = 13 + 5 + 2 if shared_only else sum(len(one) for one, _, _ in PAIRS)
    assert found["loss"] == pytest.approx(first.sum() / tokens, rel=1e-4)


def test_pseudo_likelihoods_of_a_head_that_knows_frequencies_alone(tmp_path):
    config = with_model(experiment(table(tmp_path)), encoder())
    params = jax.tree.map(jnp.zeros_like, random_params(config.model))
    params["heads"]["masked"]["bias"] = params["heads"]["masked"]["bias"].at[ord("c")].set(2.0)
    found = evaluate(config, params, ByteTokenizer())
    total, tokens = np.log(259 + np.exp(2.0)), sum(len(first) for first, _, _ in PAIRS)
    assert found["loss"] == pytest.approx(total - 2 * 3 / tokens, rel=1e-5)  # "c" is in each first text once
    # 15, 5 and 5 tokens against 14, 14 and 5; the second text of the last pair has no "c"
    differences = np.array([1, -9, 0]) * total
    assert found["difference"] == pytest.approx((differences.sum() + 2) / 3, rel=1e-4)


def test_each_scored_token_is_masked_once(tmp_path):
    data = dataclasses.replace(table(tmp_path), shared_only=True)
    task = make_task(data, "test", ByteTokenizer())
    first, second = task.scored(task.examples[2])  # "a cat", "a dog"
    assert first.tolist() == second.tolist() == [True, True, False, False, False]
    rows = task.masked_rows("a cat", first)
    assert [row["tokens"].tolist() for row in rows] == [[256, 257, *b" cat"], [256, *b"a", 257, *b"cat"]]
    assert [row["weights"].tolist() for row in rows] == [[0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]
    assert all(row["targets"].tolist() == [256, *b"a cat"] for row in rows)


def test_pseudo_likelihoods_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=260, max_position_embeddings=32, initializer_range=0.6, **sizes)
    theirs = transformers.BertForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path / "bert")
    ours = mg.from_pretrained(tmp_path / "bert", segment_length=8)
    found = evaluate(with_model(experiment(table(tmp_path)), ours.config), mg.to_params(ours), ByteTokenizer())

    def nats(text: str) -> float:
        ids = torch.tensor([256, *text.encode()])
        copies = ids.repeat(len(text), 1)
        copies[torch.arange(len(text)), 1 + torch.arange(len(text))] = 257
        with torch.no_grad():
            log_p = torch.log_softmax(theirs(copies).logits, -1)
        return -sum(float(log_p[place, 1 + place, ids[1 + place]]) for place in range(len(text)))

    first, second = ([nats(pair[place]) for pair in PAIRS] for place in (0, 1))
    assert found["loss"] == pytest.approx(sum(first) / sum(len(pair[0]) for pair in PAIRS), abs=1e-4)
    assert found["difference"] == pytest.approx((sum(second) - sum(first)) / 3, abs=1e-4)


def test_metrics_of_a_hand_made_case():
    found = preference_metrics(np.array([1.0, -3.0, 0.0, 2.0]), ["a", "a", "b", ""])
    assert found["preferred"] == 0.625 and found["difference"] == 0
    assert found["preferred_error"] == pytest.approx(np.sqrt(0.625 * 0.375 / 4))
    assert found["groups"] == {"a": 0.5, "b": 0.5}
    assert found["group_errors"] == pytest.approx({"a": np.sqrt(0.25 / 2), "b": 0.5})


def test_training_learns_the_first_texts(tmp_path):
    data = mg.PreferencesConfig(train=table(tmp_path).test, valid=table(tmp_path).test, tokenizer="byte")
    task = make_task(data, "train", ByteTokenizer())
    batch = next(iter(task.batches(0, 8, 16)))
    shown = b"|".join(bytes(int(token) for token in row if token < 256) for row in batch.inputs["tokens"])
    assert b"the cats slee" in shown and b"an old cat sa" in shown and b"slept" not in shown and b"dog" not in shown
    assert task.training_tokens(16) == sum(len(first) for first, _, _ in PAIRS)


def test_lines_of_two_files_without_numbers_and_brackets(tmp_path):
    write(tmp_path, ["1 [The nurse] said [she] left.", "2 He left."], "pro.txt")
    write(tmp_path, ["1 [The nurse] said [he] left.", "2 She left."], "anti.txt")
    columns = {"first_column": "pro", "second_column": "anti", "form": "parallel", "remove": r"^\d+ |[\[\]]"}
    data = mg.PreferencesConfig(test=str(tmp_path / "*.txt"), tokenizer="byte", **columns)
    (example, other) = make_task(data, "test", ByteTokenizer()).examples
    assert example[:2] == ("The nurse said she left.", "The nurse said he left.")
    assert other[:2] == ("He left.", "She left.")


@pytest.mark.parametrize(
    "lines, settings, message",
    [
        (["first,second", "a,a"], {}, "pairs.csv, line 2: the two texts are equal: 'a'"),
        (["first,second", "a, "], {}, "pairs.csv, line 2: a text is empty"),
        (["first,other", "a,b"], {}, "no column 'second'"),
        (["first,second", "a,b"], {"remove": "["}, "data.remove='\\[' is not a regular expression"),
        (["first,second", "a,b"], {"second_column": "first"}, "must differ, both are 'first'"),
    ],
)
def test_bad_files_and_settings(tmp_path, lines, settings, message):
    with pytest.raises(ValueError, match=message):
        make_task(
            mg.PreferencesConfig(test=write(tmp_path, lines), tokenizer="byte", **settings), "test", ByteTokenizer()
        )


def test_what_an_encoder_cannot_read_is_refused(tmp_path):
    config = experiment(table(tmp_path), chunk_length=8)
    params = {}
    with pytest.raises(ValueError, match=r"pairs.csv, line 2: a text has 16 tokens.*evaluation.chunk_length=8"):
        evaluate(with_model(config, encoder()), params, ByteTokenizer())
    with pytest.raises(ValueError, match=r"no mask token, and model.vocab_size=257 has no id 257"):
        evaluate(with_model(config, encoder(vocab_size=257)), params, ByteTokenizer())
    with pytest.raises(ValueError, match=r"needs an encoder with the head 'masked'; this one has the heads \(\)"):
        with_model(config, encoder(heads=()))
    data = mg.PreferencesConfig(test=write(tmp_path, ["first,second", "a,b"]), tokenizer="byte", shared_only=True)
    with pytest.raises(ValueError, match=r"pairs.csv, line 2: data.shared_only: the two texts share no token"):
        evaluate(with_model(experiment(data), encoder()), params, ByteTokenizer())


def test_an_encoder_decoder_is_refused():
    bare = SIZES | {"memory": mg.NoMemoryConfig(), "position": "learned"}
    decoder = mg.ModelConfig(**bare, window_size=8, source_length=8)
    model = mg.Seq2SeqConfig(encoder=mg.EncoderConfig(**bare, heads=()), decoder=decoder)
    with pytest.raises(ValueError, match="the likelihood of a text needs a decoder or an encoder, not a Seq2SeqConfig"):
        mg.PreferencesConfig().objective.check_model(model, 16)


def test_the_published_files():
    if not BIAS.exists():
        pytest.skip("the development data is absent")
    crows = mg.PreferencesConfig(
        test=str(BIAS / "crows_pairs_anonymized.csv"),
        first_column="sent_more",
        second_column="sent_less",
        group_column="bias_type",
        tokenizer="byte",
    )
    examples = make_task(crows, "test", ByteTokenizer()).examples
    assert len(examples) == 1508 and Counter(example.group for example in examples)["race-color"] == 516
