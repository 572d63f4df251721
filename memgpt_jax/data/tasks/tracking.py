"""Variable tracking: follow chains of assignments that are spread over a long context.

Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024, section 3.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from memgpt_jax.config.checks import check, check_literals, check_positive
from memgpt_jax.data.batch import Batch
from memgpt_jax.data.tasks.base import choose
from memgpt_jax.data.tasks.noise import NoiseConfig, NoiseTask
from memgpt_jax.data.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(NoiseConfig):
    """RULER's variable tracking: chains of assignments among noise, then a question that follows them."""

    templates: ClassVar[dict[str, str]] = {
        "assignment": "VAR {name} = {value} .",
        "value": "What value does {name} hold ? {value}",
        "variables": "Find all variables that are assigned the value {value} :",  # and their names
    }

    num_chains: int = 2
    """Number of chains of a row; each starts with a value."""
    num_hops: int = 2
    """Number of assignments from one variable to the next, in each chain."""
    question: Literal["value", "variables"] = "value"
    """Ask for the `value` of variables, or, as published, for all `variables` that hold a value."""
    num_questions: int = 1
    """Number of questions at the end of a row, about distinct chains; at most `num_chains`."""
    num_names: int = 64
    """Number of variable names; each is one id."""
    num_values: int = 64
    """Number of values; each is one id."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_literals(self)
        check(
            self.num_questions <= self.num_chains <= self.num_values,
            f"num_questions={self.num_questions} must be at most num_chains={self.num_chains}, and that at most "
            f"num_values={self.num_values}",
        )
        check(
            self.num_variables <= self.num_names,
            f"num_chains={self.num_chains} and num_hops={self.num_hops} need {self.num_variables} names, more than "
            f"num_names={self.num_names}",
        )
        self.check_hides(self.num_variables, self.size("assignment"))

    @property
    def num_variables(self) -> int:
        """Number of variables of a row: num_hops + 1 in each chain."""
        return self.num_chains * (self.num_hops + 1)

    @property
    def num_ids(self) -> int:
        """Words and punctuation marks of the sentences, names, values."""
        return len(self.words) + self.num_names + self.num_values

    @property
    def row_length(self) -> int:
        """The noise with the assignments, and the questions."""
        answers = self.num_hops + 1 if self.question == "variables" else 0
        return self.context_length + self.num_questions * (self.size(self.question) + answers)


class TrackingTask(NoiseTask[TrackingConfig]):
    """`num_chains` interleaved chains of assignments, hidden in noise; then questions.

        ... VAR X1 = V . ... VAR X2 = X1 . ... VAR X3 = X2 . ...
        What value does X3 hold ? V                                                  question "value"
        Find all variables that are assigned the value V : X1 X2 X3                  question "variables"

    An assignment follows those on which it depends; places are drawn as for needles. The names of a row are distinct,
    and so are the values of its chains. Questions are about distinct chains. With "value", all variables
    queried in a row are the same number of hops away from their values, 0 to `num_hops`, drawn uniformly; accuracies
    are reported for each number of hops. Ids: words and punctuation marks, names, values.

    Scored: "value": the value. "variables": each name, in the order of the chain, one token at a time with the right
    names before it as input. (RULER asks for the variables, in any order, with names of 5 letters and values of 5
    digits, and counts the names that occur in the generated text.)
    """

    def __init__(self, config: TrackingConfig, split: str, tokenizer: Tokenizer | None = None):
        super().__init__(config, split, tokenizer)
        if config.question == "value":
            self.groups = tuple(f"{hops} hops" for hops in range(config.num_hops + 1))

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        rng, config = np.random.default_rng(rng), self.config
        rows, size = np.arange(batch_size)[:, None], config.num_hops + 1
        names = self.first_id + choose(rng, batch_size, config.num_names, config.num_variables)
        names = names.reshape(batch_size, config.num_chains, size)
        values = self.first_id + config.num_names + choose(rng, batch_size, config.num_values, config.num_chains)
        assigned = np.concatenate([values[..., None], names[:, :, :-1]], axis=2)

        # The chain of each assignment in random order, e.g. 0 1 1 0 0 1; the j-th c is the j-th assignment of chain c.
        mixed = rng.permuted(np.arange(config.num_variables)[None].repeat(batch_size, 0) // size, axis=1)
        order = np.argsort(np.argsort(mixed, axis=1, kind="stable"), axis=1)
        fields = {"name": names, "value": assigned}
        fields = {name: x.reshape(batch_size, -1)[rows, order][..., None] for name, x in fields.items()}
        context = self.hide(rng, self.sentences("assignment", fields))

        chains = choose(rng, batch_size, config.num_chains, config.num_questions)
        value = values[rows, chains][..., None]
        if config.question == "variables":
            question = self.sentences("variables", {"value": value})
            return self.ask(context, np.concatenate([question, names[rows, chains]], axis=2), size)
        hops = rng.integers(size, size=(batch_size, 1))
        name = names[rows, chains, hops][..., None]
        batch = self.ask(context, self.sentences("value", {"name": name, "value": value}), 1)
        return batch._replace(info=batch.info | {"group": hops[:, 0].astype(np.int32)})
