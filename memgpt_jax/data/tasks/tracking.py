"""Variable tracking: follow chains of assignments that are scattered over a long context.

Hsieh et al., "RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024, section 3.
"""

import numpy as np

from memgpt_jax.config_tasks import TrackingConfig
from memgpt_jax.data.tasks.base import choose
from memgpt_jax.data.tasks.noise import NoiseTask


class TrackingTask(NoiseTask):
    """`num_chains` chains of assignments, mixed with each other and hidden in noise; then questions.

        ... VAR X1 = V . ... VAR X2 = X1 . ... VAR X3 = X2 . ...
        What value does X3 hold ? V                                                  question "value"
        Find all variables that are assigned the value V : X1 X2 X3                  question "variables"

    An assignment follows those that it depends on; places as for needles. Names of a row are distinct, and so are the
    values of its chains. Questions are about distinct chains. With "value", each row asks for variables that are
    equally many hops from a value, 0 to `num_hops`, drawn evenly; accuracies are reported for each number of hops.
    Ids: words and marks, names, values.

    Scored: "value": the value. "variables": each name, in the order of the chain, one token at a time with the right
    names before it as input. (RULER asks for the variables, in any order, with names of 5 letters and values of 5
    digits, and counts how many of them are among what was generated.)
    """

    config: TrackingConfig

    def __init__(self, config: TrackingConfig, split: str, tokenizer=None):
        super().__init__(config, split, tokenizer)
        if config.question == "value":
            self.groups = tuple(f"{hops} hops" for hops in range(config.num_hops + 1))

    def batch(self, rng, batch_size, length):
        rng, config = np.random.default_rng(rng), self.config
        rows, size = np.arange(batch_size)[:, None], config.num_hops + 1
        names = self.first_id + choose(rng, batch_size, config.num_names, config.num_variables)
        names = names.reshape(batch_size, config.num_chains, size)
        values = self.first_id + config.num_names + choose(rng, batch_size, config.num_values, config.num_chains)
        assigned = np.concatenate([values[..., None], names[:, :, :-1]], axis=2)

        # Chains in random order, e.g. 0 1 1 0 0 1: the j-th place of chain c is that of its j-th assignment.
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
        return batch | {"group": hops[:, 0].astype(np.int32)}
