"""Every operation again, in NumPy, float64 and plain loops: slow, and easy to check against the equations."""

import math

import numpy as np


def f64(x):
    """Any array as float64."""
    return np.asarray(x).astype(np.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-f64(x)))


def softmax(logits):
    """Softmax of a list of numbers."""
    logits = f64(logits)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def window_attention(query, keys, values, query_document, key_document, window_size, distance_bias=None):
    """[B, L, H, K]: token i attends to the last `window_size` tokens, itself included, of its own document."""
    batch, length, heads, width = query.shape
    past, group = keys.shape[1] - length, heads // keys.shape[2]
    out = np.zeros(query.shape)
    for b in range(batch):
        for i in range(length):
            places = range(max(0, past + i - window_size + 1), past + i + 1)
            places = [j for j in places if key_document[b, j] == query_document[b, i]]
            for h in range(heads):
                logits = [f64(query[b, i, h]) @ f64(keys[b, j, h // group]) / math.sqrt(width) for j in places]
                if distance_bias is not None:
                    logits = [logit + distance_bias[h, past + i - j] for logit, j in zip(logits, places, strict=True)]
                for j, weight in zip(places, softmax(logits) if places else (), strict=True):
                    out[b, i, h] += weight * f64(values[b, j, h // group])
    return out


def relative_bucket(distance, buckets, max_distance):
    """The bucket of a key that stands so many tokens before its query, of causal attention."""
    exact = buckets // 2
    if distance < exact:
        return distance
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return min(buckets - 1, exact + math.floor((buckets - exact) * share))


def entry_logits(query, entries, null_key=None, recency=0.0):
    """Logits of one head's query [K] on entries (key, value, bias, age), and on the null entry behind them."""
    logits = [f64(query) @ f64(key) + bias - recency * math.log1p(age) for key, _, bias, age in entries]
    return logits if null_key is None else [*logits, f64(query) @ f64(null_key)]


def read_one(query, entries, null_key=None, recency=0.0):
    """What one head's query [K] reads of entries (key, value, bias, age), and the weight that each receives."""
    logits = entry_logits(query, entries, null_key, recency)
    if not logits:
        return np.zeros(len(query)), np.zeros(0)
    weights = softmax(logits)[: len(entries)]
    out = np.zeros(len(query) if not entries else len(entries[0][1]))
    for weight, (_, value, _, _) in zip(weights, entries, strict=True):
        out += weight * f64(value)
    return out, weights


def read(query, sources, null_key=None, recency=None):
    """[B, Q, H, K] of `read`, and the weight [B, Q, E] that each entry receives, mean over heads."""
    batch, length, heads, _ = query.shape
    group = heads // sources[0].keys.shape[2]
    total = sum(source.keys.shape[1] for source in sources)
    out, mass = np.zeros(query.shape), np.zeros((batch, length, total))
    for b, i, h in np.ndindex(batch, length, heads):
        entries, places, start = [], [], 0
        for source in sources:
            for e in range(source.keys.shape[1]):
                if source.visible[b, i, e]:
                    g = h // group
                    entries.append((source.keys[b, e, g], source.values[b, e, g], source.bias[b, e], source.age[b, e]))
                    places.append(start + e)
            start += source.keys.shape[1]
        null = None if null_key is None else null_key[h // group]
        slope = 0.0 if recency is None else float(recency[h])
        out[b, i, h], weights = read_one(query[b, i, h], entries, null, slope)
        mass[b, i, places] += weights / heads
    return out, mass


def causal_conv(x, document, kernel):
    """c_t = sum_j kernel_j x_{t-j} over taps of the same document; the first W - 1 inputs come before the tokens."""
    taps, batch = len(kernel), x.shape[0]
    length = x.shape[1] - taps + 1
    out = np.zeros((batch, length, x.shape[2]))
    for b, t, j in np.ndindex(batch, length, taps):
        here = t + taps - 1
        if document[b, here - j] == document[b, here]:
            out[b, t] += f64(kernel[j]) * f64(x[b, here - j])
    return out


def pool(entries, queries):
    """(key, value, gate) pooled from a list of (key [G, K], value [G, K], log_gate) for each query [G, K]."""
    pooled = []
    for query in f64(queries):
        weights = [softmax([query[g] @ key[g] + log_gate for key, _, log_gate in entries]) for g in range(len(query))]
        key, value, gate = np.zeros(query.shape), np.zeros(query.shape), 0.0
        for g in range(len(query)):
            for weight, entry in zip(weights[g], entries, strict=True):
                key[g] += weight * f64(entry[0][g])
                value[g] += weight * f64(entry[1][g])
                gate += weight * math.exp(entry[2]) / len(query)
        pooled.append((key, value, gate))
    return pooled


def survivors(old, new, size, evict):
    """Which of the old and new entries stay, in order of time. Entries have `log_gate`, `age` and `mass`."""
    both = [*old, *new]
    if evict == "oldest":
        rank = range(len(both))
    elif evict == "lowest_gate":
        rank = [entry.log_gate for entry in both]
    else:
        rank = [entry.mass / min(max(entry.age, 1), 4096) for entry in old] + [math.inf] * len(new)
    best_first = sorted(range(len(both)), key=lambda i: (rank[i], i), reverse=True)
    return [both[i] for i in sorted(best_first[:size])]


def gated_fusion(stream, read, gate_logit):
    gate = sigmoid(gate_logit)
    spread = np.repeat(gate, stream.shape[-1] // gate.shape[-1], axis=-1)
    return spread * f64(stream) + (1 - spread) * f64(read)


def cross_entropy(logits, target):
    """-log softmax(logits)[target] of one token."""
    logits = f64(logits)
    return math.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target]


def turns(position, index, num, base):
    """p f mod 2^32 with the fixed-point frequency f = round(2^32 base^(-i/num) / 2 pi), in Python's own integers."""
    frequency = round(base ** (-index / num) / (2 * math.pi) * 2**32)
    return int(position) * frequency % 2**32


def rotate(x, positions, base):
    """Channel pairs (i, i + K/2) of [B, L, H, K] turned by the angle of their position."""
    half = x.shape[-1] // 2
    out = np.zeros(x.shape)
    for b, t, h, i in np.ndindex(*x.shape[:3], half):
        angle = turns(positions[b, t], i, half, base) * 2 * math.pi / 2**32
        first, second = f64(x[b, t, h, i]), f64(x[b, t, h, i + half])
        out[b, t, h, i] = first * math.cos(angle) - second * math.sin(angle)
        out[b, t, h, i + half] = first * math.sin(angle) + second * math.cos(angle)
    return out


def sinusoidal(positions, width, base):
    half = width // 2
    angle = np.array([[[turns(p, i, half, base) for i in range(half)] for p in row] for row in positions])
    angle = angle * (2 * math.pi / 2**32)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
