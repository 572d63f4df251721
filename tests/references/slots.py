"""The Neural Turing Machine and the Differentiable Neural Computer, one token of one row at a time, in slow NumPy."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


class ReferenceSlots:
    """Controller and documents; a machine adds `restart`, `read_part` and `write_part`."""

    def __init__(self, config, params):
        self.config = config
        self.params = {name: {k: np.asarray(v, float) for k, v in layer.items()} for name, layer in params.items()}
        self.begin()

    def begin(self):
        config = self.config
        self.previous = np.zeros(self.params["output"]["kernel"].shape[1])
        self.hidden = self.cell = np.zeros(config.controller_size)
        self.reads = np.zeros(config.num_read_heads * config.slot_width)
        self.restart()

    def interface_vector(self, x):
        p, config = self.params, self.config
        source = x
        if config.controller == "lstm":
            z = x @ p["lstm_token"]["kernel"] + p["lstm_token"]["bias"]
            z = z + np.concatenate([self.hidden, self.reads]) @ p["lstm_recurrent"]["kernel"]
            n = config.controller_size
            self.cell = sigmoid(z[n : 2 * n]) * self.cell + sigmoid(z[:n]) * np.tanh(z[3 * n :])
            source = self.hidden = sigmoid(z[2 * n : 3 * n]) * np.tanh(self.cell)
        vector = source @ p["interface_vector"]["kernel"] + p["interface_vector"]["bias"]
        if config.controller == "pair":
            vector = vector + self.previous @ p["interface_previous"]["kernel"]
            self.previous = x
        return list(vector)

    def take(self, *shape):
        """The next part of the interface vector."""
        size = int(np.prod(shape))
        part, self.rest = self.rest[:size], self.rest[size:]
        return np.array(part).reshape(shape)

    def step(self, x, reset):
        if reset:
            self.begin()
        self.rest = self.interface_vector(np.asarray(x, float))
        self.split()
        assert not self.rest
        parts = [self.read_part, self.write_part]
        for part in parts if self.config.order == "read_write" else parts[::-1]:
            part()
        out = [self.hidden, self.reads] if self.config.controller == "lstm" else [self.reads]
        return np.concatenate(out) @ self.params["output"]["kernel"]

    def by_content(self, key, strength):
        score = []
        for slot in self.memory:
            score.append(strength * (key @ slot) / np.sqrt((key @ key + 1e-6) * (slot @ slot + 1e-6)))
        return softmax(np.array(score))


class ReferenceNTM(ReferenceSlots):
    def restart(self):
        config = self.config
        heads = config.num_read_heads + config.num_write_heads
        self.memory = np.full((config.memory_size, config.slot_width), 1e-6)
        self.weights = np.zeros((heads, config.memory_size))
        self.weights[:, 0] = 1

    def split(self):
        config = self.config
        width, writers = config.slot_width, config.num_write_heads
        heads = config.num_read_heads + writers
        self.key, self.strength, self.gate = self.take(heads, width), self.take(heads), self.take(heads)
        self.distance, self.power = self.take(heads, 2 * config.shift_range + 1), self.take(heads)
        self.erase, self.add = self.take(writers, width), self.take(writers, width)

    def go(self, head):
        size, reach = self.config.memory_size, self.config.shift_range
        gate = sigmoid(self.gate[head])
        content = self.by_content(self.key[head], softplus(self.strength[head]))
        stood = gate * content + (1 - gate) * self.weights[head]
        moves, moved = softmax(self.distance[head]), np.zeros(size)
        for i in range(size):
            for index, offset in enumerate(range(-reach, reach + 1)):
                moved[(i + offset) % size] += moves[index] * stood[i]
        sharp = moved ** (1 + softplus(self.power[head]))
        self.weights[head] = sharp / sharp.sum()
        return self.weights[head]

    def read_part(self):
        heads = range(self.config.num_read_heads)
        self.reads = np.concatenate([self.go(head) @ self.memory for head in heads])

    def write_part(self):
        heads = range(self.config.num_write_heads)
        where = [self.go(self.config.num_read_heads + head) for head in heads]
        after = self.memory.copy()
        for head in heads:
            after *= 1 - np.outer(where[head], sigmoid(self.erase[head]))
        for head in heads:
            after += np.outer(where[head], self.add[head])
        self.memory = after


class ReferenceDNC(ReferenceSlots):
    def restart(self):
        config = self.config
        size = config.memory_size
        self.memory, self.link = np.zeros((size, config.slot_width)), np.zeros((size, size))
        self.usage, self.precedence, self.write_weights = np.zeros(size), np.zeros(size), np.zeros(size)
        self.read_weights = np.zeros((config.num_read_heads, size))

    def split(self):
        heads, width = self.config.num_read_heads, self.config.slot_width
        self.read_key, self.read_strength = self.take(heads, width), self.take(heads)
        self.write_key, self.write_strength = self.take(width), self.take()
        self.erase, self.add, self.free_gates = self.take(width), self.take(width), self.take(heads)
        self.allocation_gate, self.write_gate, self.read_modes = self.take(), self.take(), self.take(heads, 3)

    def write_part(self):
        """As the paper has it: first what the last write used, then what the last reads free, then a sorted list."""
        usage = self.usage + self.write_weights - self.usage * self.write_weights
        for head, gate in enumerate(self.free_gates):
            usage = usage * (1 - sigmoid(gate) * self.read_weights[head])
        self.usage = usage
        kept, allocated, product = 1e-6 + (1 - 1e-6) * usage, np.zeros(len(usage)), 1.0
        for slot in np.argsort(np.round(kept * 2**12), kind="stable"):
            allocated[slot] = (1 - kept[slot]) * product
            product *= kept[slot]
        content = self.by_content(self.write_key, 1 + softplus(self.write_strength))
        where = sigmoid(self.allocation_gate)
        w = self.write_weights = sigmoid(self.write_gate) * (where * allocated + (1 - where) * content)
        self.memory = self.memory * (1 - np.outer(w, sigmoid(self.erase))) + np.outer(w, self.add)
        for i in range(len(w)):
            for j in range(len(w)):
                self.link[i, j] = (1 - w[i] - w[j]) * self.link[i, j] + w[i] * self.precedence[j] if i != j else 0
        self.precedence = (1 - w.sum()) * self.precedence + w

    def read_part(self):
        reads = []
        for head in range(self.config.num_read_heads):
            backward, forward = self.link.T @ self.read_weights[head], self.link @ self.read_weights[head]
            content = self.by_content(self.read_key[head], 1 + softplus(self.read_strength[head]))
            modes = softmax(self.read_modes[head])
            self.read_weights[head] = modes[0] * backward + modes[1] * content + modes[2] * forward
            reads.append(self.read_weights[head] @ self.memory)
        self.reads = np.concatenate(reads)

    @property
    def usage_after(self):
        """Usage with the last write counted, before the next freeing."""
        return self.usage + self.write_weights - self.usage * self.write_weights
