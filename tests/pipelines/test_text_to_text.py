"""Pairs of texts from data to prediction: a decoder and an encoder-decoder learn to reverse three letters."""

import json
from itertools import product

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.studies import entry
from tests.laws.models import random_params
from tests.pipelines.resuming import check_resuming

pytest.importorskip("sacrebleu", reason="the extra `tasks` is not installed")
SIZES = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 8}
BARE = SIZES | {"memory": mg.NoMemoryConfig()}
MODELS = {
    "decoder": mg.ModelConfig(
        **SIZES | {"num_layers": 2}, memory=mg.KVMemoryConfig(memory_size=16, head_dim=8), window_size=16
    ),
    "encoder-decoder": mg.Seq2SeqConfig(
        encoder=mg.EncoderConfig(**BARE, position="learned", heads=()),
        decoder=mg.ModelConfig(**BARE, position="learned", window_size=8, source_length=8),
    ),
}
PAIRS = [{"source": "".join(word), "target": "".join(word)[::-1]} for word in product("abc", repeat=3)]
TASK = mg.TextPairsConfig(metrics=("exact", "bleu"), max_new_tokens=6, pipeline="translation")
OPTIONS = {"batch_size": 16, "learning_rate": 5e-3, "dropout": 0.0, "print_progress": False}
LENGTHS = {"decoder": {"sequence_length": 32, "epochs": 200}, "encoder-decoder": {"sequence_length": 8, "epochs": 60}}


def base(name):
    config = MODELS[name]
    return mg.from_params(config, random_params(config))


@pytest.fixture(scope="module", params=["encoder-decoder", pytest.param("decoder", marks=pytest.mark.slow)])
def learned(request, tmp_path_factory):
    workdir, options = tmp_path_factory.mktemp(request.param), OPTIONS | LENGTHS[request.param]
    rows = {"train": PAIRS, "valid": PAIRS[::3]}
    return mg.finetune(base(request.param), TASK, **rows, workdir=workdir, tokenizer=ByteTokenizer(), **options)


def test_a_small_mapping_is_learned(learned):
    found = learned.evaluation
    assert found["exact_match"] == 1 and found["examples"] == 9 and found["targets"] == 36 and found["loss"] < 0.1
    assert type(learned.config.model) is not mg.HeadedConfig


def test_a_pipeline_writes_what_was_learned(learned):
    translate = mg.pipeline(learned.workdir)
    assert translate("abc") == translate(" abc\n") == [{"translation_text": "cba"}]
    assert translate("abc", max_new_tokens=2) == [{"translation_text": "cb"}] and translate([]) == []
    long = translate("abc" * 50)  # an encoder-decoder cuts it, a decoder reads it in pieces
    assert len(long) == 1 and type(long[0]["translation_text"]) is str
    with pytest.raises(ValueError, match="a source is empty"):
        translate(" ")
    with pytest.raises(ValueError, match="inputs must be a text or a list of texts, got a int"):
        translate(3)
    with pytest.raises(ValueError, match="max_new_tokens must be"):
        translate("abc", max_new_tokens=0)


@pytest.mark.slow
def test_texts_are_translated_there_and_back(learned):
    translate = mg.pipeline(learned.workdir)

    def turned(texts):
        return [result["translation_text"][1:] + result["translation_text"][0] for result in translate(texts)]

    assert mg.data.back_translate(["abc", "bba"], translate, translate) == []  # the inverse of itself
    assert mg.data.back_translate(["abc", "bbb"], translate, turned) == [(0, "bca")]


@pytest.mark.slow
def test_batches_and_beams(learned):
    words = ["aab", "abc", "bca"]
    summarize = mg.pipeline("summarization", model=learned.workdir, rows=2)
    assert summarize(words) == summarize(words, num_beams=3) == [{"summary_text": word[::-1]} for word in words]


@pytest.mark.slow
def test_greedy_texts_are_the_argmax_of_teacher_forcing(learned):
    """Also of an untrained word: the decoder reads its own answer, and each token of it has the highest logit."""
    pipeline, model = mg.pipeline(learned.workdir), mg.functional(learned.config.model)
    params = mg.load_run(learned.workdir).params
    answer = pipeline("dab")[0]["translation_text"]
    row = pipeline.tokens.row("dab", answer)
    state = None
    if "source" in row:
        state = mg.from_params(learned.config.model, params).read_source(row["source"][None])
    reset = np.arange(len(row["tokens"]))[None] == 0
    logits, _ = jax.jit(model.apply)(params, row["tokens"][None], state, reset)
    best, answered = np.asarray(logits[0]).argmax(axis=-1), row["weights"] > 0
    number = min(TASK.max_new_tokens, answered.sum())  # an answer of the largest length has no end
    np.testing.assert_array_equal(best[answered][:number], row["targets"][answered][:number])


@pytest.mark.slow
def test_results_do_not_depend_on_batches_and_the_limit_counts_examples(learned):
    params = mg.load_run(learned.workdir).params

    def result(**changes):
        evaluation = mg.EvaluationConfig(**{"max_documents": None, "chunk_length": 8} | changes)
        config = mg.ExperimentConfig(model=learned.config.model, data=learned.config.data, evaluation=evaluation)
        return evaluate(config, params, ByteTokenizer())

    whole, other = result(batch_size=4), result(batch_size=9, chunk_length=16)
    assert whole["examples"] == other["examples"] == 9 and whole["exact_match"] == other["exact_match"] == 1
    assert whole["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert whole["loss"] == pytest.approx(learned.evaluation["loss"], abs=1e-5)
    assert result(max_documents=2)["examples"] == 2 and result(max_documents=2)["targets"] == 8


def test_a_resumed_run_is_the_same_bitwise(learned, tmp_path):
    check_resuming(learned, tmp_path)


def test_predictions_of_the_command(learned, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_text('{"source": "abc"}\n{"source": ""}\n{"source": "cab"}\n')
    entry.main(["predict", str(learned.workdir), "--input", str(tmp_path / "in.jsonl")])
    out, errors = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"line": 1, "text": "abc", "translation_text": "cba"},
        {"line": 3, "text": "cab", "translation_text": "bac"},
    ]
    assert "line 2 is skipped: it is empty" in errors
    with pytest.raises(SystemExit):
        entry.main(["predict", str(learned.workdir)])
    assert "--text or --input is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": mg.LabelHeadConfig()}, "leave head and call_length out"),
        ({"call_length": 8}, "leave head and call_length out"),
        ({"sequence_length": 12}, "training.sequence_length=12 must be a multiple of model.segment_length=8"),
    ],
)
def test_arguments_of_finetune_that_are_refused(tmp_path, options, message):
    arguments = OPTIONS | LENGTHS["encoder-decoder"] | options
    with pytest.raises((ValueError, mg.RunError), match=message):
        mg.finetune(
            base("encoder-decoder"), TASK, train=PAIRS, workdir=tmp_path, tokenizer=ByteTokenizer(), **arguments
        )


def test_models_that_write_nothing_are_refused():
    encoder = mg.EncoderConfig(**BARE, heads=())
    with pytest.raises(ValueError, match="model must be a decoder or an encoder-decoder, got a EncoderConfig"):
        mg.pipeline("translation", model=(encoder, {}), tokenizer=ByteTokenizer())
