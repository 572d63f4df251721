"""Retrieval: queries, documents, and which document answers which query."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.data.examples.files import CutTextsConfig, read_split
from memgpt_jax.data.examples.records import Record, read_records
from memgpt_jax.data.examples.trec import Judgement, read_judgements
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.labelled_text import cut
from memgpt_jax.data.tasks.vectors import RowPair, VectorsConfig, VectorsTask
from memgpt_jax.data.text.words import single_spaced
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(CutTextsConfig):
    """Find the documents that are relevant for a query, by the products of the vectors of both.

    A record of `train`, `valid` and `test` is a query. A training batch holds queries in rows 0, 2, ... and after
    each a document that is relevant for it; queries of a split without one are not used.
    """

    objective: ClassVar[VectorsConfig] = VectorsConfig()

    documents: str | None = None
    """File of all documents, in the format `form`, with the columns `id_column` and `document_column`."""
    judgements: str | None = None
    """File with lines `QUERY ITERATION DOCUMENT RELEVANCE` (TREC); relevant are documents with relevance above 0."""
    document_column: str = "text"
    """The column of the documents that holds the text."""
    id_column: str = "id"
    """The column of the documents that holds the name by which judgements refer to them."""
    query_id_column: str = "id"
    """The column of the queries that holds the name by which judgements refer to them."""
    max_length: int | None = 128
    bm25_weight: float = 0.0
    """In evaluation, documents are ranked by z(products) + `bm25_weight` z(BM25), where z subtracts the mean over the
    documents and divides by the standard deviation. BM25 reads whole texts. 0: by the products alone."""
    bm25_language: str | None = "english"
    """Language of the Snowball stemmer that BM25 applies to words; None: whole words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.bm25_weight >= 0, f"data.bm25_weight must be at least 0, got {self.bm25_weight}")


class Query(NamedTuple):
    """One query."""

    name: str
    text: str
    relevance: dict[str, int]
    """Judged relevance by the name of the document."""


class RetrievalTask(VectorsTask[RetrievalConfig]):
    """The queries of one split, and all documents."""

    evaluation = "retrieval"

    def __init__(self, config: RetrievalConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a file is missing, a name is not unique, or a judged document does not exist."""
        super().__init__(config, split, tokenizer)
        for name in ("documents", "judgements"):
            check(getattr(self.config, name) is not None, f"data.{name} must name a file, got None")
        self.documents = _documents(config)
        """The text of each document by its name; it may be empty."""
        judged: dict[str, list[Judgement]] = {}
        for judgement in read_judgements(expand(config.judgements or "")):
            known = judgement.document in self.documents
            check(known, f"data.judgements: query {judgement.query!r} names an unknown document {judgement.document!r}")
            judged.setdefault(judgement.query, []).append(judgement)
        queries = _by_name(read_split(config, split), config.query_id_column, config.text_column)
        self.queries = [
            Query(name, text, {judgement.document: judgement.relevance for judgement in judged[name]})
            for name, text in queries.items()
            if any(judgement.relevance > 0 for judgement in judged.get(name, ()))
        ]
        """The queries with a relevant document, in the order of the file."""
        check(bool(self.queries), f"no query of the split {split!r} has a relevant document in data.judgements")
        self.content = digest(*self.documents.items(), *self.queries)
        self.pairs = [
            (number, document)
            for number, query in enumerate(self.queries)
            for document, relevance in query.relevance.items()
            if relevance > 0
        ]
        """(index of a query, name of a relevant document)."""

    @classmethod
    def training_texts(cls, config: RetrievalConfig) -> list[str]:
        """The queries of the training split, and all documents."""
        check(config.documents is not None, "data.documents must name a file, got None")
        return [*super().training_texts(config), *_documents(config).values()]

    @property
    def num_pairs(self) -> int:
        """The number of judgements above 0."""
        return len(self.pairs)

    def pair(self, index: int, length: int) -> RowPair:
        """A query and a document that is relevant for it; the number is that of the query."""
        number, document = self.pairs[index]
        texts = self.queries[number].text, self.documents[document]
        side = self.config.truncation_side
        return RowPair(1 + number, *(cut(self.tokenizer, self.ids(text), length, side) for text in texts))


def _documents(config: RetrievalConfig) -> dict[str, str]:
    """The text of each document by its name."""
    records = list(read_records(expand(config.documents or ""), config.form, config.encoding))
    return _by_name(records, config.id_column, config.document_column)


def _by_name(records: list[Record], name: str, column: str) -> dict[str, str]:
    """The text of each record by its name. Raises `ValueError` if two records have the same name."""
    found: dict[str, str] = {}
    for record in records:
        key = record.label(name)
        check(key not in found, f"{record.where}: another record has the same {name!r}: {key!r}")
        found[key] = single_spaced(record.text(column))
    return found
