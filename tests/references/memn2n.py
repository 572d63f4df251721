"""The end-to-end memory network again: one row, one token at a time, float64, Python lists."""

from dataclasses import dataclass

import numpy as np

from tests.references.ops import f64, softmax


@dataclass
class Sentence:
    key: np.ndarray  # [H, K]
    value: np.ndarray  # [H, K]
    age: int = 0  # segments since it was written


class ReferenceMemN2N:
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays."""

    def __init__(self, config, params, segment_length):
        self.config, self.params, self.segment_length = config, params, segment_length
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        self.memory = []
        self.history = []  # the document's tokens, embedded
        self.own = []  # (place in its segment, key, value) of the document's tokens in the open segment

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        if reset:
            self.begin_document()
        read = self.read(f64(x))
        self.history.append(f64(x) @ f64(self.params["entry"]["kernel"]))
        self.own.append((self.tokens_seen % self.segment_length, self.convolved(), self.history[-1]))
        self.tokens_seen += 1
        if self.tokens_seen % self.segment_length == 0:
            self.memory += self.sentences()
            self.memory = self.memory[max(0, len(self.memory) - self.config.memory_size) :]
            for sentence in self.memory:
                sentence.age += 1
            self.own = []
        return read

    @property
    def conv_cache(self):
        """The embedded tokens before the open segment that the convolution still reaches, zeros in front."""
        taps, written = self.config.writer_conv - 1, len(self.history) - len(self.own)
        zeros = [np.zeros(self.config.num_heads * self.config.head_dim)] * taps
        return np.array((zeros + self.history[:written])[written : written + taps])

    def convolved(self):
        if self.config.writer_conv == 1:
            return self.history[-1]
        taps = zip(f64(self.params["conv"]["kernel"]), reversed(self.history), strict=False)
        return sum(kernel * earlier for kernel, earlier in taps)

    def sentences(self):
        if self.config.entry == "token":
            return [Sentence(self.unit(self.heads(key)), self.heads(value)) for _, key, value in self.own]
        key, value = np.zeros(self.own[0][1].shape), np.zeros(self.own[0][1].shape)
        width, length = len(key), self.segment_length
        for place, one_key, one_value in self.own:
            j = place + 1
            weight = [(1 - j / length) - (k / width) * (1 - 2 * j / length) for k in range(1, width + 1)]
            key, value = key + weight * one_key, value + weight * one_value
        return [Sentence(self.unit(self.heads(key)), self.heads(value))]

    def read(self, x):
        u = self.heads(x @ f64(self.params["query"]["kernel"]))
        for hop in range(self.config.num_hops):
            u = np.stack([self.hop(hop, h, u[h]) for h in range(len(u))])
        return u.reshape(-1) @ f64(self.params["output"]["kernel"])

    def hop(self, number, h, u):
        """The next question of head h, [K]."""
        config, params = self.config, self.params
        which = (number, number + 1) if config.tying == "adjacent" else (0, 1)
        embed, answer = (f64(params["maps"][n, h]) for n in which)
        time_in, time_out = (f64(params["age_encoding"][n, :, h]) for n in which)
        if config.qk_norm:
            question = np.exp(f64(params["log_temperature"][h])) * self.unit(embed.T @ u)
        else:
            question = embed.T @ u / np.sqrt(config.head_dim)
        row = [min(sentence.age, config.num_ages) - 1 for sentence in self.memory]
        none = np.zeros(len(u))
        time_in, time_out = ([time[r] if config.num_ages else none for r in row] for time in (time_in, time_out))
        logits = [question @ s.key[h] + u @ time for s, time in zip(self.memory, time_in, strict=True)]
        if config.null_entry:
            logits.append(question @ f64(params["null_key"][h]))
        found = np.zeros(len(u))
        if self.memory:
            weights = softmax(logits)[: len(self.memory)]
            for weight, sentence, time in zip(weights, self.memory, time_out, strict=True):
                found += weight * (answer @ sentence.value[h] + time)
        kept = u if config.tying == "adjacent" else f64(params["update"][h]) @ u
        return kept + found

    def heads(self, x):
        return x.reshape(self.config.num_heads, self.config.head_dim)

    def unit(self, x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) if self.config.qk_norm else x
