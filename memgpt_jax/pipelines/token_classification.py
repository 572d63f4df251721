"""Tags and entities of texts, with the calls and results of the transformers library's pipeline."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.tasks.tagged_text import encode_words
from memgpt_jax.data.text import clean_words
from memgpt_jax.data.text.words import word_pattern
from memgpt_jax.evaluation.documents import document_outputs
from memgpt_jax.evaluation.tags import decode
from memgpt_jax.pipelines.base import Loaded, check_sizes, labelling, texts_of


class Word(NamedTuple):
    """A word of a text and its tag."""

    start: int
    end: int
    tag: str
    score: float


class TokenClassification:
    """Tags of the words of texts of any length.

    >>> tag = mg.pipeline("runs/wnut17", aggregation_strategy="simple")
    >>> tag("Ada Lovelace was born in London.")
    [{"entity_group": "person", "score": 0.97, "word": "Ada Lovelace", "start": 0, "end": 12}, ...]

    `text[start:end]` is always the word. A text is read in calls of `length` tokens with the memory carried.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        aggregation_strategy: Literal["none", "simple"] = "none",
        rows: int = 16,
        length: int | None = None,
    ):
        """
        Args:
            aggregation_strategy: `none`, one result for each tagged word; `simple`, adjacent words of one entity are
                joined.
            rows: texts read at the same time.
            length: tokens of a call; default: that of the run's evaluation.

        Raises:
            ValueError: the model has no head for tags of words.
        """
        self.config, self.head, self.tags = labelling(loaded, of_words=True)
        check(
            aggregation_strategy in ("none", "simple"),
            f"aggregation_strategy must be 'none' or 'simple', got {aggregation_strategy!r}",
        )
        self.params, self.tokenizer, self.strategy = loaded.params, loaded.tokenizer, aggregation_strategy
        self.rows, self.length = rows, loaded.length if length is None else length
        check_sizes(rows=self.rows, length=self.length)

    def __call__(self, inputs: str | Sequence[str]) -> list[Any]:
        """The words with a tag other than `O`, or the entities.

        Words are found by `word_pattern`; for words of another kind, join them by spaces and call `of_words`.

        Returns:
            For each text a list of {"entity", "score", "index", "word", "start", "end"}, or with `simple` of
            {"entity_group", "score", "word", "start", "end"}; for a single text, its list.
        """
        texts = texts_of(inputs)
        spans = [[match.span() for match in word_pattern().finditer(text)] for text in texts]
        found = self._found(texts, spans)
        return found[0] if isinstance(inputs, str) else found

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for one text as an object of JSON: {"text", "entities"}."""
        return {"text": text, "entities": self(text)}

    def of_words(self, words: Sequence[str]) -> list[dict[str, Any]]:
        """The results for a text of given words; `start` and `end` are places in the words joined by spaces."""
        check(not isinstance(words, str), f"words must be a list of words, got the text {words!r}")
        words = texts_of(list(words))
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        spans = [(int(end) - len(word), int(end)) for word, end in zip(words, ends, strict=True)]
        return self._found([" ".join(words)], [spans])[0]

    def _found(self, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> list[list[dict[str, Any]]]:
        encoded = [
            encode_words(self.tokenizer, clean_words(words, self.head.clean), self.head.case_as_token_type)
            for words in ([text[start:end] for start, end in places] for text, places in zip(texts, spans, strict=True))
        ]
        documents, at = [item.inputs for item in encoded], [item.tag_places(self.head.tag_token) for item in encoded]
        logits = document_outputs(self.config, self.params, documents, at, rows=self.rows, length=self.length)
        results = []
        for text, places, found in zip(texts, spans, logits, strict=True):
            decoded = decode(self.config, self.params, found)
            words = zip(places, decoded.tags, decoded.probabilities, strict=True)
            results.append(self._entities(text, [Word(*span, self.tags[tag], float(p[tag])) for span, tag, p in words]))
        return results

    def _entities(self, text: str, words: list[Word]) -> list[dict[str, Any]]:
        if self.strategy == "none":
            return [
                {
                    "entity": word.tag,
                    "score": word.score,
                    "index": number,
                    "word": text[word.start : word.end],
                    "start": word.start,
                    "end": word.end,
                }
                for number, word in enumerate(words, start=1)
                if word.tag != "O"
            ]
        return [
            {
                "entity_group": group[0].tag.partition("-")[2] or group[0].tag,
                "score": float(np.mean([word.score for word in group])),
                "word": text[group[0].start : group[-1].end],
                "start": group[0].start,
                "end": group[-1].end,
            }
            for group in entities_of_words(words)
        ]


def entities_of_words(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each entity, as `memgpt_jax.evaluation.metrics.entities.entities_of` finds entities by their tags.

    Tags without positions, such as `PER`, mark one entity as long as they are equal.
    """
    groups: list[list[Word]] = [[]]
    for word in words:
        if word.tag == "O":
            groups.append([])
        elif groups[-1] and _continues(groups[-1][-1].tag, word.tag):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [group for group in groups if group]


def _continues(before: str, tag: str) -> bool:
    """Whether a word belongs to the entity of the word before it, which is of its type and has not ended.

    `B` begins an entity, `E` and `L` end it, `S` and `U` do both.
    """
    (last, _, kind), (position, dash, own) = before.partition("-"), tag.partition("-")
    if not dash:
        return tag == before
    return last not in ("E", "L", "S", "U") and position not in ("B", "S", "U") and kind == own
