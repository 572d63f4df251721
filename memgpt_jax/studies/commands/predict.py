"""Predict with a trained run: tokens, labels, tags, numbers, spans, vectors, texts, or answers of a task, as JSON.

    memgpt-jax predict runs/quickstart --text "import os" --top 3
    memgpt-jax predict runs/masked --text "def <mask>(self):"
    memgpt-jax predict runs/sst2 --text "A fine film."
    memgpt-jax predict runs/sst2 --input reviews.jsonl --output labels.jsonl
    memgpt-jax predict runs/multi30k_de --text "A dog runs."
    memgpt-jax predict runs/emoji_captions --text smile.png
    memgpt-jax predict runs/squad --question "Where was she born?" --text "Ada Lovelace was born in London."
    memgpt-jax predict runs/umls --text $'alga\\tisa'
    memgpt-jax predict runs/recall --rows 4

A decoder predicts the token after each text; an encoder with a `masked` head predicts the token at each `<mask>`; a
model with a head labels each text, tags its words, gives a number or a vector, or answers a question by a part of the
text; with pictures or sounds, whose paths are given as the texts, it labels these; a model of speech says each text; a
model of pairs of texts writes the translation or the summary of each text; a model of captions or transcripts writes
the text of each picture or sound, whose path is given as the text; a model of questions about documents writes the
answer; a model of a knowledge graph completes each ENTITY<tab>RELATION. A run on a task such as recall, bAbI or shapes
answers rows of its held-out set.
With --output, each prediction is written as soon as it is made, with the number of its line and a checksum of the
parameters (`model`); started again with the same run, the command continues after the last line of the output. A line
that cannot be used is reported by its number, and skipped.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from memgpt_jax.config.checks import at_least, check, check_positive
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.progress_bar import track
from memgpt_jax.data.tasks import TASKS
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig
from memgpt_jax.data.tasks.text_pairs import WrittenTextsConfig
from memgpt_jax.errors import RunError
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.knowledge.entries import sha256_of
from memgpt_jax.pipelines import DocumentQuestions, QuestionAnswering, pipeline
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments
from memgpt_jax.studies.predictions import predict_text, task_answers
from memgpt_jax.studies.runs import reopen


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: tyro.conf.Positional[Path]
    """Folder of the run."""
    text: tuple[str, ...] = ()
    """Texts, one or more."""
    input: Path | None = None
    """A file with one text per line, or a .jsonl file of objects; `-`: standard input."""
    column: str | None = None
    """The field of the .jsonl file `input` that holds the text, or a list of texts, which are joined by spaces.
    Default: the columns of the run's task, such as `data.text_column` and `data.more_columns`; `text` if these hold
    words or turns, or the task has none; `context` for questions about documents."""
    question: str | None = None
    """For a model that answers questions: the question to each text; default: the field of a .jsonl file that the run's
    task names, `question` if it names none."""
    rows: int | None = None
    """Of a run on a task such as recall, without texts: rows of its held-out set; default: 8."""
    top: int = 5
    """Tokens or labels listed for each prediction."""
    step: int | None = at_least(0)
    """Step of the checkpoint; default: the best of the run's validations, else the latest."""
    output: Path | None = None
    """The file for the predictions; default: standard output."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(
            self.column is None or self.has_objects,
            "--column needs --input FILE.jsonl: it names a field of its objects",
        )

    @property
    def has_objects(self) -> bool:
        """Whether the input is a .jsonl file."""
        return self.input is not None and self.input.suffix.lower() == ".jsonl"


ROWS = 8
START = b'{"line": '
"""The start of each line of the output."""
OTHER_INPUT = "the output holds {} of another input: choose another file"


class Columns(NamedTuple):
    """The fields of the objects of a .jsonl file."""

    texts: tuple[str, ...]
    """Those that make the text, in this order, separated by spaces."""
    question: str | None
    """The field of the question; None: the model answers no questions."""


class Line(NamedTuple):
    """One line of the input."""

    number: int
    """From 1; the texts of the command line come first."""
    text: str | None
    """None: it cannot be used."""
    problem: str = ""
    question: str | None = None
    """The question to the text, if the model answers questions."""


def input_lines(arguments: Arguments, columns: Columns) -> list[Line]:
    """The texts of the command line and of the input. Raises `ValueError` if the input cannot be read."""
    lines = [Line(number, text) for number, text in enumerate(arguments.text, start=1)]
    path = arguments.input
    if path is not None:
        if path.suffix.lower() in (".json", ".csv", ".tsv", ".parquet", ".gz"):
            raise ValueError(f"input {path} must be a text file with one text per line, or a .jsonl file")
        try:
            content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"input {path} is not UTF-8 text: {error}") from None
        except OSError as error:
            raise ValueError(f"input {path} cannot be read: {error.strerror}") from None
        parts = content.removesuffix("\n").split("\n") if content else []  # other separators are part of a text
        for number, part in enumerate(parts, start=len(lines) + 1):
            text = part.removesuffix("\r")
            lines.append(_json_line(number, text, path, columns) if arguments.has_objects else _line(number, text))
    if columns.question is not None:
        lines = [_asked(line, arguments.question, columns.question) for line in lines]
    if not lines:
        raise ValueError("--text or --input is missing or empty: give at least one text")
    return lines


def _line(number: int, text: str) -> Line:
    return Line(number, text) if text.strip() else Line(number, None, "it is empty")


def _asked(line: Line, question: str | None, column: str) -> Line:
    """The line with the question, unless it has one of its own."""
    question = line.question or question
    if line.text is None or question is not None:
        return line._replace(question=question)
    return Line(line.number, None, f"it has no question: give --question, or a .jsonl file with a field {column!r}")


def _json_line(number: int, content: str, path: Path, columns: Columns) -> Line:
    try:
        values = json.loads(content)
    except ValueError as error:
        return Line(number, None, f"it is not JSON: {error}")
    except RecursionError:
        return Line(number, None, "it is not JSON: it is nested too deeply to be read")
    if not isinstance(values, dict):
        return Line(number, None, "it is not a JSON object")
    record, question = Record("the object", path, values), None
    try:
        text = record.joined(columns.texts)
        if columns.question is not None and values.get(columns.question) is not None:
            question = record.text(columns.question)
    except ValueError as error:
        return Line(number, None, str(error))
    return _line(number, text)._replace(question=question)


def predictions(arguments: Arguments, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One object for each line of the input that is not done, or for each row of a task.

    Raises `ValueError` if the lines that are done belong to another model, another input or another `--top`, or no line
    of the input can be used.
    """
    run = reopen(arguments.workdir, step=arguments.step)
    config = run.config
    has_texts = bool(arguments.text) or arguments.input is not None
    writes = isinstance(config.data, WrittenTextsConfig | DocumentQuestionsConfig)
    shows_rows = isinstance(config.data, TaskConfig) and TASKS.of(config.data).evaluation == "answers"
    is_read = isinstance(config.model, HeadedConfig) and not isinstance(config.data, RatingsConfig)
    has_pipeline = not shows_rows and (is_read or writes)
    model = {} if arguments.output is None else {"model": sha256_of(run.params)[:16]}
    check_model(done, model)
    name = type(config.data).__name__
    if shows_rows:
        check(
            not has_texts and arguments.question is None,
            f"a run on {name} answers rows of its held-out set: leave out --text, --input and --question; --rows is "
            "the number of rows",
        )
        check([row.get("row") for row in done] == [*range(len(done))], OTHER_INPUT.format("lines"))
        for row in list(task_answers(config, run.params, run.tokenizer, arguments.rows or ROWS))[len(done) :]:
            yield {"line": row.pop("line")} | model | row
        return
    check(arguments.rows is None, f"--rows is for runs on tasks such as recall, not on {name}")
    check(
        has_pipeline or not isinstance(config.data, TaskConfig),
        f"predict does not support runs on {name}: memgpt-jax evaluate measures them",
    )
    predict = pipeline(arguments.workdir, step=arguments.step) if has_pipeline else None
    asks = isinstance(predict, QuestionAnswering | DocumentQuestions)
    if arguments.question is not None and not asks:
        raise ValueError("--question needs a model that answers questions")
    texts = config.data.input_columns if arguments.column is None else (arguments.column,)
    columns = Columns(texts, getattr(config.data, "question_column", "question") if asks else None)
    lines = input_lines(arguments, columns)

    def predicted(text: str, question: str | None) -> dict[str, Any]:
        if predict is not None:
            return predict.record(text, top=arguments.top, question=question)
        assert run.tokenizer is not None  # `reopen` makes sure
        return predict_text(config.model, run.params, run.tokenizer, text, arguments.top)

    check_done(done, lines)
    check_top(done, arguments.top, predicted)
    skipped = len(lines) - len(done)
    for line in track(lines[max((row["line"] for row in done), default=0) :], "predictions"):
        try:
            if line.text is None:
                raise ValueError(line.problem)
            found = predicted(line.text, line.question)
        except ValueError as error:
            if arguments.output is None and len(lines) == 1:
                raise
            print(f"line {line.number} is skipped: {error}", file=sys.stderr)
            continue
        skipped -= 1
        yield {"line": line.number} | model | found
    fields = " and ".join(map(repr, columns.texts))
    check(
        skipped < len(lines),
        f"none of the {len(lines)} lines can be used"
        + f": their text is read from {fields}, --column names another field" * arguments.has_objects,
    )
    if skipped:
        print(f"lines skipped: {skipped} of {len(lines)}", file=sys.stderr)


def done_lines(output: Path | None) -> list[dict[str, Any]]:
    """The complete lines in the output of an earlier start; an incomplete last line is removed.

    Raises `ValueError` if the file is not an output of this command.
    """
    if output is None or not output.exists():
        return []
    if output.is_dir():
        raise ValueError(f"output {output} is a folder: give the path of a file")
    content = output.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    rest = content[len(complete) :][: len(START)]
    try:
        rows = [json.loads(line) for line in complete.removesuffix(b"\n").split(b"\n")] if complete else []
        are_rows = all(isinstance(row["line"], int) for row in rows) and START.startswith(rest)
    except (ValueError, KeyError, TypeError, RecursionError):
        are_rows = False
    if not are_rows:
        raise ValueError(f"{output} exists and is not the output of this command: choose another file")
    if complete != content:
        replace_file(output, complete)
    return rows


def check_model(done: list[dict[str, Any]], model: dict[str, str]) -> None:
    """Raise `ValueError` unless all lines that are done have the checksum of this model."""
    others = [row["line"] for row in done if row.get("model") != model.get("model")]
    check(not others, f"the output holds lines {others[:3]} of another run or step: choose another file")


def check_done(done: list[dict[str, Any]], lines: list[Line]) -> None:
    """Raise `ValueError` unless the lines that are done have the texts of these lines."""
    for row in done:
        number = row["line"]
        line = lines[number - 1] if 1 <= number <= len(lines) else None
        if line is None or line.text is None or (row.get("text"), row.get("question")) != (line.text, line.question):
            raise ValueError(OTHER_INPUT.format(f"line {number}"))


def check_top(done: list[dict[str, Any]], top: int, predicted: Callable[[str, str | None], dict[str, Any]]) -> None:
    """Raise `ValueError` if the lines that are done list another number of results than `top`, or all that there are.

    Args:
        done: the lines.
        top: the number that is asked for.
        predicted: the prediction for a text and its question, with `top` results.
    """
    most = max(map(_listed, done), default=0)
    same = most in (0, top)
    if 0 < most < top:  # there may be no more: a longer text has more spans
        row = max((row for row in done if _listed(row) == most), key=lambda row: len(row["text"]))
        same = _listed(predicted(row["text"], row.get("question"))) == most
    check(same, f"the output holds lines of another --top, {most}: give --top {most}, or choose another file")


def _listed(row: dict[str, Any]) -> int:
    """The number of labels, tokens or answers that a line lists; 0: it lists none."""
    for name in ("labels", "answers", "predictions"):
        found = row.get(name)
        if isinstance(found, list) and found:
            return len(found[0]) if isinstance(found[0], list) else len(found)
    return 0


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(Arguments, __doc__, argv)
    done = done_lines(arguments.output)
    if arguments.output is None:
        for prediction in predictions(arguments, done):
            print(json.dumps(prediction, ensure_ascii=False), flush=True)
        return
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("a", encoding="utf-8") as file:
        for prediction in predictions(arguments, done):
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
            file.flush()
