"""The key-value memory again: one row, one token at a time, float64, Python lists."""

from dataclasses import dataclass

import numpy as np

from tests.references import ops as reference
from tests.references.ops import f64


@dataclass
class Entry:
    key: np.ndarray  # [G, K]
    value: np.ndarray  # [G, K]
    log_gate: float
    age: int = 0  # segments since it was written
    mass: float = 0.0  # attention weight received, summed over tokens, mean over heads


class ReferenceKVMemory:
    """What one batch row reads, and what it remembers. `params`: nested dictionaries of the module's arrays.

    One that `joins` attention reads, for each head, a list of pairs of a logit and a value.
    """

    def __init__(self, config, params, segment_length, knowledge=(), joins=False, rotary_base=None):
        self.knowledge = knowledge  # entries that outlive a reset
        self.config, self.params, self.segment_length, self.joins = config, params, segment_length, joins
        self.rotary_base = rotary_base if config.continues_window else None  # queries and keys are rotated
        self.tokens_seen = 0
        self.begin_document()

    def begin_document(self):
        initial = range(self.config.initial_entries)
        keys, values = (f64(self.params.get(name, ())) for name in ("initial_keys", "initial_values"))
        self.memory = [Entry(self.unit(keys[i]), values[i], 0.0) for i in initial]
        self.own = []  # entries of the document's tokens in the segment that is not full yet
        self.history = []  # the document's tokens

    def step(self, x, reset):
        """What the token x [D] reads, [D]. Reset, then read, then write."""
        if reset:
            self.begin_document()
        self.history.append(f64(x))
        self.own.append(self.entry(self.history))
        read = self.read(f64(x))
        self.tokens_seen += 1
        if self.tokens_seen % self.segment_length == 0:
            new = [self.gated(entry) for entry in self.selected(self.own)]
            self.memory = reference.survivors(self.memory, new, self.config.memory_size, self.config.evict)
            for entry in self.memory:
                entry.age += 1
            self.own = []
        return read

    @property
    def conv_cache(self):
        """The document's tokens before the open segment that the convolution still reaches, zeros in front."""
        taps, written = self.config.writer_conv - 1, len(self.history) - len(self.own)
        zeros = [np.zeros_like(self.history[0])] * taps
        return np.array((zeros + self.history[:written])[written : written + taps])

    def entry(self, history):
        config, params, x = self.config, self.params, history[-1]
        convolved = x
        if config.writer_conv > 1:
            taps = zip(f64(params["conv"]["kernel"]), reversed(history), strict=False)
            convolved = sum(kernel * earlier for kernel, earlier in taps)
        key = self.heads(convolved @ f64(params["key"]["kernel"]) + f64(params["key"]["bias"]))
        value = self.heads(x @ f64(params["value"]["kernel"]) + f64(params["value"]["bias"]))
        log_gate = 0.0
        if config.gate != "none":
            gate = params["write_gate"]
            log_gate = float(np.log(reference.sigmoid(x @ f64(gate["kernel"]) + f64(gate["bias"])))[0])
        return Entry(self.turned(self.unit(key)), value, log_gate)

    def turned(self, heads):
        if self.rotary_base is None:
            return heads
        return reference.rotate(heads[None, None], np.array([[self.tokens_seen]]), self.rotary_base)[0, 0]

    def selected(self, own):
        size = self.config.select_size
        if self.config.select == "highest_gate":
            best = sorted(range(len(own)), key=lambda i: (-own[i].log_gate, i))[:size]
            return [own[i] for i in sorted(best)]
        if self.config.select == "pool":
            items = [(entry.key, entry.value, entry.log_gate) for entry in own]
            pooled = reference.pool(items, self.params["pool_queries"])
            gates = [1.0 if self.config.gate == "none" else gate for _, _, gate in pooled]
            return [
                Entry(self.unit(key), value, float(np.log(gate)))
                for (key, value, _), gate in zip(pooled, gates, strict=True)
            ]
        return own

    def gated(self, entry):
        gate = np.exp(entry.log_gate)
        key = entry.key * gate if self.config.gate == "scale" else entry.key
        value = entry.value * gate if self.config.gate in ("scale", "scale_value") else entry.value
        return Entry(key, value, entry.log_gate)

    def read(self, x):
        config, params = self.config, self.params
        query = self.turned(self.unit(self.heads(x @ f64(params["query"]["kernel"]))))
        scale = config.head_dim**-0.5
        if config.qk_norm:
            scale = np.exp(f64(params["log_temperature"]))[:, None]
        query = query * scale
        visible = [*self.memory]
        if config.visibility == "token":
            visible += [self.gated(entry) for entry in self.own]
        visible += self.knowledge
        out, pairs = [], []
        for h in range(config.num_heads):
            bias = lambda entry: entry.log_gate if config.gate == "log_bias" else 0.0  # noqa: E731
            g = h * config.kv_heads // config.num_heads
            entries = [(entry.key[g], entry.value[g], bias(entry), entry.age) for entry in visible]
            null = params["null_key"][g] if config.null_entry else None
            slope = np.log1p(np.exp(f64(params["recency_bias"][h]))) if config.recency_bias else 0.0
            read, weights = reference.read_one(query[h], entries, null, slope)
            out.append(read)
            logits = reference.entry_logits(query[h], entries, null, slope)
            values = [value for _, value, _, _ in entries] + [np.zeros_like(read)]  # the last one of the null entry
            pairs.append(list(zip(logits, values, strict=False)))
            for entry, weight in zip(visible, weights, strict=True):
                entry.mass += weight / config.num_heads
        return pairs if self.joins else np.concatenate(out) @ f64(params["output"]["kernel"])

    def heads(self, x):
        return x.reshape(-1, self.config.head_dim)

    def unit(self, x):
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) if self.config.qk_norm else x
