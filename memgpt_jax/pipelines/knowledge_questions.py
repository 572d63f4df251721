"""Answers from knowledge: facts in the memory of a decoder, with the facts that each answer has read."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.examples.pair_tokens import PairTokens
from memgpt_jax.generation.citations import USUAL
from memgpt_jax.generation.completion import generate
from memgpt_jax.generation.decode import fork
from memgpt_jax.generation.prefill import power_of_two
from memgpt_jax.knowledge import Knowledge, encode, load, source_weights, write
from memgpt_jax.models import ModelState
from memgpt_jax.pipelines.base import Loaded, check_sizes, texts_of

PROMPT = "Question: {source}\nAnswer: "


class KnowledgeQuestions:
    """Answers questions by a decoder whose `kv` memory holds facts; each answer names the facts that it has read.

    >>> ask = mg.pipeline("knowledge-question-answering", model="runs/facts", knowledge=["Ada wrote ...", ...])
    >>> ask("Who wrote the first program?")
    {"answer": "Ada", "sources": [{"source": 1, "text": "Ada wrote ...", "weight": 0.31, "usual": 0.02}, ...]}
    """

    knowledge: Knowledge
    """The facts. Assign another value to change them."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        knowledge: Knowledge | str | Path | Sequence[str],
        prompt: str = PROMPT,
        max_new_tokens: int = 32,
        rows: int = 16,
    ):
        """
        Args:
            knowledge: facts, encoded (`mg.knowledge.encode`) or as texts, or the folder of saved ones.
            prompt: the text in front of an answer, with "{source}" in place of the question.
            rows: texts that are read at the same time.

        Raises:
            ValueError: the model is not a decoder with a `kv` memory, or the facts do not fit it.
        """
        check_sizes(rows=rows, max_new_tokens=max_new_tokens)
        check(prompt.count("{source}") == 1, f"prompt must have {{source}} once, got {prompt!r}")
        self.config = instance_of(loaded.config, ModelConfig, "model")
        instance_of(self.config.memory, KVMemoryConfig, "model.memory")
        self.params, self.tokenizer, self.rows, self.longest = loaded.params, loaded.tokenizer, rows, max_new_tokens
        self.tokens = PairTokens(self.tokenizer, prompt)
        if isinstance(knowledge, str | Path):
            knowledge = load(knowledge, (self.config, self.params))
        elif not isinstance(knowledge, Knowledge):
            knowledge = self.encode(texts_of(list(knowledge)))
        self.knowledge = knowledge

    def encode(self, texts: Sequence[str], sources: Sequence[int] | None = None) -> Knowledge:
        """Facts for `knowledge`: see `mg.knowledge.encode`."""
        model = (self.config, self.params)
        return encode(model, texts, self.tokenizer, sources=sources, batch_size=self.rows)

    def forget(self, sources: Iterable[int]) -> None:
        """Remove facts by number: answers are then those of a memory in which they have never been."""
        self.knowledge = self.knowledge.without(sources)

    def __call__(self, question: str | Sequence[str], *, sources: int = 3, max_new_tokens: int | None = None) -> Any:
        """Answer questions, each by itself, by greedy decoding.

        Args:
            question: a question, or several.
            sources: number of facts of each answer.
            max_new_tokens: maximum number of tokens of an answer; default: that of the pipeline.

        Returns:
            {"answer", "sources"} for one question, a list of them for several. A source is {"source", "text", "weight",
            "usual"}: `weight` is the share of all reads of question and answer that goes to the entries of the fact,
            `usual` this share for questions about anything; the greatest difference comes first.
        """
        check_sizes(sources=sources)
        questions, longest = texts_of(question), self.longest if max_new_tokens is None else max_new_tokens
        for text in questions:
            check(bool(text.strip()), "a question is empty")
        state, prompts = self._state(), [self.tokens.source(text) for text in questions]
        found, rows = [], []
        for first in range(0, len(prompts), self.rows):
            group = prompts[first : first + self.rows]
            number = min(self.rows, power_of_two(len(group)))
            answers = generate(
                self._model,
                group + group[-1:] * (number - len(group)),
                tokenizer=self.tokenizer,
                state=fork(state, number),
                max_new_tokens=longest,
                stop=[self.tokens.end_id],
            )
            for prompt, ids, length in zip(group, answers.ids, answers.lengths, strict=False):
                found.append(self.tokens.text(ids[len(prompt) : length]))
                rows.append(ids[: max(len(prompt), length - 1)])  # the model has not read the last id
        cited = self._sources(state, rows, sources)
        results = [{"answer": answer, "sources": each} for answer, each in zip(found, cited, strict=True)]
        return results[0] if isinstance(question, str) else results

    def _sources(self, state: ModelState, rows: list[np.ndarray], number: int) -> list[list[dict[str, Any]]]:
        every = [*rows, *(self.tokens.source(text) for text in USUAL)]
        weights = source_weights(self._model, state, self.knowledge, every, number=self.rows)
        asked, usual, numbers = weights[: len(rows)], weights[len(rows) :].mean(axis=0), [*self.knowledge.texts]
        return [
            [
                {
                    "source": numbers[place],
                    "text": self.knowledge.texts[numbers[place]],
                    "weight": float(of_row[place]),
                    "usual": float(usual[place]),
                }
                for place in np.argsort(usual - of_row, kind="stable")[:number]
            ]
            for of_row in asked
        ]

    @property
    def _model(self) -> tuple[ModelConfig, models.Params]:
        """The model with room for the facts: a power of two, so that few shapes are compiled."""
        room = power_of_two(max(1, len(self.knowledge)))
        memory = dataclasses.replace(instance_of(self.config.memory, KVMemoryConfig, "memory"), knowledge_size=room)
        return dataclasses.replace(self.config, memory=memory), self.params

    def _state(self) -> ModelState:
        model = self._model
        return write(model, models.functional(model[0]).init_state(1), self.knowledge)
