"""What a token's query and entry are in memories of projected keys and values: one token at a time, float64."""

import numpy as np

from tests.references.ops import f64


class ReferenceProjections:
    """One batch row. `params`: nested dictionaries of the module's arrays."""

    def __init__(self, config, params, segment_length):
        self.config, self.params, self.segment_length = config, params, segment_length
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        self.history = []  # the document's tokens

    def observe(self, x, reset):
        """The token x [D] arrives."""
        if reset:
            self.begin_document()
        self.history.append(f64(x))
        self.tokens_seen += 1

    def segment_is_full(self):
        return self.tokens_seen % self.segment_length == 0

    @property
    def conv_cache(self):
        """The document's tokens before the open segment that the convolution still reaches, zeros in front."""
        taps, open_tokens = self.config.writer_conv - 1, self.tokens_seen % self.segment_length
        written = max(0, len(self.history) - open_tokens)
        zeros = [np.zeros_like(self.history[0])] * taps
        return np.array((zeros + self.history[:written])[written : written + taps])

    def entry(self):
        """Key and value [H, K] of the last token."""
        params, convolved = self.params, self.history[-1]
        if self.config.writer_conv > 1:
            taps = zip(f64(params["conv"]["kernel"]), reversed(self.history), strict=False)
            convolved = sum(kernel * earlier for kernel, earlier in taps)
        key = self.heads(convolved @ f64(params["key"]["kernel"]) + f64(params["key"]["bias"]))
        value = self.heads(self.history[-1] @ f64(params["value"]["kernel"]) + f64(params["value"]["bias"]))
        return self.unit(key), value

    def query(self, x):
        query = self.unit(self.heads(x @ f64(self.params["query"]["kernel"])))
        if self.config.qk_norm:
            return query * np.exp(f64(self.params["log_temperature"]))[:, None]
        return query * self.config.head_dim**-0.5

    def heads(self, x):
        return x.reshape(self.config.num_heads, self.config.head_dim)

    def unit(self, x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) if self.config.qk_norm else x
