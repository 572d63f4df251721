"""The compressive memory again: one row, one token at a time, float64, Python lists."""

from dataclasses import dataclass

import numpy as np

from tests.references.ops import f64, read_one
from tests.references.projections import ReferenceProjections


@dataclass
class Entry:
    key: np.ndarray  # [H, K]
    value: np.ndarray  # [H, K]
    usage: float = 0.0  # attention weight received, summed over tokens, mean over heads


class ReferenceCompressiveMemory(ReferenceProjections):
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays."""

    def begin_document(self):
        super().begin_document()
        self.recent, self.compressed, self.own = [], [], []

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        self.observe(x, reset)
        self.own.append(Entry(*self.entry()))
        read = self.read(f64(x))
        if self.segment_is_full():
            for entry in self.own:
                self.append(entry)
            self.own = []
        return read

    def append(self, entry):
        recent_size, compressed_size = self.config.sizes
        self.recent.append(entry)
        ratio = self.config.ratio if compressed_size else 1
        if len(self.recent) == recent_size + ratio:
            group, self.recent = self.recent[:ratio], self.recent[ratio:]
            self.compressed.append(self.compress(group))
            self.compressed = self.compressed[max(0, len(self.compressed) - compressed_size) :]

    def compress(self, group):
        kind = self.config.compression
        if kind == "most_used":
            best = max(range(len(group)), key=lambda i: (group[i].usage, -i))
            return Entry(self.unit(group[best].key), group[best].value)
        both = []
        for name in ("key", "value"):
            vectors = [getattr(entry, name) for entry in group]
            if kind == "mean":
                both.append(sum(vectors) / len(vectors))
            elif kind == "max":
                both.append(np.maximum.reduce(vectors))
            else:
                kernel = f64(self.params[f"compress_{name}s_kernel"])
                heads = range(self.config.num_heads)
                both.append(np.stack([sum(v[h] @ kernel[c, h] for c, v in enumerate(vectors)) for h in heads]))
        return Entry(self.unit(both[0]), both[1])

    def read(self, x):
        query, out = self.query(x), []
        for h in range(self.config.num_heads):
            entries = [(entry.key[h], entry.value[h], 0.0, 0) for entry in self.recent]
            if self.compressed:
                source = f64(self.params["source_embedding"])[h]
                entries += [(entry.key[h] + source, entry.value[h], 0.0, 0) for entry in self.compressed]
            read, weights = read_one(query[h], entries, self.params["null_key"][h])
            out.append(read)
            for entry, weight in zip(self.recent, weights, strict=False):
                entry.usage += weight / self.config.num_heads
        return np.concatenate(out) @ f64(self.params["output"]["kernel"])
