"""Answers to questions, with the calls and results of the transformers library's pipeline."""

from collections.abc import Sequence
from typing import Any

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.questions import QuestionsConfig
from memgpt_jax.data.tasks.windows import SHORTEST, EncodedText, Windows, encode_text
from memgpt_jax.evaluation.answers import Answer, span_logits
from memgpt_jax.models.heads.spans import SpanHeadConfig
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of


class QuestionAnswering:
    """Answers to questions that are spans of a text of any length.

    >>> answer = mg.pipeline("runs/squad")
    >>> answer(question="Where was she born?", context="Ada Lovelace was born in London.")
    {"score": ..., "start": 25, "end": 31, "answer": "London"}

    `context[start:end]` is always the answer. A text is read in windows of `length` tokens, each with the question.
    """

    def __init__(self, loaded: Loaded, *, rows: int = 16, length: int | None = None):
        """
        Args:
            rows: windows read at the same time.
            length: tokens of a window; default: that of the run's evaluation.

        Raises:
            ValueError: the model has no head for spans.
        """
        self.config = instance_of(loaded.config, HeadedConfig, "model")
        self.head = instance_of(self.config.head, SpanHeadConfig, "model.head")
        self.params, self.tokenizer = loaded.params, loaded.tokenizer
        self.rows, self.length = rows, loaded.length if length is None else length
        task = loaded.data if isinstance(loaded.data, QuestionsConfig) else QuestionsConfig()
        self.max_answer_tokens = task.max_answer_tokens
        check_sizes(rows=self.rows)
        check(self.length >= SHORTEST, f"length must be at least {SHORTEST}, got {self.length}")

    def __call__(
        self,
        *,
        question: str | Sequence[str],
        context: str | Sequence[str],
        top_k: int = 1,
        max_answer_len: int | None = None,
        handle_impossible_answer: bool | None = None,
    ) -> Any:
        """The most probable answers.

        Args:
            question: a question, or several.
            context: the text of each question; a single text is that of all questions.
            top_k: number of answers to each question, in descending order of score.
            max_answer_len: tokens of the longest answer; a single word may have more. Default: `max_answer_tokens` of
                the run's task, 30 for a model that is not a run.
            handle_impossible_answer: whether the answer may be "" (start and end 0); default: if the model was trained
                so.

        Returns:
            {"score", "start", "end", "answer"} for one question, with top_k > 1 a list of them; for a list of questions
            a list of such results. The score is the probability of the start times that of the end.
        """
        questions, contexts = texts_of(question), texts_of(context)
        contexts = contexts * len(questions) if isinstance(context, str) else contexts
        check(
            len(questions) == len(contexts),
            f"question and context must have the same number, got {len(questions)} and {len(contexts)}",
        )
        longest = self.max_answer_tokens if max_answer_len is None else max_answer_len
        check_sizes(top_k=top_k, max_answer_len=longest)
        possible = self.head.no_answer
        check(
            not handle_impossible_answer or possible,
            "handle_impossible_answer=True needs a model that was trained with data.no_answer=True",
        )
        windows = Windows(self.tokenizer, self.length, self.head.overlap, self.head.question_types)
        encoded = [encode_text(self.tokenizer, text) for text in contexts]
        for name, text in zip(questions, encoded, strict=True):
            check(bool(name.strip()), "question must not be empty")
            check(bool(text.ids), "context has no words")
        if not questions:
            return []
        every = [windows.all(*pair) for pair in zip(questions, encoded, strict=True)]
        logits = span_logits(self.config, self.params, every, rows=self.rows, length=self.length)
        allow_none = handle_impossible_answer is not False
        results = [
            [_result(answer, text, words) for answer in found.best(words, top_k, longest, allow_none=allow_none)]
            for found, text, words in zip(logits, contexts, encoded, strict=True)
        ]
        chosen = [found[0] for found in results] if top_k == 1 else results
        return chosen[0] if isinstance(question, str) and isinstance(context, str) else chosen

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"question", "text", "answers"}, with `top` answers.

        Raises `ValueError` if there is no question.
        """
        check(question is not None, "it has no question")
        (answers,) = self(question=[question or ""], context=[text], top_k=top)
        return {"question": question, "text": text, "answers": [answers] if top == 1 else answers}


def _result(answer: Answer, text: str, words: EncodedText) -> dict[str, Any]:
    if answer.first is None or answer.last is None:
        return {"score": answer.score, "start": 0, "end": 0, "answer": ""}
    start, end = int(words.spans[answer.first, 0]), int(words.spans[answer.last, 1])
    return {"score": answer.score, "start": start, "end": end, "answer": text[start:end]}
