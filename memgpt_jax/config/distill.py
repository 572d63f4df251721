"""The configuration of knowledge distillation."""

from dataclasses import dataclass

from memgpt_jax.config.checks import check, check_types, set_tuples


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Knowledge distillation: Hinton et al., "Distilling the Knowledge in a Neural Network" (2015).

        loss = (1 - w) task loss + w T^2 KL(p || q) + h min_P mean_d (x P - y)_d^2 + a R

    at each target, with w `weight`, T `temperature`, h `hidden_weight` and a `attention_weight`. p is the mean over the
    teachers of softmax(z / T), z their logits, q the softmax of the student's logits / T. x and y are the last hidden
    states of the student and of a teacher; P is the linear projection that fits the batch best, found in closed form.
    Teachers get no gradient, and each has its own state.

    R is the loss on attention of Wang et al., "MiniLMv2" (2021): for queries, keys and values of the last layer, the
    KL of the teacher's softmax_j(y_i . y_j / sqrt(n)) over the tokens j <= i of the call from that of the student, the
    mean of the three and of `relation_heads` heads of n dimensions.

    With `by_spans` the loss of the teachers is that of Minixhofer et al., "Cross-Tokenizer Distillation via Approximate
    Likelihood Matching" (2025): w T KL(p^(1/T) || q^(1/T)) for each span of text whose two ends are ends of tokens of
    the student and of all teachers, where p and q are the probabilities of the whole span, and KL is that of two
    outcomes. For large T it is w (a ln(a / b) - a + b), a = -ln p, b = -ln q.
    """

    teachers: tuple[str, ...] = ()
    """Folders of runs, or other sources of `from_pretrained`, with the tokenizer and the vocabulary of the model (not
    with `by_spans`); the teachers of a head have a head for the same classes. Default: no distillation."""
    weight: float = 0.5
    """w. With 0 (and `hidden_weight=0` and `attention_weight=0`) the teachers are not read."""
    temperature: float = 2.0
    """T."""
    hidden_weight: float = 0.0
    """h, for decoders."""
    attention_weight: float = 0.0
    """a, for decoders. Its memory grows with the square of the tokens of a call."""
    relation_heads: int = 4
    """For `attention_weight`: number of heads into which the queries, keys and values of the last layer are split. It
    must divide their widths, `num_heads` and `num_kv_heads` times `head_dim`, in the student and in the teachers."""
    top_k: int | None = None
    """Cache the outputs of the teachers for all training batches before the first step: the probabilities of the k
    likeliest tokens, and the sum of all others. Default: no cache; the teachers run in each step."""
    by_spans: bool = False
    """Compare the probabilities of spans of text in place of those of tokens: for teachers with another tokenizer. The
    text is that of a corpus (`TextConfig`). Before the first step, the teachers read each document whole; a cache holds
    the probabilities of all spans. Of a span that begins in one batch and ends in the next one nothing is learned."""
    cache: str | None = None
    """The folder of the cache of `top_k` or `by_spans`, which runs with the same teachers and batches may share;
    default: `WORKDIR/teachers`. `~` is expanded."""
    fingerprints: tuple[str, ...] = ()
    """Hashes of the teachers' parameters, which training sets: a run is resumed with the same teachers only."""
    architectures: tuple[str, ...] = ()
    """Configurations of the teachers' models as JSON, which training sets."""

    def __post_init__(self) -> None:
        check_types(self)
        set_tuples(self, "teachers", "fingerprints", "architectures")
        check(all(self.teachers), f"distill.teachers must be names of models, got {self.teachers}")
        check(0 <= self.weight <= 1, f"distill.weight must be between 0 and 1, got {self.weight}")
        for name in ("temperature", "hidden_weight", "attention_weight"):
            value = getattr(self, name)
            check(0 <= value < float("inf"), f"distill.{name} must be a number of at least 0, got {value}")
        check(self.relation_heads >= 1, f"distill.relation_heads must be at least 1, got {self.relation_heads}")
        check(self.temperature > 0, f"distill.temperature must be positive, got {self.temperature}")
        check(self.top_k is None or self.top_k >= 1, f"distill.top_k must be at least 1, got {self.top_k}")
        check(
            not self.by_spans or self.top_k is None,
            f"distill.by_spans=True compares spans, not tokens: it needs distill.top_k=None, got {self.top_k}",
        )
        check(
            self.cached or self.cache is None,
            f"distill.cache={self.cache!r} needs distill.top_k, the number of probabilities to keep for each token, or "
            "distill.by_spans=True",
        )
        for name in ("hidden_weight", "attention_weight"):
            check(
                not (self.cached and getattr(self, name)),
                f"distill.{name}={getattr(self, name)} needs the teachers in each step: distill.top_k=None and "
                "distill.by_spans=False",
            )

    @property
    def active(self) -> bool:
        """Whether there are teachers that change the loss."""
        return bool(self.teachers and (self.weight or self.hidden_weight or self.attention_weight))

    @property
    def cached(self) -> bool:
        """Whether the teachers read all batches before the first step, and do not run in the steps."""
        return self.top_k is not None or self.by_spans
