"""Distillation from teachers with another tokenizer: the spans of text, their probabilities, the loss, runs."""

import dataclasses
import functools
import shutil
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import data, models, parallel
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.training import RunError, read_metrics, train
from memgpt_jax.training.distillation import distilled
from memgpt_jax.training.step import batch_loss
from memgpt_jax.training.teacher_cache import with_cache
from memgpt_jax.training.teacher_spans import SPAN_LOG_PROBS, SPAN_TOKENS, SpanReader, spans_of_batches
from memgpt_jax.training.teachers import check_tokenizers, initial_model_state, with_teachers
from tests.laws.models import random_params

BYTES = ByteTokenizer()
SIZES = {"d_model": 16, "num_layers": 1, "num_heads": 2, "window_size": 8, "segment_length": 8}
MEMORY = mg.KVMemoryConfig(memory_size=24, head_dim=8)
TEXTS = [
    f"The n\N{LATIN SMALL LETTER A WITH DIAERESIS}me of {name} is {name}, not {name[::-1]}. \N{GRINNING FACE}"
    for name in ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn")
]


def experiment(folder, tokenizer="bpe", **training) -> mg.ExperimentConfig:
    """A student of a corpus of six short texts."""
    text = mg.TextConfig(
        corpus="folder",
        path=str(folder / "texts"),
        tokenizer=tokenizer,
        cache_dir=str(folder),
        tokenizer_vocab_size=300,
    )
    settings = {"steps": 4, "batch_size": 2, "sequence_length": 16, "log_every": 2, "checkpoint_every": 2}
    return mg.ExperimentConfig(
        model=mg.ModelConfig(vocab_size=300 if tokenizer == "bpe" else 257, memory=MEMORY, **SIZES),
        data=text,
        optimizer=mg.OptimizerConfig(warmup_steps=1),
        training=mg.TrainingConfig(**settings | training),
        evaluation=mg.EvaluationConfig(batch_size=2, chunk_length=16, max_documents=1, max_tokens=32),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, and two teachers that read bytes."""
    folder = tmp_path_factory.mktemp("spans")
    for split in ("train", "valid"):
        (folder / "texts" / split).mkdir(parents=True)
        for number, text in enumerate(TEXTS):
            (folder / "texts" / split / f"{number}.txt").write_text(text, encoding="utf-8")
    for seed in (1, 2):
        config = mg.ModelConfig(vocab_size=257, memory=MEMORY, **SIZES)
        model = models.from_params(config, random_params(config, seed))
        mg.save_pretrained(model, folder / f"teacher{seed}", tokenizer=BYTES)
    return folder


def taught(config, folder, *seeds, **settings):
    teachers = tuple(str(folder / f"teacher{seed}") for seed in seeds)
    return dataclasses.replace(config, distill=mg.DistillConfig(teachers=teachers, by_spans=True, **settings))


def reader_of(config, folder, *seeds):
    config, params = with_teachers(taught(config, folder, *seeds, temperature=3.0))
    return SpanReader(config, params, data.tokenizer_of(config.data), [BYTES] * len(seeds))


def log_probs_of_bytes(folder, seed, text):
    """ln p of each byte of a text, read by a teacher in one call."""
    model = mg.from_pretrained(folder / f"teacher{seed}")
    ids = np.array(BYTES.encode(text))
    logits = model(np.concatenate([[BYTES.start_id], ids[:-1]])[None].astype(np.int32))[0][0]
    return np.asarray(jax.nn.log_softmax(logits))[np.arange(len(ids)), ids].astype(np.float64)


@pytest.mark.slow
def test_spans_are_the_tokens_of_the_student_where_teachers_read_bytes(folder):
    """Every token ends at the end of a byte, so each is a span; p is the mean over two teachers at T = 3."""
    reader = reader_of(experiment(folder), folder, 1, 2)
    documents = [np.array(reader.tokenizer.encode(text)) for text in TEXTS[:3]]
    found = reader.spans(documents)
    for ids, text, spans in zip(documents, TEXTS, found, strict=False):
        assert spans.tokens.tolist() == [1] * len(ids) and len(ids) < len(text.encode())
        ends = [0, *np.cumsum(reader.tokenizer.token_bytes[ids]).tolist()]
        own = [log_probs_of_bytes(folder, seed, text) for seed in (1, 2)]
        for place, (first, last) in enumerate(pairwise(ends)):
            p = np.mean([np.exp(part[first:last].sum() / 3) for part in own])
            assert spans.log_probs[place] == pytest.approx(3 * np.log(p), rel=1e-4, abs=1e-5)


def test_spans_end_where_the_tokens_of_both_end(folder):
    """A student that reads bytes and a teacher of longer tokens: the bytes of a token are one span."""
    config = experiment(folder)
    tokenizer = data.tokenizer_of(config.data)
    mg.save_pretrained(
        models.from_params(config.model, random_params(config.model, 3)), folder / "teacher3", tokenizer=tokenizer
    )
    config, params = with_teachers(taught(experiment(folder, "byte"), folder, 3))
    reader = SpanReader(config, params, BYTES, [tokenizer])
    text = TEXTS[0]
    (spans,) = reader.spans([np.array(BYTES.encode(text))])
    sizes = tokenizer.token_bytes[tokenizer.encode(text)]
    ends = np.cumsum(sizes[sizes > 0]) - 1
    assert np.flatnonzero(spans.tokens).tolist() == ends.tolist() and spans.tokens.sum() == len(text.encode())
    assert spans.tokens[ends].tolist() == sizes[sizes > 0].tolist() and np.all(spans.log_probs[ends] < 0)
    (cut,) = reader.spans([np.array(BYTES.encode(text)[:-1])])  # within the last character
    assert len(cut.tokens) == len(text.encode()) - 4


@pytest.mark.parametrize("length", [pytest.param(8, marks=pytest.mark.slow), 16, 64])
def test_spans_do_not_depend_on_the_batches(folder, length):
    """Each document has the spans of its whole text, whatever batches it is in; the last ones of a row are cut."""
    config = experiment(folder, sequence_length=length)
    reader, number = reader_of(config, folder, 1), 512 // length
    batches = data.train_batches(config.data, config.training, 0)
    rows = [[[], [], [], []], [[], [], [], []]]
    copies = data.train_batches(config.data, config.training, 0)
    for found in spans_of_batches(reader, batches, number):
        batch = next(copies)
        assert found[SPAN_TOKENS].shape == found[SPAN_LOG_PROBS].shape == (2, length)
        arrays = batch.inputs["reset"], batch.targets["tokens"], found[SPAN_TOKENS], found[SPAN_LOG_PROBS]
        for row, parts in enumerate(rows):
            for part, array in zip(parts, arrays, strict=True):
                part.append(array[row])
    seen = set()
    for parts in rows:
        resets, targets, tokens, log_probs = map(np.concatenate, parts)
        begins = np.flatnonzero(resets).tolist()
        for first, last in pairwise(begins):
            ids = targets[first : last - 1]
            (whole,) = reader.spans([ids])
            np.testing.assert_array_equal(tokens[first : last - 1], whole.tokens)
            np.testing.assert_allclose(log_probs[first : last - 1], whole.log_probs, rtol=1e-4, atol=1e-5)
            assert tokens[last - 1] == 0  # the end of a document
            seen.add(reader.tokenizer.decode(ids.tolist()))
        assert np.any(tokens[begins[-1] :])
    assert seen == set(TEXTS)


def test_the_loss_is_that_of_the_equation(folder):
    """Against loops over spans; the spans that begin in the batch before are left out."""
    config = dataclasses.replace(taught(experiment(folder), folder, 1, weight=0.3, temperature=5.0))
    params, rng = random_params(config.model), np.random.default_rng(0)
    batch = next(data.train_batches(config.data, config.training, 0))
    tokens, log_p = np.zeros((2, 16), np.int32), np.zeros((2, 16), np.float32)
    for row, spans in enumerate([[(-2, 1), (1, 4), (4, 5), (9, 16)], [(0, 3), (3, 4), (10, 12)]]):
        for first, last in spans:
            tokens[row, last - 1], log_p[row, last - 1] = last - first, -rng.exponential() * (last - first)
    batch = batch._replace(info=batch.info | {SPAN_TOKENS: tokens, SPAN_LOG_PROBS: log_p})
    loss_fn, state = jax.tree_util.Partial(distilled(config.distill), ()), initial_model_state(config)

    @jax.jit
    def loss(params):
        value, (totals, _) = batch_loss(config, params, state, batch, jax.random.key(0), loss_fn)
        scores, _ = models.functional(config.model).score(params, targets=batch.targets, state=state, **batch.inputs)
        return value, (totals, scores["tokens"].losses)

    (value, (totals, losses)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = 0.0
    for row, last in zip(*np.nonzero(tokens), strict=True):
        first = last + 1 - tokens[row, last]
        if first >= 0:
            p, q = (
                np.exp(np.float64(log_p[row, last]) / 5),
                np.exp(-np.float64(losses[row, first : last + 1].sum()) / 5),
            )
            expected += 0.3 * 5 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert float(totals.distillation) == pytest.approx(expected, rel=1e-4) and expected > 0.1
    assert float(value) == pytest.approx(0.7 * float(totals.loss) + expected, rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_a_teacher_has_nothing_to_teach_itself(folder, tmp_path):
    """With the student's own parameters and tokenizer, the divergence is 0.

    Only for the first document of each row: in later ones, segments begin at other places than in a document alone.
    """
    config = taught(experiment(folder, "byte"), folder, 1, weight=1.0, cache=str(tmp_path / "cache"))
    config, (params,) = with_teachers(config)
    mesh, batches = parallel.make_mesh(mg.ParallelConfig(data=1)), data.train_batches(config.data, config.training, 0)
    batches = with_cache(config, (params,), mesh, tmp_path, BYTES, batches, 0)
    state, loss_fn = initial_model_state(config), jax.tree_util.Partial(distilled(config.distill), ())
    loss = jax.jit(functools.partial(batch_loss, config, key=jax.random.key(0), loss_fn=loss_fn))
    for _ in range(2):
        batch = next(batches)
        assert np.sum(batch.info[SPAN_TOKENS]) > 16
        value, (totals, state) = loss(params, state, jax.tree.map(jnp.asarray, batch))
        assert abs(float(value)) < 1e-4 and float(totals.loss) > 10


@pytest.mark.slow
def test_a_run_learns_from_a_teacher_and_resumes_bitwise(folder, tmp_path):
    config = taught(experiment(folder, keep_checkpoints=3), folder, 1, 2, weight=0.5, temperature=20.0)
    train(config, tmp_path / "run", print_progress=False)
    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed/checkpoints/4")
    train(config, tmp_path / "resumed", print_progress=False)
    pair = [mg.load_run(tmp_path / name).params for name in ("run", "resumed")]
    jax.tree.map(np.testing.assert_array_equal, *pair)
    found = [read_metrics(tmp_path / name)[-1]["distillation"] for name in ("run", "resumed")]
    assert found[0] == found[1] > 0
    with pytest.raises(RunError, match=r"is of another run(.|\n)*\n  temperature: 20.0 → 2.0"):
        shared = with_fields(config, {"distill.cache": str(tmp_path / "run/teachers"), "distill.temperature": 2.0})
        train(shared, tmp_path / "other", print_progress=False)


def test_what_is_refused(folder, make_config):
    with pytest.raises(ValueError, match=r"it needs distill.top_k=None, got 4"):
        mg.DistillConfig(teachers=("a",), by_spans=True, top_k=4)
    with pytest.raises(ValueError, match=r"needs the teachers in each step: .*distill.by_spans=False"):
        mg.DistillConfig(teachers=("a",), by_spans=True, hidden_weight=1.0)
    with pytest.raises(ValueError, match=r"needs a corpus as data .* got RecallConfig with CausalConfig"):
        with_teachers(taught(make_config(), folder, 1))
    distill = taught(experiment(folder), folder, 1).distill
    check_tokenizers(distill, data.tokenizer_of(experiment(folder).data))
    with pytest.raises(ValueError, match="needs lossless tokenizers; that of the run is not"):
        check_tokenizers(distill, SimpleNamespace(lossless=False))
