"""What cannot work is refused before the first step: one RunError, no step done, no checkpoint left."""

import dataclasses

import pytest
from jax.sharding import AbstractMesh

from memgpt_jax import data, parallel
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, ParallelConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.data.objectives.masked import MaskedConfig
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.data.tasks.json_recall import JsonRecallConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.evaluation import check_evaluation
from memgpt_jax.memory import resolved
from memgpt_jax.training import RunError, read_metrics, start, train
from memgpt_jax.training.device_memory import check_evaluation_memory, held_bytes

SENTENCE = "The sun rises. A day begins, and a ship sails on. "


@pytest.fixture
def text(tmp_path):
    """Makes a corpus of some splits."""

    def make(*splits, **settings):
        for split in splits:
            (tmp_path / "text" / split).mkdir(parents=True)
            (tmp_path / "text" / split / "a.txt").write_text(SENTENCE * 20)
        return TextConfig(
            corpus="folder",
            path=str(tmp_path / "text"),
            cache_dir=str(tmp_path / "cache"),
            **{"tokenizer": "byte"} | settings,
        )

    return make


def refuses(config, workdir, message):
    with pytest.raises(RunError, match=message):
        train(config, workdir, print_progress=False)
    assert not read_metrics(workdir)
    assert not list(workdir.glob("checkpoints/*"))


PLAIN = {"memory": NoMemoryConfig(), "vocab_size": 260}


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_held_out_split_that_is_empty(tmp_path, make_config, text, split):
    other = {"valid": "test", "test": "valid"}[split]
    config = make_config(data=text("train", other), model=PLAIN)
    evaluation = dataclasses.replace(config.evaluation, split=split)
    refuses(dataclasses.replace(config, evaluation=evaluation), tmp_path / "run", f"split '{split}'|'{split}'")


def test_the_held_out_text_of_a_task_and_of_an_objective(tmp_path, make_config, text):
    corpus = text("train")
    task = NeedleConfig(text=corpus, num_needles=1, num_questions=1, gap_length=8, num_words=2)
    refuses(make_config(data=task, model=PLAIN, sequence_length=256), tmp_path / "run", "'valid'")


def test_a_metric_that_the_settings_do_not_measure(tmp_path, text):
    masked = text("train", "valid", objective=MaskedConfig())
    (tmp_path / "pairs.jsonl").write_text('{"source": "a", "target": "b"}\n' * 20)
    pairs = TextPairsConfig(train=str(tmp_path / "pairs.jsonl"), tokenizer="byte", metrics=("rouge",))
    encoder = EncoderConfig(**PLAIN, heads=("masked",))
    for name, corpus, model, valid in (
        ("next_sentence_loss", masked, encoder, "loss, accuracy, unigram_loss"),
        ("bleu", pairs, ModelConfig(**PLAIN), "rouge1, rouge2, rouge_l, rouge_lsum, loss"),
    ):
        training = TrainingConfig(carry_state=False, checkpoint_every=5)
        evaluation = EvaluationConfig(every=5, metric=name)
        config = ExperimentConfig(data=corpus, model=model, training=training, evaluation=evaluation)
        with pytest.raises(ValueError, match=f"evaluation.metric='{name}' is not in the results; valid: {valid}$"):
            check_evaluation(config, data.ByteTokenizer())


def test_a_tokenizer_that_does_not_fit_or_is_not_there(tmp_path, make_config, text):
    small = PLAIN | {"vocab_size": 100}
    refuses(make_config(data=text("train", "valid"), model=small), tmp_path / "run", "model.vocab_size is 100")
    corpus = dataclasses.replace(text(), tokenizer=str(tmp_path / "nowhere.model"))
    refuses(make_config(data=corpus, model=PLAIN), tmp_path / "run", "there is no file")


def test_documents_beyond_learned_positions(tmp_path, make_config, text):
    corpus, learned = text("train", "valid"), PLAIN | {"position": "learned", "num_positions": 64}
    config = make_config(data=corpus, model=learned, carry_state=False)
    refuses(config, tmp_path / "run", r"max_tokens=8192: a document has 1000 .*model.num_positions=64")
    config = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, max_tokens=64))
    check_evaluation(config, data.ByteTokenizer())
    carried = dataclasses.replace(config, training=dataclasses.replace(config.training, carry_state=True))
    refuses(carried, tmp_path / "run", r"training split has 1001 tokens, .*carry_state=False")


def test_files_of_tasks(tmp_path, make_config):
    refuses(make_config(data=BabiConfig(path=str(tmp_path), num_words=20)), tmp_path / "run", "data.path|holds no")
    published = JsonRecallConfig(num_pairs=2, num_questions=1, path=str(tmp_path / "nowhere.jsonl"))
    refuses(make_config(data=published, model={"vocab_size": 64}), tmp_path / "run", "nowhere")


def test_sizes_that_follow_from_state_bytes(tmp_path, monkeypatch):
    """1,024 entries would be divided by 4; those that 2,000 bytes hold are not."""
    memory = KVMemoryConfig(match_state_bytes=2000, head_dim=16)
    model = ModelConfig(memory=memory)
    size = resolved(model).memory.memory_size
    assert 0 < size < 20 and size % 4 and resolved(model).memory.match_state_bytes is None
    monkeypatch.setattr(parallel, "make_mesh", lambda config: AbstractMesh((1, 1, 1, 4), parallel.AXES))
    refuses(ExperimentConfig(model=model), tmp_path / "run", rf"memory_size={size} must be a multiple of .* sequence=4")


def test_an_evaluation_that_does_not_fit_the_device(tmp_path, make_config, monkeypatch):
    config = make_config()
    large = dataclasses.replace(config, evaluation=EvaluationConfig(batch_size=4096, num_batches=1, chunk_length=32))
    limit = 2 * held_bytes(config, parallel.make_mesh(ParallelConfig(data=1))).total
    check_evaluation_memory(config, limit)
    check_evaluation_memory(large, None)
    check_evaluation_memory(large, 10_000 * limit)
    monkeypatch.setattr(start, "device_memory", lambda mesh: limit)
    refuses(large, tmp_path / "run", r"evaluation needs at least .* lower evaluation.batch_size=4096")
