"""Distillation: the loss, the teachers and their memories, the cache, resuming."""

import dataclasses
import functools
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import data, models, parallel
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data import make_task
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.models.attention import call_inputs
from memgpt_jax.ops.attention.positions import document_positions
from memgpt_jax.ops.distillation import relation_divergence
from memgpt_jax.training import RunError, read_metrics, teacher_cache, train
from memgpt_jax.training.distillation import distilled, teachers_likeliest
from memgpt_jax.training.loop import call_shapes
from memgpt_jax.training.start import Hooks, completed, prepare
from memgpt_jax.training.state import abstract_state
from memgpt_jax.training.step import batch_loss, train_steps
from memgpt_jax.training.teacher_cache import with_cache
from memgpt_jax.training.teachers import (
    check_tokenizers,
    initial_model_state,
    initial_teacher_states,
    teacher_models,
    with_teachers,
)
from tests.examples.own_batches import Countdown
from tests.laws.models import random_params

PLAIN = {"memory": mg.NoMemoryConfig()}
WIDER = {"d_model": 24, "num_heads": 3, "segment_length": 12, "window_size": 4}


@pytest.fixture(scope="module")
def teacher(make_config, tmp_path_factory):
    """Makes the folder of a teacher with random parameters."""

    @functools.cache
    def make(seed=1, **changes):
        folder = tmp_path_factory.mktemp("teacher")
        config = dataclasses.replace(make_config().model, **changes)
        mg.save_pretrained(models.from_params(config, random_params(config, seed)), folder)
        return str(folder)

    return make


def taught(config, *teachers, **settings):
    return dataclasses.replace(config, distill=mg.DistillConfig(teachers=teachers, **settings))


def prepared(config):
    """The experiment with its teachers, and the loss."""
    config, params = with_teachers(config)
    return config, jax.tree_util.Partial(distilled(config.distill), params)


def batch_of(config, number=0):
    return jax.tree.map(jnp.asarray, data.recall_batch(config.data, number, config.training.batch_size))


def probabilities(logits, temperature):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_loss_is_that_of_the_equation(make_config, teacher):
    """w, T, h and the mean over two teachers of different sizes, of which none gets a gradient."""
    base = make_config(model=PLAIN | {"d_model": 8})
    config, loss_fn = prepared(
        taught(base, teacher(**WIDER | PLAIN), teacher(2, **PLAIN), weight=0.3, temperature=3.0, hidden_weight=0.2)
    )
    params, batch = random_params(config.model), batch_of(config)
    state = initial_model_state(config)

    @jax.jit
    def measured(params, loss_fn):
        def loss(params, loss_fn):
            value, (totals, _) = batch_loss(config, params, state, batch, jax.random.key(0), loss_fn)
            return value, totals

        every = zip((config.model, *teacher_models(config.distill)), (params, *loss_fn.args[0]), strict=True)
        called = [models.from_params(model, tree) for model, tree in every]
        streams = [model.hidden(**batch.inputs).stream for model in called]
        logits = [h @ model.output_embedding().T for h, model in zip(streams, called, strict=True)]
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, loss_fn), logits, streams

    ((value, totals), (own, of_teachers)), logits, streams = measured(params, loss_fn)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_teachers))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(own))
    q, *teachers = (probabilities(z, 3.0) for z in logits)
    p, weights = np.mean(teachers, axis=0), np.asarray(batch.weights["tokens"])
    plain = probabilities(logits[0], 1.0)
    task = -np.log(np.take_along_axis(plain, np.asarray(batch.targets["tokens"])[..., None], axis=-1)[..., 0])
    divergence = np.sum(p * np.log(p / q), axis=-1)
    assert float(totals.loss) == pytest.approx(np.sum(weights * task), rel=1e-5)
    x, *y = (np.asarray(stream)[weights > 0] for stream in streams)
    errors = [np.mean((x @ np.linalg.lstsq(x, goals, rcond=None)[0] - goals) ** 2, axis=1).sum() for goals in y]
    assert min(errors) > 1
    expected = 0.3 * 9 * np.sum(weights * divergence) + 0.2 * np.mean(errors)
    assert float(totals.distillation) == pytest.approx(expected, rel=1e-4)
    assert float(value) == pytest.approx(0.7 * float(totals.loss) + float(totals.distillation), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_loss_on_attention_is_that_of_the_last_layer(make_config, teacher, scan_layers):
    """The mean over two teachers of the divergences of queries, keys and values; only `attention_weight` is set."""
    base = make_config(model=PLAIN | {"d_model": 8, "scan_layers": scan_layers})
    sources = teacher(**WIDER | PLAIN), teacher(2, **PLAIN)
    settings = {"weight": 0.0, "attention_weight": 0.5, "relation_heads": 2}
    config, loss_fn = prepared(taught(base, *sources, **settings))
    params, batch, state = random_params(config.model), batch_of(config), initial_model_state(config)
    every = zip((config.model, *teacher_models(config.distill)), (params, *loss_fn.args[0]), strict=True)
    _, (totals, _) = jax.jit(batch_loss, static_argnums=0)(config, params, state, batch, jax.random.key(0), loss_fn)
    heads = []
    for model_config, tree in every:
        model = models.from_params(model_config, tree)
        tokens, reset = batch.inputs["tokens"], batch.inputs["reset"]
        positions = document_positions(jnp.zeros(len(tokens), jnp.int32), reset)
        x, called = model.embed(tokens, positions), call_inputs(reset, jnp.ones_like(reset), positions=positions)
        for block, layer in zip(model.blocks[:-1], model.init_state(len(tokens)).layers, strict=False):
            x, _, _ = block(x, layer, called, "any", None)
        last = model.blocks[-1]
        heads.append(last.attention.heads(last.attention_norm(x)))
    document = np.cumsum(batch.inputs["reset"], axis=1)
    ours, *theirs = heads
    found = [relation_divergence(x, y, document, 2) for other in theirs for x, y in zip(ours, other, strict=True)]
    expected = 0.5 * float(np.sum(np.mean(found, axis=0) * batch.weights["tokens"]))
    assert expected > 0.01 and float(totals.distillation) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_a_teacher_has_nothing_to_teach_itself(make_config, teacher):
    config, loss_fn = prepared(taught(make_config(), teacher(), weight=1.0, attention_weight=1.0))
    (params,) = loss_fn.args[0]
    memory = initial_model_state(config)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params, memory, batch):
        return batch_loss(config, params, memory, batch, jax.random.key(0), loss_fn)

    for number in range(2):
        (_, (totals, memory)), gradient = loss(params, memory, batch_of(config, number))
        assert abs(totals.distillation) < 1e-5
        assert all(np.abs(leaf).max() < 1e-5 for leaf in jax.tree.leaves(gradient))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(memory.teachers[0].layers[0].stream.memory))
        jax.tree.map(np.testing.assert_array_equal, memory.student, memory.teachers[0])


@pytest.mark.slow
def test_the_memory_of_a_teacher_does_not_depend_on_the_cut(make_config, teacher):
    """Batches of 8 tokens, segments of 12: what a teacher says is what it says of the whole stream."""
    base = make_config(sequence_length=8, batch_size=2)
    config, loss_fn = prepared(taught(base, teacher(**WIDER), top_k=20, temperature=1.0))
    tokens = np.random.default_rng(0).integers(0, 20, (2, 40)).astype(np.int32)
    reset = np.zeros((2, 40), bool)
    reset[1, 21] = True
    states, found = initial_teacher_states(config.distill, 2), []
    read = jax.jit(functools.partial(teachers_likeliest, config.distill))
    for start in range(0, 40, 8):
        part = {"tokens": tokens[:, start : start + 8], "reset": reset[:, start : start + 8]}
        top, states = read(loss_fn.args[0], states, data.Batch(part, {}, {}, {}))
        found.append(np.take_along_axis(np.asarray(top.log_probs), np.argsort(top.ids, axis=-1), axis=-1))
    (model,) = teacher_models(config.distill)
    logits, _ = jax.jit(models.functional(model).apply)(*loss_fn.args[0], tokens, None, reset)
    np.testing.assert_allclose(np.concatenate(found, axis=1), jax.jit(jax.nn.log_softmax)(logits), atol=1e-4)


@pytest.fixture
def cached(make_config, teacher, tmp_path):
    """Makes the batches of a run with a cache of all probabilities; arguments change its experiment."""
    base = make_config(model=PLAIN, steps=2, optimizer={"accumulate_steps": 2})

    def make(changes=None, seed=1):
        settings = {"weight": 0.5, "top_k": 20, "cache": str(tmp_path / "cache")}
        config = taught(base, teacher(seed, **WIDER | PLAIN), **settings)
        config, params = with_teachers(with_fields(config, changes or {}))
        batches = data.train_batches(config.data, config.training, config.seed)
        mesh = parallel.make_mesh(mg.ParallelConfig(data=1))
        return config, with_cache(config, params, mesh, tmp_path / "run", None, batches, 0)

    return make


def test_two_runs_that_share_a_cache_write_it_once(cached, monkeypatch):
    """The second waits for the first, and reads what it wrote."""
    write, written = teacher_cache._write, []

    def slowly(folder, found, key):
        written.append(threading.current_thread())
        time.sleep(0.5)
        write(folder, found, key)

    monkeypatch.setattr(teacher_cache, "_write", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(lambda: next(cached()[1])) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first.result(), second.result())
    assert len(written) == 1


def test_a_cache_of_all_probabilities_is_the_teacher_and_another_one_is_refused(cached):
    config, batches = cached()
    live, loss_fn = prepared(with_fields(config, {"distill.top_k": None, "distill.cache": None}))
    params = random_params(config.model)

    @functools.partial(jax.jit, static_argnums=0)
    def loss(config, memory, batch, loss_fn):
        return batch_loss(config, params, memory, batch, jax.random.key(0), loss_fn)

    own, shared = initial_model_state(config), initial_model_state(live)
    from_file = jax.tree_util.Partial(distilled(config.distill), ())
    for _ in range(4):
        batch = next(batches)
        found, (_, own) = loss(config, own, batch, from_file)
        expected, (_, shared) = loss(live, shared, batch._replace(info={}), loss_fn)
        assert float(found) == pytest.approx(float(expected), rel=1e-6)
    cached({"training.steps": 1})  # fewer batches of the same
    for changes, message in (
        ({"seed": 5}, r"is of another run(.|\n)*\n  data: .*seed 0 → .*seed 5"),
        ({"distill.temperature": 1.0}, r"\n  temperature: 2.0 → 1.0"),
        ({"distill.top_k": 3}, r"\n  top_k: 20 → 3"),
        ({"training.steps": 3}, r"\n  batches: 4 → 6"),
    ):
        with pytest.raises(RunError, match=message):
            cached(changes)
    with pytest.raises(RunError, match=r"\n  teachers: \["):
        cached(seed=7)
    with open(batches.folder / "teacher_ids.npy", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(RunError, match=r"damaged: .*teacher_ids.npy differs from its checksum"):
        cached()


@pytest.fixture(scope="module")
def runs(make_config, teacher, tmp_path_factory):
    """A run whose teacher runs in each step, and one with a cache of all probabilities."""
    folder = tmp_path_factory.mktemp("runs")
    optimizer = {"accumulate_steps": 2}
    base = make_config(steps=4, log_every=2, checkpoint_every=2, keep_checkpoints=3, optimizer=optimizer)
    configs = {"live": taught(base, teacher(**WIDER)), "cached": taught(base, teacher(**WIDER), top_k=20)}
    for name, config in configs.items():
        train(config, folder / name, print_progress=False)
    return folder, configs


def params_of(folder):
    return mg.load_run(folder).params


@pytest.mark.slow
@pytest.mark.parametrize("name", ["live", "cached"])
def test_a_run_resumes_bitwise(runs, tmp_path, name):
    folder, configs = runs
    shutil.copytree(folder / name, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/4")
    train(configs[name], tmp_path / "run", print_progress=False)
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "run"), params_of(folder / name))
    pair = [read_metrics(path)[-1]["distillation"] for path in (tmp_path / "run", folder / name)]
    assert pair[0] == pair[1] > 0


@pytest.mark.slow
def test_a_run_with_a_cache_is_that_with_the_teacher(runs):
    close = functools.partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, *(params_of(runs[0] / name) for name in ("live", "cached")))


@pytest.mark.slow
def test_another_teacher_is_refused_when_a_run_is_resumed(runs, teacher):
    folder, configs = runs
    other = dataclasses.replace(configs["live"].distill, teachers=(teacher(7, **WIDER),))
    with pytest.raises(RunError, match=r"another config.*\n  distill.fingerprints: "):
        train(dataclasses.replace(configs["live"], distill=other), folder / "live", print_progress=False)


def test_without_a_weight_the_step_is_the_ordinary_one(make_config):
    """The program is the same, so that results are, bitwise; the teacher is not read."""
    base = make_config(model=PLAIN)

    def program(config):
        setup = prepare(config, Hooks(None, None))
        state, batches = abstract_state(setup.config), call_shapes(setup.config, setup.batch)
        step = jax.jit(functools.partial(train_steps, setup.config, loss_fn=setup.hooks.loss_fn))
        return step.lower(state, batches).as_text()

    assert program(taught(base, "nowhere", weight=0.0)) == program(base)


@pytest.fixture
def labelled(tmp_path):
    """Makes an experiment on texts with labels, whose model has a head; arguments are those of the backbone."""
    rows = [{"text": f"{word} {number}", "label": word[0]} for number in range(10) for word in ("ant", "bee")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        sizes = {"vocab_size": 257, "d_model": 8, "num_layers": 1, "num_heads": 2, "segment_length": 8}
        backbone = mg.ModelConfig(**sizes | {"window_size": 8, "memory": mg.NoMemoryConfig()} | changes)
        return completed(
            mg.ExperimentConfig(
                model=mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig()),
                data=mg.LabelledTextConfig(train=str(tmp_path / "a.jsonl"), tokenizer="byte"),
                training=mg.TrainingConfig(batch_size=4, sequence_length=16, carry_state=False),
                evaluation=mg.EvaluationConfig(chunk_length=16),
            )
        )

    return make


def test_a_head_learns_the_classes_of_its_teacher(labelled, tmp_path):
    big = labelled(d_model=12).model
    mg.save_pretrained(models.from_params(big, random_params(big, 1)), tmp_path / "teacher")
    config, loss_fn = prepared(taught(labelled(), str(tmp_path / "teacher"), temperature=1.0))
    batch = make_task(config.data, "train", ByteTokenizer()).batch(0, 4, 16)
    params = random_params(config.model)
    state = initial_model_state(config)

    @jax.jit
    def measured(params, loss_fn):
        pairs = ((big, loss_fn.args[0][0]), (config.model, params))
        logits = [models.functional(model).apply(tree, **batch.inputs)[0] for model, tree in pairs]
        return batch_loss(config, params, state, batch, jax.random.key(0), loss_fn), logits

    (value, (totals, _)), logits = measured(params, loss_fn)
    p, q = (probabilities(z, 1.0) for z in logits)
    weights = np.asarray(batch.weights["labels"])
    expected = 0.5 * np.sum(weights * np.sum(p * np.log(p / q), axis=-1))
    assert float(totals.distillation) == pytest.approx(expected, rel=1e-4) and expected > 0
    assert float(value) == pytest.approx(0.5 * float(totals.loss) + expected, rel=1e-5)
    other = dataclasses.replace(config.model, head=dataclasses.replace(config.model.head, output_names=("b", "a")))
    with pytest.raises(
        ValueError, match=r"differs from the model in head.output_names: \('a', 'b'\), not \('b', 'a'\)"
    ):
        with_teachers(dataclasses.replace(config, model=other))
    with pytest.raises(ValueError, match=r"distill needs model.head.mixup=0"):
        head = dataclasses.replace(config.model.head, mixup=0.2)
        dataclasses.replace(config, model=dataclasses.replace(config.model, head=head))


def test_another_tokenizer_or_vocabulary_is_refused(make_config, teacher, tmp_path):
    config = dataclasses.replace(make_config().model, vocab_size=257)
    model = models.from_params(config, random_params(config))
    mg.save_pretrained(model, tmp_path / "bytes", tokenizer=ByteTokenizer())
    distill = mg.DistillConfig(teachers=(str(tmp_path / "bytes"),))
    check_tokenizers(distill, ByteTokenizer())
    check_tokenizers(distill, None)
    with pytest.raises(ValueError, match="bytes has another tokenizer than the run"):
        check_tokenizers(distill, SimpleNamespace(fingerprint="other"))
    with pytest.raises(RunError, match="bytes differs from the model in vocab_size: 257, not 20"):
        train(taught(make_config(), str(tmp_path / "bytes")), tmp_path / "run", print_progress=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 1.5}, "distill.weight must be between 0 and 1"),
        ({"temperature": 0.0}, "distill.temperature must be positive"),
        ({"top_k": 0}, "distill.top_k must be at least 1"),
        ({"cache": "folder"}, "distill.cache='folder' needs distill.top_k"),
        ({"top_k": 4, "hidden_weight": 1.0}, "distill.hidden_weight=1.0 needs the teachers in each step"),
        ({"top_k": 4, "attention_weight": 1.0}, "distill.attention_weight=1.0 needs the teachers in each step"),
        ({"attention_weight": -1.0}, "distill.attention_weight must be a number of at least 0"),
        ({"relation_heads": 0}, "distill.relation_heads must be at least 1, got 0"),
    ],
)
def test_values_that_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mg.DistillConfig(teachers=("a",), **values)


def test_options_without_teachers_are_refused(make_config, tmp_path):
    config = taught(make_config(), weight=0.9, temperature=7.0)
    with pytest.raises(RunError, match=r"distill.weight=0.9, distill.temperature=7.0 needs distill.teachers"):
        train(config, tmp_path / "run", print_progress=False)


def test_an_encoder_is_refused():
    model = mg.EncoderConfig(vocab_size=260)
    data = mg.TextConfig(tokenizer="byte", objective=mg.MaskedConfig())
    with pytest.raises(ValueError, match="needs a decoder, or a model with a head for classes, not a EncoderConfig"):
        with_teachers(taught(mg.ExperimentConfig(model=model, data=data), "nowhere"))


@pytest.mark.parametrize(
    ("changes", "hooks", "message"),
    [
        ({"top_k": 21}, {}, "distill.top_k=21 must be at most 20"),
        ({"attention_weight": 1.0, "relation_heads": 5}, {}, "distill.relation_heads=5 does not divide the 16 dim"),
        ({}, {"loss_fn": print}, "loss_fn replaces the loss"),
        ({"top_k": 4}, {"batches": Countdown(4, 32, 20)}, "own batches need top_k=None"),
    ],
)
def test_experiments_that_are_refused(make_config, teacher, tmp_path, changes, hooks, message):
    with pytest.raises(RunError, match=message):
        train(taught(make_config(), teacher(), **changes), tmp_path, print_progress=False, **hooks)
