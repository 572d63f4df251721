"""Recurrent state vectors again: one row, one token at a time, float64, plain loops."""

import numpy as np

from tests.references.ops import f64, sigmoid, softmax


class ReferenceTokens:
    """What one batch row reads, and the states it keeps. `params`: nested dictionaries of the module's arrays."""

    def __init__(self, config, params, segment_length):
        self.config, self.params, self.segment_length = config, params, segment_length
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        self.states = [f64(state) for state in self.params["initial_states"]]
        self.history = []  # the document's tokens
        self.own = []  # (key, value) of the document's tokens in the open segment

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        if reset:
            self.begin_document()
        read = self.read(f64(x))
        self.history.append(f64(x))
        self.own.append(self.offer())
        self.tokens_seen += 1
        if self.tokens_seen % self.segment_length == 0:
            self.states = self.rewritten()
            self.own = []
        return read

    @property
    def conv_cache(self):
        """The document's tokens before the open segment that the convolution still reaches, zeros in front."""
        taps, written = self.config.writer_conv - 1, len(self.history) - len(self.own)
        zeros = [np.zeros_like(self.history[0])] * taps
        return np.array((zeros + self.history[:written])[written : written + taps])

    def read(self, x):
        query = self.asked(x, "query", "log_temperature")
        entries = [(self.unit(self.map(n, "key")), self.map(n, "value")) for n in map(normed, self.states)]
        return self.attend(query, entries) @ f64(self.params["output"]["kernel"])

    def offer(self):
        """Key and value [H, K] with which the newest token enters the write."""
        x = convolved = self.history[-1]
        if self.config.writer_conv > 1:
            taps = zip(f64(self.params["conv"]["kernel"]), reversed(self.history), strict=False)
            convolved = sum(kernel * earlier for kernel, earlier in taps)
            x = np.concatenate([x, convolved])
        return self.unit(self.map(convolved, "token_key")), self.map(x, "token_value")

    def rewritten(self):
        ids, after = f64(self.params["state_ids"]), []
        of_states = [
            (self.unit(self.map(normed(s) + ids[i], "state_key")), self.map(normed(s), "state_value"))
            for i, s in enumerate(self.states)
        ]
        for i, state in enumerate(self.states):
            query = self.asked(normed(state) + ids[i], "state_query", "write_log_temperature")
            found = self.attend(query, self.own + of_states)
            new = found @ f64(self.params["update"]["kernel"]) + f64(self.params["update"]["bias"])
            if self.config.update == "fixed":
                gate = sigmoid(self.params["update_gate"])
                new = gate * state + (1 - gate) * new
            if self.config.update == "lstm":
                gates = found @ f64(self.params["update_gate"]["kernel"]) + f64(self.params["update_gate"]["bias"])
                take_in, keep = np.split(gates, 2)
                new = sigmoid(keep) * state + sigmoid(take_in) * np.tanh(new)
            after.append(new)
        return after

    def asked(self, x, name, temperature):
        query = self.unit(self.map(x, name))
        if self.config.qk_norm:
            return query * np.exp(f64(self.params[temperature]))[:, None]
        return query / np.sqrt(self.config.head_dim)

    def attend(self, query, entries):
        """[H K] of what the query [H, K] reads of (key, value) [H, K]."""
        out = np.zeros(query.shape)
        for h in range(len(query) if entries else 0):
            weights = softmax([query[h] @ key[h] for key, _ in entries])
            out[h] = sum(weight * value[h] for weight, (_, value) in zip(weights, entries, strict=True))
        return out.reshape(-1)

    def map(self, x, name):
        return (x @ f64(self.params[name]["kernel"])).reshape(self.config.num_heads, self.config.head_dim)

    def unit(self, x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) if self.config.qk_norm else x


def normed(state):
    return state / np.sqrt((state * state).mean() + 1e-6)
