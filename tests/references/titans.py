"""Titans' memory again: one row, one token and one head at a time, float64, gradients of the network by hand."""

import itertools

import numpy as np

from tests.references.ops import f64, sigmoid


def forward(weights, x):
    """Inputs of each layer, sums in front of each activation, and the output."""
    inputs, sums = [f64(x)], []
    for weight in weights[:-1]:
        sums.append(inputs[-1] @ weight)
        inputs.append(sums[-1] * sigmoid(sums[-1]) / np.sqrt(weight.shape[1]))
    return inputs, sums, inputs[-1] @ weights[-1]


def gradients(weights, key, value):
    """d |M(k) - v|^2 / d weights, by the chain rule."""
    inputs, sums, out = forward(weights, key)
    error, result = 2 * (out - value), [None] * len(weights)
    for i in reversed(range(len(weights))):
        result[i] = np.outer(inputs[i], error)
        if i > 0:
            s = sigmoid(sums[i - 1])
            slope = s + sums[i - 1] * s * (1 - s)
            error = (weights[i] @ error) * slope / np.sqrt(len(slope))
    return result


def bound_of(weights, pairs):
    """How much of a chunk's step is taken: at most the Polyak step of its loss, each token weighted by what arrives."""
    loss, total = 0.0, [np.zeros_like(weight) for weight in weights]
    for i, (key, value, theta, _, _) in enumerate(pairs):
        inertia, arrives = 1.0, 1.0  # of a unit step of token i, in the momentum and in the weights
        for _, _, _, eta, alpha in pairs[i + 1 :]:
            inertia *= eta
            arrives = (1 - alpha) * arrives + inertia
        loss += theta * arrives * np.sum((forward(weights, key)[2] - value) ** 2)
        total = [t + theta * arrives * u for t, u in zip(total, gradients(weights, key, value), strict=True)]
    length = sum(np.sum(t * t) for t in total)
    return min(1.0, 2 * loss / length) if length > 0 else 1.0


class ReferenceTitansMemory:
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays."""

    def __init__(self, config, params, segment_length):
        self.config, self.params, self.segment_length = config, params, segment_length
        num_chunks = -(-segment_length // config.chunk_length)
        self.chunk = -(-segment_length // num_chunks)
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        heads, initial = range(self.config.num_heads), self.params["initial_weights"]
        layers = [f64(initial[i]) for i in sorted(initial)]
        self.initial = [[layer[h] for layer in layers] for h in heads]
        self.weights = [list(layers) for layers in self.initial]
        self.momentum = [[np.zeros_like(layer[h]) for layer in layers] for h in heads]
        self.history, self.open = [], []  # of the document; pairs of the open segment with their places
        self.written = 0

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        if reset:
            self.begin_document()
        self.history.append(f64(x))
        self.open.append((self.tokens_seen % self.segment_length, self.pair(self.history)))
        read = self.read(f64(x))
        self.tokens_seen += 1
        if self.tokens_seen % self.segment_length == 0:
            for h in range(self.config.num_heads):
                self.learn(h)
            self.open, self.written = [], len(self.history)
        return read

    def learn(self, h):
        """Chunk by chunk, token by token; the gradients of a chunk are those at the weights in front of it."""
        for _, chunk in itertools.groupby(self.open, key=lambda entry: entry[0] // self.chunk):
            pairs = [[part[h] for part in pair] for _, pair in chunk]
            found, bound = self.weights[h], bound_of(self.weights[h], pairs)
            for key, value, theta, eta, alpha in pairs:
                surprise = gradients(found, key, value)
                self.momentum[h] = [
                    eta * s - bound * theta * u for s, u in zip(self.momentum[h], surprise, strict=True)
                ]
                layers = zip(self.initial[h], self.weights[h], self.momentum[h], strict=True)
                self.weights[h] = [start + (1 - alpha) * (m - start) + s for start, m, s in layers]

    @property
    def learned(self):
        """The weights minus the initial ones, by head and layer."""
        both = zip(self.weights, self.initial, strict=True)
        return [[m - start for m, start in zip(*layers, strict=True)] for layers in both]

    @property
    def conv_cache(self):
        """The document's tokens before the open segment that the convolution still reaches, zeros in front."""
        taps = self.config.writer_conv - 1
        zeros = [np.zeros_like(self.history[0])] * taps
        return np.array((zeros + self.history[: self.written])[self.written : self.written + taps])

    def affine(self, name, x):
        out = x @ f64(self.params[name]["kernel"]) + f64(self.params[name].get("bias", 0.0))
        return out.reshape(self.config.num_heads, -1)

    def unit(self, x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6)

    def pair(self, history):
        """Key, value, theta, eta and alpha of a token, each with a first axis of heads."""
        config, x = self.config, history[-1]
        convolved = x
        if config.writer_conv > 1:
            taps = zip(f64(self.params["conv"]["kernel"]), reversed(history), strict=False)
            convolved = sum(kernel * earlier for kernel, earlier in taps)
        theta, eta, alpha = (sigmoid(self.affine(name, x)) for name in ("rate_gate", "inertia_gate", "forget_gate"))
        theta = config.inner_rate * theta
        return self.unit(self.affine("key", convolved)), self.affine("value", x), theta, eta, alpha

    def read(self, x):
        queries = self.unit(self.affine("query", x))
        out = [forward(weights, query)[2] for weights, query in zip(self.weights, queries, strict=True)]
        return np.concatenate(out) @ f64(self.params["output"]["kernel"])
