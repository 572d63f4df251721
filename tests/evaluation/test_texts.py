"""Metrics of generated texts against hand-made cases and the libraries."""

from typing import get_args

import pytest

from memgpt_jax.data.tasks.text_pairs import PairMetric
from memgpt_jax.evaluation.metrics import texts
from memgpt_jax.evaluation.metrics.texts import metrics_by_group, same_phrase, text_metrics

pytest.importorskip("sacrebleu", reason="the extra `tasks` is not installed")
pytest.importorskip("rouge_score", reason="the extra `tasks` is not installed")
SAME = ["the cat sat on the mat", "a dog runs over the green field"]


def test_equal_texts_have_the_best_values():
    found = text_metrics(["bleu", "chrf", "rouge", "exact"], SAME, [[text] for text in SAME])
    assert found["bleu"] == pytest.approx(100) and found["chrf"] == pytest.approx(100)
    assert found["rouge1"] == found["rouge2"] == found["rouge_l"] == found["rouge_lsum"] == found["exact_match"] == 1
    assert "nrefs:1" in found["bleu_signature"] and found["exact_match_interval"] == [1, 1]


@pytest.mark.parametrize(
    "text", ["Мама мыла раму", "我爱你们", "नमस्ते दुनिया जी", "ภาษาไทย", "Καλημέρα σε όλους", "안녕 세상 여러분"]
)
def test_equal_texts_have_the_best_values_in_every_script(text):
    other = " ".join(reversed(text.split())) if " " in text else text[::-1]
    found = text_metrics(["rouge"], [text, other], [[text], [text]])
    assert found["rouge1"] == 1 and 0.5 <= found["rouge_l"] < 1
    if " " not in text:
        bleu = text_metrics(["bleu"], [text], [[text]])
        assert bleu["bleu"] == pytest.approx(100) and "tok:char" in bleu["bleu_signature"]
    assert "tok:13a" in text_metrics(["bleu"], [text], [["a b"]])["bleu_signature"]


def test_texts_in_latin_letters_have_the_scores_of_rouge_score():
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(list(texts.ROUGE), use_stemmer=True)
    pairs = [("The cats' running, naïve_2 cafés\nran home!", "a cat ran: naive 2 café's\nrunning homes"), ("", "a b")]
    for text, reference in pairs:
        expected = [theirs.score(reference, text)[name].fmeasure for name in texts.ROUGE]
        assert texts.SCORES["rouge"](text, [reference]) == expected


def test_values_by_hand():
    """ROUGE-1 of `the cat sat` for `the cats sat down`: 3 of 3 and 3 of 4 stems, F1 6/7; ROUGE-2: 2/2, 2/3, F1 4/5."""
    found = text_metrics(["rouge", "exact"], ["the cat sat", "b"], [["the cats sat down"], ["a", "b"]])
    assert found["rouge1"] == pytest.approx((6 / 7 + 1) / 2) and found["exact_match"] == 0.5
    assert found["rouge2"] == pytest.approx((4 / 5 + 0) / 2)  # one word has no pairs
    lines = text_metrics(["rouge"], ["c d\na b"], [["a b\nc d"]])  # lines count in any order for Lsum alone
    assert (lines["rouge_l"], lines["rouge_lsum"]) == (0.5, 1)
    # 4-gram precisions of one sentence of 5 words, of which the first 4 are right: 4/5, 3/4, 2/3, 1/2; no brevity.
    bleu = text_metrics(["bleu"], ["a b c d x"], [["a b c d e"]])["bleu"]
    assert bleu == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_all_references_of_a_text_count():
    one, other = "ein Hund rennt ueber das Feld", "der Hund rennt schnell ueber die Wiese"
    references = [[one, other], [other]]
    assert text_metrics(["bleu"], [other, other], references)["bleu"] == pytest.approx(100)
    assert text_metrics(["rouge"], [other, other], references)["rouge_lsum"] == 1
    assert text_metrics(["bleu"], [other, other], [[one], [other]])["bleu"] < 100


def test_every_metric_names_the_library_that_it_needs():
    every = {*texts.SCORES, *texts.METRICS_OF_TEXTS}
    assert set(texts.LIBRARIES) == every - {"exact", "word_f1", "begins", "triples"} and every == set(
        get_args(PairMetric)
    )
    assert texts.SCORES.keys() == texts.MEANS.keys() == {"rouge", *texts.RESULTS}


def test_a_text_begins_with_a_reference_at_the_end_of_a_word():
    written = ["2 tickets", "20 tickets", "rome?", "to Rome"]
    references = [["2"], ["2"], ["Paris", "Rome"], ["Rome"]]
    assert text_metrics(["begins"], written, references)["begins"] == 2 / 4
    found = metrics_by_group(["begins"], written, references, ["far", "far", "near", "far"])
    assert {name: (group["examples"], group["begins"]) for name, group in found.items()} == {
        "far": (3, pytest.approx(1 / 3)),
        "near": (1, 1),
    }


def test_word_errors_f1_and_phrases_by_hand():
    """Errors of words are counted with case and signs, F1 without and without articles."""
    pytest.importorskip("jiwer", reason="the extra `tasks` is not installed")
    written, references = ["one six", "The two.", "nine"], [["one two three six"], ["two"], ["", "ten"]]
    assert text_metrics(["wer"], written[:2], [["one two"], ["two"]])["wer"] == pytest.approx(3 / 3)
    assert text_metrics(["wer"], ["a x c"], [["a b c d"]])["wer"] == 2 / 4
    assert text_metrics(["word_f1"], written, references)["word_f1"] == pytest.approx((2 * 2 / 6 + 1 + 0) / 3)
    tones, pattern = [["a dark cat"], ["a light dog"], ["a cow"], ["dark light"]], "dark|light"
    assert same_phrase(pattern, ["dark", "dark", "light", "the dark"], tones) == pytest.approx(2 / 3)
    assert same_phrase(pattern, ["dark"], [["a cow"]]) is None


def test_triples_by_hand():
    """3 of the 5 triples written are right, of 4; case and spaces do not matter, two malformed lines are counted."""
    written = [
        "City|rome\nday |  the  1st\nday | the 1st\nday | the 2nd\n| Rome\nRome",  # 2 of 3 are right
        "Ada | wrote | it\nAda | wrote | it | all\nnone",  # as the second, there is no triple of four fields
        "none\n",
    ]
    references = [["city | Rome\nday | the 1st"], ["Ada | wrote | It\nAda | is | here"], ["none"]]
    found = text_metrics(["triples"], [*written, "a | b"], [*references, ["none"]])
    assert found["malformed_lines"] == 3
    assert (found["triple_precision"], found["triple_recall"]) == (3 / 5, 3 / 4)
    assert found["triple_f1"] == 2 * 3 / (5 + 4)
    low, high = found["triple_f1_interval"]
    assert 0 == low < found["triple_f1"] < high < 1
    silent = text_metrics(["triples"], ["none", "?"], [["none"], ["none"]])
    assert silent["triple_f1"] == silent["triple_precision"] == silent["triple_recall"] == 0
