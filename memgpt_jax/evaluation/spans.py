"""Held-out evaluation of questions whose answers are spans of a text: each question is answered once."""

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.questions import Question, QuestionsTask
from memgpt_jax.evaluation.answers import SpanLogits, span_logits
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.spans import SpanMetrics, exact_match, span_metrics
from memgpt_jax.evaluation.mistakes import Mistake, worst


class SpanResult(SpanMetrics):
    """Results on questions."""

    loss: float
    """Nats per question: half of -ln p(start) - ln p(end) over the whole text, for the answer given most often."""
    questions: int
    """Number of questions."""
    mistakes: list[Mistake]
    """The answers that match no reference and have the highest losses."""


def evaluate_spans(config: ExperimentConfig, params: models.Params, task: QuestionsTask) -> SpanResult:
    """Evaluate the answers to the questions of a split, in windows of `evaluation.chunk_length` tokens.

    Raises `ValueError` if an output is NaN or infinite.
    """
    settings = config.evaluation
    examples, targets = task.examples[: settings.max_documents], task.targets[: settings.max_documents]
    windows = task.windows(settings.chunk_length)
    logits = span_logits(
        config.model,
        params,
        [windows.all(example.question, task.texts[example.text]) for example in examples],
        rows=settings.batch_size,
        length=settings.chunk_length,
        noun="windows",
    )
    losses = [_loss(found, target) for found, target in zip(logits, targets, strict=True)]
    answers = [
        _answer(found, example, task, task.config.max_answer_tokens)
        for found, example in zip(logits, examples, strict=True)
    ]
    references = [[text for text, _ in example.answers] for example in examples]
    mistakes = worst(
        Mistake(
            where=example.where,
            text=f"{example.question} | {example.text}",
            expected=" / ".join(dict.fromkeys(right)),
            predicted=answer,
            loss=loss,
        )
        for example, right, answer, loss in zip(examples, references, answers, losses, strict=True)
        if not exact_match(answer, right)
    )
    loss = metric("loss", nats=sum(losses), targets=len(losses))
    return SpanResult(loss=loss, questions=len(losses), mistakes=mistakes, **span_metrics(answers, references))


def _loss(logits: SpanLogits, target: tuple[int, int] | None) -> float:
    log_p, log_none = logits.log_probabilities()
    first, last = target or (0, 0)
    return -float(log_none.sum() if target is None else log_p[first, 0] + log_p[last, 1]) / 2


def _answer(logits: SpanLogits, example: Question, task: QuestionsTask, max_tokens: int) -> str:
    """The text of the most probable span; "" for no answer."""
    encoded = task.texts[example.text]
    (best,) = logits.best(encoded, 1, max_tokens)
    if best.first is None or best.last is None:
        return ""
    return example.text[encoded.spans[best.first, 0] : encoded.spans[best.last, 1]]


def check_spans(config: ExperimentConfig, task: QuestionsTask) -> None:
    """Raise `ValueError` if a window of the evaluation is too short."""
    task.windows(config.evaluation.chunk_length).head(task.examples[0].question)
