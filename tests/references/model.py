"""The whole decoder again: one row, one token at a time, float64, lists instead of caches."""

import math

import numpy as np

from memgpt_jax.config.memory import KVMemoryConfig
from tests.references import ops as reference
from tests.references.memory import ReferenceKVMemory
from tests.references.ops import f64


class ReferenceDecoder:
    """Logits of one batch row. `params`: the nested dictionaries of `memgpt_jax.init`."""

    def __init__(self, config, params):
        self.config, self.params, self.position = config, params, 0
        self.windows = [[] for _ in range(config.num_layers)]  # (key, value) of the document's last tokens
        self.memories = [
            ReferenceKVMemory(
                config.effective_memory,
                params["blocks"][str(i)]["memory_layer"]["memory"],
                config.segment_length,
                joins=config.fusion == "attention",
                rotary_base=config.rotary_base if config.position == "rotary" else None,
            )
            if isinstance(config.memory, KVMemoryConfig) and config.layer_has_memory(i)
            else None
            for i in range(config.num_layers)
        ]

    def step(self, token, reset):
        """Logits [V] after one more token."""
        if reset:
            self.position = 0
            self.windows = [[] for _ in self.windows]
        x = self.embed(token)
        for layer, params in enumerate(self.params["blocks"][str(i)] for i in range(self.config.num_layers)):
            normed, memory, entries = self.norm(x, params["attention_norm"]), self.memories[layer], None
            if memory is not None and memory.joins:
                bias = f64(params["memory_layer"]["fusion_gate"])
                if self.config.memory.continues_window and memory.tokens_seen % self.config.segment_length == 0:
                    self.windows[layer].clear()
                found = zip(memory.step(normed, reset), bias, strict=True)
                entries = [[(logit - bias, value) for logit, value in pairs] for pairs, bias in found]
            attended = self.attention(normed, params["attention"], self.windows[layer], entries)
            parallel = self.config.norm_position == "parallel"
            x = x if parallel else x + attended
            if memory is not None and not memory.joins:
                of_memory = normed if parallel else self.norm(x, params["memory_layer"]["norm"])
                x = self.remember(x, of_memory, params["memory_layer"], memory, reset)
            if parallel:
                x = x + attended + self.feed_forward(normed, params["feed_forward"])
            else:
                x = x + self.feed_forward(self.norm(x, params["feed_forward_norm"]), params["feed_forward"])
        self.position += 1
        x = self.norm(x, self.params["final_norm"])
        if self.config.tie_embeddings:
            return x @ f64(self.params["embedding"]).T
        return x @ f64(self.params["output"]["kernel"])

    def embed(self, token):
        config = self.config
        x = f64(self.params["embedding"][token]) * math.sqrt(config.d_model)
        if config.position == "learned":
            x = x + f64(self.params["position_embedding"][self.position]) * math.sqrt(config.d_model)
        if config.position == "sinusoidal":
            x = x + reference.sinusoidal(np.array([[self.position]]), config.d_model, config.rotary_base)[0, 0]
        return x

    def norm(self, x, params):
        x = x - x.mean() if self.config.norm == "layernorm" else x
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * f64(params["scale"])
        return x + f64(params["bias"]) if self.config.norm == "layernorm" else x

    def attention(self, x, params, window, entries=None):
        """entries: for each head, more pairs of a logit and a value."""
        config, width = self.config, self.config.attention_head_dim
        heads = (x @ f64(params["query_key_value"]["kernel"])).reshape(-1, width)
        query, key, value = np.split(heads, [config.num_heads, config.num_heads + config.kv_heads])
        if config.qk_norm:
            rms = lambda a, p: a / np.sqrt((a * a).mean(-1, keepdims=True) + 1e-6) * f64(p["scale"])  # noqa: E731
            query, key = rms(query, params["query_norm"]), rms(key, params["key_norm"])
        if config.position == "rotary":
            turn = lambda a: reference.rotate(a[None, None], np.array([[self.position]]), config.rotary_base)[0, 0]  # noqa: E731
            query, key = turn(query), turn(key)
        window.append((key, value))
        del window[: -config.window_size]
        out = []
        for h in range(config.num_heads):
            g = h * config.kv_heads // config.num_heads
            logits = [query[h] @ key[g] / math.sqrt(width) for key, _ in window]
            if config.position == "relative":
                logits = [logit + self.relative(len(window) - 1 - i, h) for i, logit in enumerate(logits)]
            values = [value[g] for _, value in window]
            for logit, value in entries[h] if entries else ():
                logits, values = [*logits, logit], [*values, value]
            out.append(sum(w * value for w, value in zip(reference.softmax(logits), values, strict=True)))
        return np.concatenate(out) @ f64(params["output"]["kernel"])

    def relative(self, distance, head):
        config = self.config
        bucket = reference.relative_bucket(distance, config.relative_buckets, config.relative_max_distance)
        return f64(self.params["relative_embedding"])[bucket, head]

    def remember(self, h, normed, params, memory, reset):
        read = memory.step(normed, reset)
        if self.config.fusion == "add":
            return h + read
        if self.config.fusion == "concat":
            return np.concatenate([h, read]) @ f64(params["fusion"]["projection"]["kernel"])
        gate = params["fusion"]["gate"]
        logit = np.concatenate([normed, read]) @ f64(gate["kernel"]) + f64(gate["bias"])
        if self.config.fusion == "gated_add":
            return h + (1 - reference.sigmoid(logit)) * read
        return reference.gated_fusion(h, read, logit)

    def feed_forward(self, x, params):
        hidden = x @ f64(params["input"]["kernel"])
        if self.config.activation == "swiglu":
            gate, value = np.split(hidden, 2)
            hidden = gate * reference.sigmoid(gate) * value
        else:  # the tanh form of GELU
            hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        return hidden @ f64(params["output"]["kernel"])
