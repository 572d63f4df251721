"""The kNN memory again: one row, one token at a time, float64, Python lists."""

import numpy as np

from tests.references.ops import f64, read_one, sigmoid
from tests.references.projections import ReferenceProjections


class ReferenceKNNMemory(ReferenceProjections):
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays."""

    def begin_document(self):
        super().begin_document()
        self.memory = []  # (key, value) with [H, K] each, the oldest first
        self.own = []  # those of the segment that is not full yet

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        self.observe(x, reset)
        self.own.append(self.entry())
        read = self.read(f64(x))
        if self.segment_is_full():
            self.memory = [*self.memory, *self.own][
                max(0, len(self.memory) + len(self.own) - self.config.memory_size) :
            ]
            self.own = []
        return read

    def read(self, x):
        query, gate, out = self.query(x), sigmoid(self.params["store_gate"]), []
        for h in range(self.config.num_heads):
            one_head = lambda entries, h=h: [(key[h], value[h], 0.0, 0) for key, value in entries]  # noqa: E731
            scores = [float(query[h] @ key) for key, _, _, _ in one_head(self.memory)]
            best = sorted(range(len(scores)), key=lambda i: -scores[i])[: self.config.top_k]
            stored, _ = read_one(query[h], [one_head(self.memory)[i] for i in best])
            local, _ = read_one(query[h], one_head(self.own))
            out.append(gate[h] * stored + (1 - gate[h]) * local)
        return np.concatenate(out) @ f64(self.params["output"]["kernel"])
