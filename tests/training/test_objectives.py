"""Every objective but `causal` through the trainer: what runs report, and what is refused."""

import contextlib
import dataclasses
import functools
import json
import math

import jax
import numpy as np
import pytest

from memgpt_jax import data, models
from memgpt_jax.checkpoint import Checkpoints, load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data.objectives import OBJECTIVES, MaskedConfig
from memgpt_jax.data.objectives.span_corruption import SENTINELS, SpanCorruptionConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.evaluation import HELD_OUT_SEED, evaluate
from memgpt_jax.evaluation.objectives import unigram_losses
from memgpt_jax.generation import Session, generate
from memgpt_jax.interop import from_pretrained
from memgpt_jax.studies.command_line import override
from memgpt_jax.training import RunError, read_metrics, train
from memgpt_jax.training.loop import stack
from memgpt_jax.training.metrics import CLOCKED
from memgpt_jax.training.saving import restore_run
from memgpt_jax.training.state import create
from memgpt_jax.training.step import train_step
from tests.laws.models import random_params

ENCODER = EncoderConfig(
    vocab_size=260,
    d_model=16,
    num_layers=1,
    num_heads=2,
    segment_length=8,
    memory=NoMemoryConfig(),
    token_types=2,
    heads=("masked", "pooler", "next_sentence"),
)
MEMORY = KVMemoryConfig(memory_size=24, head_dim=8)
SIZES = {"d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 8, "memory": NoMemoryConfig()}
XLNET = XLNetConfig(vocab_size=257, **SIZES)
DECODER = ModelConfig(vocab_size=257, window_size=8, **SIZES)
SIZES |= {"vocab_size": 257 + SENTINELS, "position": "relative", "relative_buckets": 8}
PAIR = Seq2SeqConfig(
    encoder=EncoderConfig(heads=(), **SIZES),
    decoder=ModelConfig(window_size=8, source_length=32, **SIZES),
)

BOTH = {"span_corruption": PAIR, "permutation": XLNET}


@pytest.fixture
def make_encoder(tmp_path, make_config):
    """Makes an experiment on a small folder: an objective, and what is changed of each stack and of the training."""
    for split in ("train", "valid"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "corpus" / split / f"{i}.txt").write_text(f"document {i} of {split}. " * (3 + 2 * i))

    def make(objective, model=None, optimizer=None, **training) -> ExperimentConfig:
        text = {"corpus": "folder", "path": str(tmp_path / "corpus"), "tokenizer": "byte"}
        config = OBJECTIVES[objective].config()
        text = TextConfig(**text, objective=config, cache_dir=str(tmp_path / "cache"))
        config = make_config(optimizer=optimizer, **training)
        base = BOTH.get(objective, ENCODER)
        stacks = {name: dataclasses.replace(stack, **(model or {})) for name, stack in base.stacks.items()}
        return dataclasses.replace(config, data=text, model=base.with_stacks(stacks))

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "model"),
    [
        # `tests/data/objectives/test_contract.py` resumes batches of all objectives, `test_pretrained.py` each model.
        pytest.param("masked", {"heads": ("masked",), "token_types": None, "memory": MEMORY}, marks=pytest.mark.slow),
        pytest.param("next_sentence", {"heads": ("pooler", "next_sentence")}, marks=pytest.mark.slow),
        pytest.param("masked_next_sentence", {}, marks=pytest.mark.slow),
        pytest.param("span_corruption", {"dropout": 0.1}, marks=pytest.mark.slow),
        ("permutation", {"memory": MEMORY, "dropout": 0.1}),
    ],
)
def test_an_interrupted_run_is_resumed_bitwise(tmp_path, make_encoder, monkeypatch, objective, model):
    config = make_encoder(objective, model)
    expected = train(config, tmp_path / "whole")
    gates = [name for name in expected if name.endswith("fusion_gate")]
    assert expected["bits_per_byte"] is None and len(gates) == len(config.model.stacks) * ("memory" in model)

    original = data.BatchIterator.__next__

    def interrupted(self):
        interrupted.left -= 1
        if interrupted.left == 0:
            raise KeyError("interrupted")
        return original(self)

    interrupted.left = 9  # in step 9, after step 5 was saved
    with monkeypatch.context() as patch:
        patch.setattr(data.BatchIterator, "__next__", interrupted)
        with pytest.raises(KeyError):
            train(config, tmp_path / "cut")
    assert load_run(tmp_path / "cut").step == 5
    results = train(config, tmp_path / "cut")
    timeless = [
        [record | dict.fromkeys(CLOCKED) for record in read_metrics(tmp_path / name)] for name in ("cut", "whole")
    ]
    assert timeless[0] == timeless[1]
    assert results["evaluation"] == expected["evaluation"]
    states = []
    for name in ("cut", "whole"):
        with Checkpoints(tmp_path / name) as checkpoints:
            states.append(restore_run(checkpoints, config)[0])
    jax.tree.map(np.testing.assert_array_equal, *(state._replace(key=None) for state in states))
    model = from_pretrained(tmp_path / "cut")
    assert model.config == config.model
    jax.tree.map(np.testing.assert_array_equal, models.to_params(model), states[0].params)


# Losses summed over two accumulated batches, their weights, those of correct targets, and the norm of the gradient,
# as computed by the code before batches were typed, when the label of a pair had the place of the first token.
FIGURES = {
    "causal": (1437.643310546875, 256.0, 0.0, 2.2048046588897705),
    "masked": (245.207275390625, 38.0, 0.0, 12.129305839538574),
    "next_sentence": (5.869641304016113, 8.0, 4.0, 0.8073890209197998),
    "masked_next_sentence": (223.78672790527344, 62.0, 17.25, 1.318900465965271),
    "span_corruption": (421.867431640625, 64.0, 0.0, 2.2606990337371826),
    "permutation": (311.7393493652344, 47.0, 0.0, 3.3336522579193115),
}


def model_for(objective):
    """The first of the models here that can be trained with an objective."""
    for model in (DECODER, ENCODER, PAIR, XLNET):
        with contextlib.suppress(ValueError):
            objective.check_model(model, 32)
            return model
    raise ValueError(f"no model of this file can be trained with {objective}")


@pytest.mark.parametrize(
    "objective",  # `masked_next_sentence` has the heads and the losses of both
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in ("causal", "masked_next_sentence")))
        for name in OBJECTIVES
    ],
)
def test_every_objective_trains_and_its_figures_stay(make_encoder, objective):
    config, goal = make_encoder("masked", None, {"accumulate_steps": 2}), OBJECTIVES[objective].config()
    model = model_for(goal)
    stacks = {name: dataclasses.replace(stack, memory=MEMORY) for name, stack in model.stacks.items()}
    text = dataclasses.replace(config.data, objective=goal)
    config = dataclasses.replace(config, data=text, model=model.with_stacks(stacks))
    batches = data.train_batches(config.data, config.training, 0, data.ByteTokenizer())
    batch = stack([next(batches) for _ in range(2)])
    start = create(config)  # not compiled: the models share the shapes of their parameters
    _, metrics = jax.jit(functools.partial(train_step, config))(start, batch)
    loss, weight, _, correct = metrics.totals
    found = loss, weight, correct, metrics.gradient_norm
    assert np.isfinite(found).all() and loss > 0 and weight > 0 and metrics.gradient_norm > 0
    if objective in FIGURES:
        np.testing.assert_allclose(found, FIGURES[objective], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("objective", BOTH)
def test_repeated_text_is_learned(tmp_path, make_encoder, objective):
    for file in (tmp_path / "corpus" / "valid").iterdir():
        file.write_text(file.read_text().replace("valid", "train"))
    optimizer = {"learning_rate": 2e-2, "warmup_steps": 5}
    config = make_encoder(objective, {"d_model": 32}, optimizer, steps=80, batch_size=8, log_every=5)
    train(config, tmp_path / "run")
    losses = [record["loss"] for record in read_metrics(tmp_path / "run")]
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert losses[-1] < losses[0] - 1
    assert result["loss"] < result["unigram_loss"] - 0.5


@pytest.mark.parametrize("memory", [pytest.param(NoMemoryConfig(), marks=pytest.mark.slow), MEMORY])
def test_evaluation_equals_a_direct_computation(make_encoder, memory):
    config = make_encoder("masked_next_sentence", {"memory": memory})
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, num_batches=3))
    params, tokenizer = random_params(config.model), data.ByteTokenizer()
    model = models.from_params(config.model, params)
    call = jax.jit(lambda state, inputs: (model.hidden(state=state, **inputs).stream, model(state=state, **inputs)[0]))
    pairs_of = jax.jit(lambda x: pair_logits(model, x))
    batches = data.text_batches(config.data, config.training, HELD_OUT_SEED, tokenizer, "valid")
    counts = np.bincount(data.documents(config.data, "train", tokenizer).flat, minlength=260) + 1
    tokens, pairs = [], []
    for batch in (next(batches) for _ in range(3)):
        x, logits = jax.device_get(call(model.init_state(4), batch.inputs))
        for row, place in zip(*np.nonzero(batch.weights["masked"]), strict=True):
            target = batch.targets["masked"][row, place]
            tokens.append((nats(logits[row, place], target), -math.log(counts[target] / counts.sum())))
        for line, label in zip(pairs_of(x), batch.targets["next_sentence"], strict=True):
            pairs.append((nats(line, label), np.argmax(line) == label))
    result = evaluate(config, params, tokenizer)
    loss, unigram = np.mean(tokens, axis=0)
    assert (result["predictions"], result["pairs"]) == (len(tokens), 12)
    assert result["loss"] == pytest.approx(loss, rel=1e-5) and result["unigram_loss"] == pytest.approx(unigram)
    loss, accuracy = np.mean(pairs, axis=0)
    assert result["next_sentence_loss"] == pytest.approx(loss, rel=1e-5)
    assert result["next_sentence_accuracy"] == pytest.approx(accuracy)
    assert evaluate(dataclasses.replace(config, seed=7), params, tokenizer) == result


@pytest.mark.parametrize(
    ("objective", "segment_length"), [("permutation", 8), pytest.param("span_corruption", 16, marks=pytest.mark.slow)]
)
def test_evaluation_counts_the_predicted_text(make_encoder, objective, segment_length):
    config = make_encoder(objective, {"memory": MEMORY, "segment_length": segment_length})
    params, tokenizer = random_params(config.model), data.ByteTokenizer()
    model = models.from_params(config.model, params)
    batch = next(data.text_batches(config.data, config.training, HELD_OUT_SEED, tokenizer, "valid"))

    @jax.jit
    def call(inputs):
        state, options = model.init_state(4), {"reset": inputs["reset"]}
        if objective == "permutation":
            options["order"] = inputs["order"]
        else:
            state = model.read_source(inputs["source"], state, inputs["source_reset"])
        return model(inputs["tokens"], state, **options)[0]

    logits = np.asarray(call(batch.inputs))
    # Neither sentinels nor the id that begins a document.
    text = (batch.weights["tokens"] > 0) & (batch.targets["tokens"] < 256)
    found = [nats(logits[place], batch.targets["tokens"][place]) for place in zip(*np.nonzero(text), strict=True)]
    result = evaluate(config, params, tokenizer)
    assert result["predictions"] == len(found) and result["loss"] == pytest.approx(np.mean(found), rel=1e-5)
    unigram = unigram_losses(data.documents(config.data, "train", tokenizer).flat, config.model.vocab_size)
    assert result["unigram_loss"] == pytest.approx(unigram[batch.targets["tokens"][text]].mean())


def pair_logits(model, x):
    pooled, _ = model.heads["pooler"](x)
    return model.heads["next_sentence"](pooled)[0][:, 0]


def nats(logits, target):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum()) - logits[target]


def test_unigram_losses_are_counted():
    np.testing.assert_allclose(np.exp(-unigram_losses(np.array([0, 0, 2], np.uint16), 4)), [3 / 7, 1 / 7, 2 / 7, 1 / 7])


def test_each_head_scores_its_own_targets():
    model = models.from_params(ENCODER, random_params(ENCODER))
    tokens, label = np.arange(24, dtype=np.int32).reshape(2, 12), np.array([1, 0], np.int32)
    score = jax.jit(lambda targets: model.score(tokens, targets, model.init_state(2))[0])
    plain, scores = score({"masked": tokens}), score({"masked": tokens, "next_sentence": label})
    assert plain.keys() == {"masked"} and scores.keys() == {"masked", "next_sentence"}
    jax.tree.map(np.testing.assert_array_equal, scores["masked"], plain["masked"])
    logits = jax.jit(lambda tokens: pair_logits(model, model.hidden(tokens, model.init_state(2)).stream))(tokens)
    first = [nats(*pair) for pair in zip(logits, label, strict=True)]
    np.testing.assert_allclose(scores["next_sentence"].losses, first, rtol=1e-5)
    bare = models.from_params(other := dataclasses.replace(ENCODER, heads=()), random_params(other))
    for head, targets in (("masked", tokens), ("next_sentence", label)):
        with pytest.raises(ValueError, match=f"targets: the model has no head '{head}'; valid: none"):
            bare.score(tokens, {head: targets}, bare.init_state(2))


def test_a_config_that_does_not_fit_is_refused(make_encoder, make_config):
    with pytest.raises(
        ValueError, match=r"data\.objective=CausalConfig needs a model with the head 'tokens'; this EncoderConfig has "
    ):
        make_encoder("causal")
    with pytest.raises(ValueError, match=r"NextSentenceConfig needs a model with the input 'token_types'; this Enc"):
        make_encoder("next_sentence", {"token_types": None})
    with pytest.raises(ValueError, match=r"with the head 'masked' and 'next_sentence'; this .* has the heads \(\)"):
        make_encoder("masked_next_sentence", {"heads": ()})
    with pytest.raises(ValueError, match=r"MaskedConfig needs a model with the head 'masked'; this ModelConfig has"):
        make_config(data=TextConfig(objective=MaskedConfig()))
    with pytest.raises(
        ValueError, match=r"data\.text\.objective=MaskedConfig\(.*\): a task is trained with CausalConf"
    ):
        make_config(data=NeedleConfig(text=TextConfig(objective=MaskedConfig())))
    with pytest.raises(ValueError, match=r"CausalConfig needs a model with the head 'tokens'; this EncoderConfig"):
        ExperimentConfig(model=ENCODER, data=RecallConfig())
    with pytest.raises(ValueError, match=r"sequence_length=32 must be at most model\.num_positions=31"):
        make_encoder("masked", {"position": "learned", "num_positions": 31})
    with pytest.raises(ValueError, match=r"sequence_length=64 must be at most model\.num_positions=63"):
        ExperimentConfig(
            model=ModelConfig(position="learned", num_positions=63, segment_length=64, vocab_size=4096),
            training=TrainingConfig(sequence_length=64),
        )
    for objective, model, needed in (
        ("span_corruption", XLNET, "the input 'source' and 'source_reset'"),
        ("span_corruption", ModelConfig(), "the input 'source' and 'source_reset'"),
        ("permutation", ModelConfig(), "the input 'order'"),
        ("permutation", PAIR, "the input 'order'"),
    ):
        objective = OBJECTIVES[objective].config()
        with pytest.raises(
            ValueError, match=f"needs a model with {needed}; this {type(model).__name__} has the inputs"
        ):
            ExperimentConfig(model=model, data=TextConfig(objective=objective))
    with pytest.raises(ValueError, match=r"needs a causal model, not a Seq2SeqConfig"):
        ExperimentConfig(model=PAIR)
    with pytest.raises(ValueError, match=r"needs a causal model, not a XLNetConfig"):
        ExperimentConfig(model=XLNET)
    with pytest.raises(ValueError, match=r"needs a causal model, not a Seq2SeqConfig"):
        ExperimentConfig(model=PAIR, data=RecallConfig())
    with pytest.raises(ValueError, match=r"sequence_length=40 must be at most model\.decoder\.source_length=32"):
        make_encoder("span_corruption", sequence_length=40)
    with pytest.raises(ValueError, match="span_length must be at least 1"):
        SpanCorruptionConfig(span_length=0.5)
    with pytest.raises(ValueError, match="mask_rate must be between 0 and 1, got 1"):
        MaskedConfig(mask_rate=1.0)
    text = TextConfig(objective=SpanCorruptionConfig(mask_rate=0.5, span_length=1.0))
    model = dataclasses.replace(PAIR, decoder=dataclasses.replace(PAIR.decoder, source_length=800))
    with pytest.raises(ValueError, match="400 hidden spans need 401 sentinels; available: 100; use a smaller"):
        ExperimentConfig(model=model, data=text, training=TrainingConfig(sequence_length=800))


def test_a_run_that_does_not_fit_is_refused_before_its_first_step(tmp_path, make_encoder):
    config = make_encoder("span_corruption", sequence_length=32)
    small = {name: dataclasses.replace(stack, vocab_size=300) for name, stack in config.model.stacks.items()}
    with pytest.raises(
        RunError, match=r"257 token ids and there are 100 marks, but .* set model\.vocab_size to .* 357"
    ):
        train(dataclasses.replace(config, model=config.model.with_stacks(small)), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists() or not read_metrics(tmp_path / "run")


def test_an_encoder_is_overridden_and_written_as_any_model(make_encoder):
    config = make_encoder("masked")
    changed = override(
        config, ["--model.heads", "masked", "pooler", "--model.d-model=32", "--data.objective.mask-rate=0.3"]
    )
    assert type(changed.model) is EncoderConfig and changed.model.heads == ("masked", "pooler")
    assert (changed.model.d_model, changed.data.objective.mask_rate) == (32, 0.3)
    assert override(config, ["--model.memory", "kv"]).model.memory == KVMemoryConfig()
    words = ["--model.heads", "masked", "pooler", "next_sentence", "--data.objective", "masked_next_sentence"]
    other = override(config, [*words, "--data.objective.mask_rate=0.2"]).data.objective
    assert other == OBJECTIVES["masked_next_sentence"].config(mask_rate=0.2)
    with pytest.raises(ValueError, match=r"--data\.objective must be one of causal, masked, .* got 'mask'"):
        override(config, ["--data.objective=mask"])
    assert from_json(json.loads(json.dumps(to_json(changed)))) == changed


def test_both_stacks_are_overridden_and_written(make_encoder):
    config = make_encoder("span_corruption")
    words = ["--model.encoder.memory", "kv", "--model.decoder.memory=titans", "--model.decoder.d-ff", "24"]
    changed = override(config, [*words, "--model.encoder.memory.memory-size=8", "--data.objective.span-length=2"])
    assert changed.model.encoder.memory == KVMemoryConfig(memory_size=8)
    assert (type(changed.model.decoder.memory).__name__, changed.model.decoder.d_ff) == ("TitansMemoryConfig", 24)
    assert changed.data.objective.span_length == 2.0
    assert from_json(json.loads(json.dumps(to_json(changed)))) == changed


def test_an_encoder_does_not_generate():
    params, prompt = random_params(ENCODER), np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match="Seq2SeqConfig models cannot generate text"):
        generate((PAIR, None), prompt, max_new_tokens=1)
    with pytest.raises(ValueError, match="EncoderConfig models cannot generate text"):
        generate((ENCODER, params), prompt, max_new_tokens=1)
    with pytest.raises(ValueError, match="EncoderConfig models cannot generate text"):
        Session(models.from_params(ENCODER, params), data.ByteTokenizer())
