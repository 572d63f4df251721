"""Training starts from the weights of an encoder, an encoder-decoder and an XLNet, and is resumed bitwise."""

import dataclasses

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from memgpt_jax import data, models
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.data.objectives import OBJECTIVES
from memgpt_jax.data.objectives.span_corruption import sentinel_ids
from memgpt_jax.data.objectives.special_ids import SpecialIds, special_ids
from memgpt_jax.data.tasks import TranscriptsConfig
from memgpt_jax.data.tokenizers.json_file import JsonTokenizer
from memgpt_jax.interop import from_pretrained, save_pretrained
from memgpt_jax.interop.families import FAMILIES
from memgpt_jax.training import RunError, train
from memgpt_jax.training.pretrained import pretrained_start
from tests.laws.models import random_params

WORDS = ["document", "of", "train", "valid", ".", *map(str, range(6))]
MEMORY = {"memory": KVMemoryConfig(memory_size=8, head_dim=4), "segment_length": 8, "fusion": "gated_add"}
BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}
XLNET = {
    "model_type": "xlnet",
    "architectures": ["XLNetLMHeadModel"],
    "d_model": 8,
    "n_layer": 1,
    "n_head": 2,
    "d_inner": 16,
}
T5 = {
    "model_type": "t5",
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}
T5_MODEL = Seq2SeqConfig(
    encoder=EncoderConfig(heads=(), **MEMORY), decoder=ModelConfig(source_length=64, window_size=16, **MEMORY)
)

CASES = {
    "masked": (BERT, ["[CLS]", "[SEP]", "[MASK]", "[UNK]"], EncoderConfig(**MEMORY)),
    "permutation": (XLNET, ["</s>", "[UNK]"], XLNetConfig(**MEMORY)),
    "span_corruption": (T5, ["</s>", "[UNK]", *(f"<extra_id_{i}>" for i in range(99, -1, -1))], T5_MODEL),
}


@pytest.fixture
def make(tmp_path, make_config):
    """Makes a pretrained model and the experiment that starts from it."""
    for split in ("train", "valid"):
        (tmp_path / "corpus" / split).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "corpus" / split / f"{i}.txt").write_text(f"document {i} of {split} . " * (3 + 2 * i))

    def make(objective: str) -> tuple[ExperimentConfig, JsonTokenizer]:
        values, special, model = CASES[objective]
        words = [*special, *WORDS]
        tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.add_special_tokens(special)
        tokenizer = JsonTokenizer(tokenizer.to_str(), special[0])
        base = FAMILIES[values["model_type"]].module.from_hf(values | {"vocab_size": len(words)})
        params = random_params(base, 1)
        save_pretrained(models.from_params(base, params), tmp_path / "base", tokenizer=tokenizer)
        text = TextConfig(
            corpus="folder",
            path=str(tmp_path / "corpus"),
            tokenizer="pretrained",
            objective=OBJECTIVES[objective].config(),
            cache_dir=str(tmp_path / "cache"),
        )
        config = make_config(steps=2, checkpoint_every=1, log_every=1, sequence_length=32)
        return dataclasses.replace(config, data=text, model=model, pretrained=str(tmp_path / "base")), tokenizer

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    ["span_corruption", *(pytest.param(name, marks=pytest.mark.slow) for name in ("masked", "permutation"))],
)
def test_a_model_of_each_kind_is_fine_tuned_and_resumed(objective, make, tmp_path, monkeypatch):
    config, _ = make(objective)
    base, start = from_pretrained(tmp_path / "base"), pretrained_start(config)
    assert start.config.model.vocab_size == base.config.vocab_size
    assert all(stack.memory == MEMORY["memory"] for stack in start.config.model.stacks.values())
    first, given = start.params(start.config), models.to_params(base)
    flat = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(first)}
    for path, leaf in jax.tree.leaves_with_path(given):
        np.testing.assert_array_equal(flat.pop(jax.tree_util.keystr(path)), leaf)
    assert flat and all("memory_layer" in path for path in flat)

    results = train(config, tmp_path / "whole")
    assert results["step"] == 2 and np.isfinite(results["loss"]) and np.isfinite(results["evaluation"]["loss"])
    whole = load_run(tmp_path / "whole")
    moved = jax.tree.map(lambda new, old: bool(np.any(np.asarray(new) != np.asarray(old))), whole.params, first)
    assert moved["decoder"]["embedding"] if objective == "span_corruption" else moved["embedding"]

    taken, following = [], data.BatchIterator.__next__

    def interrupted(self):
        taken.append(self)
        if len(taken) == 3:  # the evaluation is tried first; then step 1 is done and saved
            raise KeyError("interrupted")
        return following(self)

    with monkeypatch.context() as patch:
        patch.setattr(data.BatchIterator, "__next__", interrupted)
        with pytest.raises(KeyError):
            train(config, tmp_path / "cut")
    assert load_run(tmp_path / "cut").step == 1
    assert train(config, tmp_path / "cut")["loss"] == results["loss"]
    cut = load_run(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, cut.params, whole.params)
    again = from_pretrained(tmp_path / "cut")
    assert again.config == start.config.model and again.origin.config["model_type"] == CASES[objective][0]["model_type"]


def test_special_tokens_are_those_of_the_tokenizer(make):
    config, tokenizer = make("masked")
    assert special_ids(tokenizer) == SpecialIds(mask=2, cls=0, sep=1) and data.added_ids(config.data, tokenizer) == 0
    config, tokenizer = make("span_corruption")
    assert sentinel_ids(tokenizer).tolist() == list(range(101, 1, -1))
    assert data.added_ids(config.data, tokenizer) == 0
    start = pretrained_start(config)
    batches = data.train_batches(start.config.data, config.training, 0, tokenizer)
    batch = next(batches)
    text = range(102, 102 + len(WORDS))
    source, target = batch.inputs["source"], batch.targets["tokens"]
    assert {*source.ravel().tolist()} <= {0, *text, *range(2, 102)}
    assert (target[:, 0] == 101).all() and (source == 101).any(axis=1).all()  # <extra_id_0>


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(), ("pooler",)])
def test_a_head_that_the_file_lacks_is_drawn_anew(make, tmp_path, heads):
    """Also beside a head that it has, such as that of a sentence encoder, which is left out."""
    config, _ = make("masked")
    base = from_pretrained(tmp_path / "base")
    plain = dataclasses.replace(base.config, heads=heads)
    given = random_params(plain)
    save_pretrained(models.from_params(plain, given), tmp_path / "base")
    start = pretrained_start(config)
    assert start.config.model.heads == start.new_heads == ("masked",)
    params = start.params(start.config)
    whole = models.functional(start.config.model).param_shapes()
    assert jax.tree.structure(params) == jax.tree.structure(whole) and set(params["heads"]) == {"masked"}
    np.testing.assert_array_equal(params["embedding"], given["embedding"])
    model = models.from_params(start.config.model, params)
    logits, _ = model(np.arange(8, dtype=np.int32)[None])
    assert np.isfinite(logits).all() and np.std(logits) > 0


def test_sounds_have_the_tokenizer_of_the_pretrained_model(make, tmp_path):
    config, tokenizer = make("span_corruption")
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "num_mel_bins": 8, "vocab_size": 256}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    base = FAMILIES["whisper"].module.from_hf({"model_type": "whisper"} | sizes | heads)
    save_pretrained(models.from_params(base, random_params(base, 1)), tmp_path / "base", tokenizer=tokenizer)
    data = TranscriptsConfig(path=str(tmp_path), num_mels=8, source_length=256, tokenizer="pretrained")
    decoder = dataclasses.replace(base.decoder, segment_length=32, source_length=256)
    model = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, segment_length=32), decoder=decoder)
    config = dataclasses.replace(config, data=data, model=model)
    assert pretrained_start(config).config.data.tokenizer == str(tmp_path / "base")


def test_a_model_of_another_kind_is_refused(make, tmp_path):
    config, _ = make("span_corruption")
    other = dataclasses.replace(config, model=ModelConfig(segment_length=8), data=TextConfig())
    with pytest.raises(RunError, match="base' is a Seq2SeqConfig, but model is a ModelConfig: make model a Seq2SeqCon"):
        train(other, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
