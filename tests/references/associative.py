"""The associative memory again: one row, one token and one head at a time, float64, plain outer products."""

import numpy as np

from tests.references.ops import f64, sigmoid


def features(x, kind, size):
    """phi(x) of one head: unit length."""
    x = f64(x)
    if kind == "elu":
        x = np.array([value + 1 if value > 0 else np.exp(value) for value in x])
    elif kind == "dpfp":
        rectified = [max(value, 0.0) for value in x] + [max(-value, 0.0) for value in x]
        twice = len(rectified)
        x = np.array([rectified[i % twice] * rectified[(i % twice - 1 - i // twice) % twice] for i in range(size)])
    return x / np.sqrt((x * x).sum() + 1e-6)


class ReferenceAssociativeMemory:
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays."""

    def __init__(self, config, params, segment_length):
        self.config, self.params, self.segment_length = config, params, segment_length
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        config, heads = self.config, range(self.config.num_heads)
        self.matrices = [np.zeros((config.memory_size, config.head_dim)) for _ in heads]
        self.normalisers = [np.zeros(config.memory_size) for _ in heads]
        for i in range(config.initial_entries):
            for h in heads:
                phi = features(self.params["initial_keys"][i, h], config.feature_map, config.memory_size)
                self.matrices[h] += np.outer(phi, f64(self.params["initial_values"][i, h]))
                self.normalisers[h] += phi
        self.running = self.copy()  # what the matrices would be if the open segment ended here
        self.history, self.written = [], 0

    def copy(self):
        return [m.copy() for m in self.matrices], [z.copy() for z in self.normalisers]

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        if reset:
            self.begin_document()
        self.history.append(f64(x))
        for h in range(self.config.num_heads):
            self.write(h)
        token = self.config.visibility == "token"
        read = self.read(f64(x), *(self.running if token else (self.matrices, self.normalisers)))
        self.tokens_seen += 1
        if self.tokens_seen % self.segment_length == 0:
            self.matrices, self.normalisers = self.running
            self.running = self.copy()
            self.written = len(self.history)
        return read

    @property
    def conv_cache(self):
        """The document's tokens before the open segment that the convolution still reaches, zeros in front."""
        taps = self.config.writer_conv - 1
        zeros = [np.zeros_like(self.history[0])] * taps
        return np.array((zeros + self.history[: self.written])[self.written : self.written + taps])

    def affine(self, name, x):
        return x @ f64(self.params[name]["kernel"]) + f64(self.params[name].get("bias", 0.0))

    def write(self, h):
        config, x = self.config, self.history[-1]
        convolved = x
        if config.writer_conv > 1:
            taps = zip(f64(self.params["conv"]["kernel"]), reversed(self.history), strict=False)
            convolved = sum(kernel * earlier for kernel, earlier in taps)
        key = self.affine("key", convolved).reshape(config.num_heads, -1)[h]
        value = self.affine("value", x).reshape(config.num_heads, -1)[h]
        gate = sigmoid(self.affine("write_gate", x))[h]
        keep = 1 - sigmoid(self.affine("forget_gate", x))[h] if config.forget else 1.0
        phi = features(key, config.feature_map, config.memory_size)
        matrices, normalisers = self.running
        matrix = keep * matrices[h]
        written = value - matrix.T @ phi if config.rule == "delta" else value
        matrices[h] = matrix + gate * np.outer(phi, written)
        normalisers[h] = keep * normalisers[h] + gate * phi

    def read(self, x, matrices, normalisers):
        config, out = self.config, []
        for h, query in enumerate(self.affine("query", x).reshape(config.num_heads, -1)):
            phi = features(query, config.feature_map, config.memory_size)
            weight = normalisers[h] @ phi + 1e-6 if config.normalize else 1.0
            out.append(matrices[h].T @ phi / weight)
        return self.affine("output", np.concatenate(out))
