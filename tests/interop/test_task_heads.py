"""Fine-tuned encoders of the transformers library are read with their heads, and give its results."""

import json

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.models.heads.labels import LabelHeadConfig
from tests.references import foreign

LABELS = {"0": "sad", "1": "glad", "2": "neither"}
WORDS = ["ada", "##s", "lives", "in", "rome", "berlin", "a", "dull", "fine", "film", "."]


def saved(folder, name, number=3, **values):
    """A small BERT of random weights with a head for `number` labels."""
    from safetensors.numpy import load_file, save_file

    foreign.write("bert", folder)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": [name], "id2label": LABELS} | values
    (folder / "config.json").write_text(json.dumps(config))
    rng, width, tensors = np.random.default_rng(0), config["hidden_size"], load_file(folder / "model.safetensors")
    prefix = "" if any(tensor.startswith("embeddings") for tensor in tensors) else "bert."
    tensors |= {"classifier.weight": rng.normal(size=(number, width)), "classifier.bias": rng.normal(size=number)}
    tensors |= {f"{prefix}pooler.dense.weight": rng.normal(size=(width, width))}
    tensors |= {f"{prefix}pooler.dense.bias": rng.normal(size=width)}
    save_file({name: np.asarray(array, np.float32) for name, array in tensors.items()}, folder / "model.safetensors")
    return {name.removeprefix(prefix): np.asarray(array, np.float32) for name, array in tensors.items()}


def outputs(model, tokens):
    return np.asarray(jax.jit(lambda params: mg.from_params(model.config, params)(tokens)[0])(mg.to_params(model)))


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_the_head_is_read(tmp_path, name):
    tensors = saved(tmp_path, name)
    model = mg.from_pretrained(tmp_path, task_head=True)
    assert model.config.head.output_names == ("sad", "glad", "neither")
    tokens = np.array([[3, 5, 7, 2], [1, 1, 4, 9]], np.int32)
    found = outputs(model, tokens)
    base = mg.from_pretrained(tmp_path)
    hidden = np.asarray(jax.jit(lambda p: mg.from_params(base.config, p).hidden(tokens).stream)(mg.to_params(base)))
    if name == "BertForSequenceClassification":
        first = hidden[:, :1].repeat(4, axis=1)
        hidden = np.tanh(first @ tensors["pooler.dense.weight"].T + tensors["pooler.dense.bias"])
    expected = hidden @ tensors["classifier.weight"].T + tensors["classifier.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)

    mg.save_pretrained(model, tmp_path / "again")
    again = mg.from_pretrained(tmp_path / "again")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, mg.to_params(again), mg.to_params(model))


def test_other_classes_are_read_as_without(tmp_path):
    foreign.write("bert", tmp_path)
    assert mg.from_pretrained(tmp_path, task_head=True).config == mg.from_pretrained(tmp_path).config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problem_type": "regression"}, "a head that predicts a number is not supported"),
        ({"number": 1, "id2label": {}}, "a head that predicts a number is not supported"),
        ({"number": 2}, "id2label has the keys 0, 1, 2, and the head 2 outputs"),
    ],
)
def test_heads_that_do_not_fit(tmp_path, changes, message):
    saved(tmp_path, "BertForSequenceClassification", **changes)
    with pytest.raises(ValueError, match=message):
        mg.from_pretrained(tmp_path, task_head=True)


def test_without_names_and_with_several_labels(tmp_path):
    saved(tmp_path, "BertForTokenClassification", id2label={}, problem_type="multi_label_classification")
    head = mg.from_pretrained(tmp_path, task_head=True).config.head
    assert head == LabelHeadConfig(num_outputs=3, pool="none", loss="binary", tag_token="first")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_pipelines_give_the_results_of_transformers(tmp_path, task):
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
    labels = ["O", "B-per", "I-per", "B-loc"] if task == "token-classification" else ["sad", "glad", "neither"]
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.6,
        id2label=dict(enumerate(labels)),
    )
    kind = "Sequence" if task == "text-classification" else "Token"
    theirs = getattr(transformers, f"BertFor{kind}Classification")(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    texts = ["Adas lives in Rome.", "a dull film", "Berlin"]
    ours = mg.pipeline(task, model=tmp_path)
    if task == "text-classification":
        expected = transformers.pipeline(task, model=theirs, tokenizer=tokenizer, top_k=None)(texts)
        for one, other in zip(ours(texts, top_k=None), expected, strict=True):
            assert [row["label"] for row in one] == [row["label"] for row in other]
            np.testing.assert_allclose([row["score"] for row in one], [row["score"] for row in other], atol=1e-4)
        return
    expected = transformers.pipeline(task, model=theirs, tokenizer=tokenizer, ignore_labels=[])(texts)
    starts = [{row["start"]: row for row in rows if not row["word"].startswith("##")} for rows in expected]
    for one, other in zip(ours(texts), starts, strict=True):
        assert {row["start"] for row in one} == {start for start, row in other.items() if row["entity"] != "O"}
        for row in one:
            assert row["entity"] == other[row["start"]]["entity"]
            assert row["score"] == pytest.approx(other[row["start"]]["score"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["Adas lives in Rome.", "in Berlin a dull film " * 9 + "in Rome"], ids=["short", "long"]
)
def test_answers_are_those_of_the_logits_of_transformers(tmp_path, text):
    """The pipeline itself is gone from transformers 5; the score is the one that it had."""
    transformers = pytest.importorskip("transformers", reason="transformers and torch are not installed")
    import torch

    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.BertConfig(vocab_size=len(tokenizer), initializer_range=0.6, **sizes)
    theirs = transformers.BertForQuestionAnswering(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoded = tokenizer("a fine film", text, return_tensors="pt")
    with torch.no_grad():
        found = theirs(**encoded)
    inside = encoded["token_type_ids"][0].bool() & (encoded["input_ids"][0] != tokenizer.sep_token_id)
    start, end = (
        torch.softmax(logits[0].masked_fill(~inside, -torch.inf), -1)
        for logits in (found.start_logits, found.end_logits)
    )
    answer = mg.pipeline("question-answering", model=tmp_path)(question="a fine film", context=text)
    offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    first, last = int(inside.nonzero()[0]), int(inside.nonzero()[-1])
    pairs = [(i, j) for i in range(first, last + 1) for j in range(i, min(last, i + 29) + 1)]
    whole = [  # answers begin and end with whole words
        (i, j)
        for i, j in pairs
        if not tokenizer.convert_ids_to_tokens(int(encoded["input_ids"][0][i])).startswith("##")
        and (j == last or not tokenizer.convert_ids_to_tokens(int(encoded["input_ids"][0][j + 1])).startswith("##"))
    ]
    i, j = max(whole, key=lambda pair: float(start[pair[0]] * end[pair[1]]))
    assert (answer["start"], answer["end"]) == (offsets[i - first][0], offsets[j - first][1])
    assert answer["score"] == pytest.approx(float(start[i] * end[j]), abs=1e-4)
