"""XLNet's attention again, in NumPy, float64 and plain loops."""

import math

import numpy as np

from tests.references.ops import f64, softmax


def wave(distance, d_model, base):
    """The sinusoid [D] of a distance: sines, then cosines."""
    angles = [distance * base ** (-2 * f / d_model) for f in range(d_model // 2)]
    return np.array([math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles])


def relative_attention(config, params, asking, h, document, valid, types, sees):
    """[B, L, D]: what each token of `asking` attends to among the tokens h.

    params: of `RelativeAttention`, as arrays by name. sees: (b, i, j) -> bool, of the order.
    """
    (batch, length, _), heads, width = h.shape, config.num_heads, config.attention_head_dim
    nearest = math.inf if config.max_distance is None else config.max_distance
    split = lambda x: x.reshape(*x.shape[:-1], heads, width)  # noqa: E731
    to_query, to_key, to_value = np.split(f64(params["query_key_value/kernel"]), 3, axis=-1)
    query, keys, values = split(f64(asking) @ to_query), split(f64(h) @ to_key), split(f64(h) @ to_value)
    out = np.zeros((batch, length, heads, width))
    for b, i, n in np.ndindex(batch, length, heads):
        u, v, s = (f64(params[name])[n] for name in ("content_bias", "position_bias", "type_bias"))
        places, logits = [], []
        for j in range(length):
            if document[b, j] != document[b, i] or not valid[b, j] or not sees(b, i, j):
                continue
            distance = max(-nearest, min(nearest, i - j))
            far = split(wave(distance, config.d_model, config.distance_base) @ f64(params["position_key/kernel"]))
            kind = f64(params["type_keys"])[int(types[b, i] != types[b, j]), n]
            q = query[b, i, n]
            places.append(j)
            logits.append(((q + u) @ keys[b, j, n] + (q + v) @ far[n] + (q + s) @ kind) / math.sqrt(width))
        for j, weight in zip(places, softmax(logits) if places else (), strict=True):
            out[b, i, n] += weight * values[b, j, n]
    return out.reshape(batch, length, -1) @ f64(params["output/kernel"])
