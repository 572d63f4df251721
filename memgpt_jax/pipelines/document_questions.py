"""One reading, many questions: answers in words about documents of any length."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from memgpt_jax.config.checks import check, instance_of, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.data.text.passages import joined, original_place
from memgpt_jax.generation.citations import Source, question_weights, sources
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.generation.questions import answer_prompts
from memgpt_jax.generation.session import Session
from memgpt_jax.models.quantization import laid_out
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of


class DocumentQuestions:
    """Reads documents, and answers questions about them by a decoder.

    >>> ask = mg.pipeline("runs/fairytaleqa").read(story)
    >>> ask("Who had seven sons?")
    {"answer": "a well-to-do farmer"}
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        prompt: str | None = None,
        context: Literal["document", "nearest"] | None = None,
        passages: int | None = None,
        repetition_penalty: float | None = None,
        no_repeat_ngram_size: int | None = None,
        rows: int = 16,
    ):
        """
        Args:
            prompt, context, passages, repetition_penalty, no_repeat_ngram_size: as in `DocumentQuestionsConfig`;
                default: those of the run.
            rows: questions that are answered at the same time.

        Raises:
            ValueError: the model is not a decoder, or an argument is not valid.
        """
        check_sizes(rows=rows)
        config = loaded.data if isinstance(loaded.data, DocumentQuestionsConfig) else DocumentQuestionsConfig()
        given = {
            "prompt": prompt,
            "context": context,
            "passages": passages,
            "repetition_penalty": repetition_penalty,
            "no_repeat_ngram_size": no_repeat_ngram_size,
        }
        self.config = dataclasses.replace(config, **{k: value for k, value in given.items() if value is not None})
        self.rows = rows
        self.model = instance_of(loaded.config, ModelConfig, "model")
        self.params = laid_out(self.model, loaded.params, rows)
        self.tokens = self.config.tokens(loaded.tokenizer)

    def read(self, document: str) -> "Reading | Passages":
        """Read a document of any length, without spaces around it; `Passages` with `context="nearest"`.

        Raises `ValueError` if it is empty or does not fit the model.
        """
        (text,) = texts_of([document])
        check(bool(text.strip()), "the document is empty")
        return Passages(self, text) if self.config.context == "nearest" else self.read_whole(text)

    def read_whole(self, text: str) -> "Reading":
        """Read a text from its first to its last word."""
        session = Session((self.model, self.params), self.tokens.tokenizer)
        session.feed(self.tokens.before + text.strip())
        return Reading(self, session, text)

    def __call__(self, *, question: str | Sequence[str], context: str, max_new_tokens: int | None = None) -> Any:
        """`read(context)(question)`: a document is read, and one or several questions are answered."""
        return self.read(context)(question, max_new_tokens=max_new_tokens)

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one document as an object of JSON: {"question", "text", "answer"}.

        Raises `ValueError` if there is no question.
        """
        check(question is not None, "it has no question")
        return {"question": question, "text": text} | self(question=question or "", context=text)


class Reading:
    """A document that has been read. Each question is a fork of the state, which stays as it is."""

    def __init__(self, pipeline: DocumentQuestions, session: Session, document: str | None = None):
        """
        Args:
            session: the document; it may have been loaded from a file (`Session.load`).
            document: its text, for sources.
        """
        self.pipeline, self.session, self.document = pipeline, session, document

    def __call__(
        self, question: str | Sequence[str], *, sources: int | None = None, max_new_tokens: int | None = None
    ) -> Any:
        """Answer questions about the document, by greedy decoding.

        Args:
            question: a question, or several, which are answered independently.
            sources: also find this number of sentences of the document: those whose memory entries the question and its
                answer read more than questions usually do. The memory must have entries that come from tokens, such as
                those of `kv`.
            max_new_tokens: maximum number of tokens of an answer; default: that of the run's task.

        Returns:
            {"answer"}, with `sources` {"answer", "sources"}, for one question, a list of them for several. A source is
            {"start", "end", "text", "weight", "usual"}: `document[start:end]` is `text`, `weight` is the share of all
            reads, and `usual` this share for questions about any document.
        """
        questions, pipeline = [text.strip() for text in texts_of(question)], self.pipeline
        for text in questions:
            check(bool(text), "a question is empty")
        default = pipeline.config.max_new_tokens
        longest = default if max_new_tokens is None else whole("max_new_tokens", max_new_tokens, 1)
        state, unread = self.session.state, self.session.unread
        if pipeline.config.repetition_penalty is not None:  # it applies to the question, not to the end of the document
            state, unread = prefill(pipeline.model, pipeline.params, [np.array(unread, np.int32)], state)[1], []
        prompts = [np.concatenate([unread, pipeline.tokens.question(text)]).astype(np.int32) for text in questions]
        found = answer_prompts(
            (pipeline.model, pipeline.params),
            pipeline.tokens,
            prompts,
            state,
            rows=pipeline.rows,
            max_new_tokens=longest,
            **pipeline.config.sampling,
        )
        results: list[dict[str, Any]] = [{"answer": answer} for answer in found]
        if sources is not None:
            check_sizes(sources=sources)
            cited = self._sources(questions, found, sources)
            results = [result | {"sources": each} for result, each in zip(results, cited, strict=True)]
        return results[0] if isinstance(question, str) else results

    def _sources(self, questions: list[str], answers: list[str], number: int) -> list[list[Source]]:
        """The first `number` sources of each question and its answer."""
        pipeline, tokens, unread = self.pipeline, self.pipeline.tokens, self.session.unread
        check(self.document is not None, "sources need the text of the document: Reading(pipeline, session, document)")
        document = self.document or ""
        text = document.strip()
        weights = question_weights(
            (pipeline.model, pipeline.params),
            self.session.state,
            tokens,
            [*zip(questions, answers, strict=True)],
            unread=unread,
            number=pipeline.rows,
        )
        ends = tokens.ends(text)
        check(len(weights.usual) >= len(ends), "the session has not read the whole document whose text is given")
        places = np.where(ends > 0, ends + document.index(text), 0)  # in the document as it was given
        usual = weights.usual[: len(ends)]
        return [sources(document, places, of_row[: len(ends)], usual, number) for of_row in weights.asked]


class Passages:
    """A document of which each question reads the nearest passages alone: see `DocumentQuestionsConfig.context`."""

    def __init__(self, pipeline: DocumentQuestions, document: str):
        self.pipeline, self.document = pipeline, document

    def __call__(
        self, question: str | Sequence[str], *, sources: int | None = None, max_new_tokens: int | None = None
    ) -> Any:
        """Answer questions about the document; arguments and results as of `Reading`."""
        questions = [text.strip() for text in texts_of(question)]
        for text in questions:
            check(bool(text), "a question is empty")
        results = []
        for text, spans in zip(questions, self.pipeline.config.nearest(self.document, questions), strict=True):
            reading = self.pipeline.read_whole(joined(self.document, spans))
            result = reading(text, sources=sources, max_new_tokens=max_new_tokens)
            for source in result.get("sources", ()):
                start, end = (original_place(source[name], spans) for name in ("start", "end"))
                source |= {"start": start, "end": end, "text": self.document[start:end]}
            results.append(result)
        return results[0] if isinstance(question, str) else results
