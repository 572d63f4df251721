"""What a traced program will hold in memory at once, and how many operations its matmuls take, without compiling it.

A jaxpr lists operations in the order in which they run. XLA fuses most of them: an elementwise result lives in
registers on its way into the operation that uses it. What remains are buffers: results of matmuls, reductions and
loops, operands of matmuls and loops, and what several operations need and would be dear to compute twice. Each buffer
lives from the operation that makes it to the last that needs it, through fused operations in between; the peak is the
most that lives at once. Loops keep what they pass on, what they stack, and the peak of one turn.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

VIEWS = {"reshape", "squeeze", "expand_dims", "copy", "stop_gradient", "optimization_barrier", "copy_p", "name"}
VIEWS |= {"sharding_constraint", "pvary", "pcast"}
"""The same bytes under another shape."""
RECOMPUTED = {"remat", "remat2", "checkpoint"}
"""Calls that wait for all of their operands."""
CALLS = RECOMPUTED | {"pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "shard_map"}
"""Operations that only hold others."""
UNFUSED = {"dot_general", "scan", "while", "cond", "sort", "top_k", "cumsum", "cumprod", "cummax", "cumlogsumexp"}
"""Operations whose operands and results are buffers (`scatter` and `random` ones too)."""
ROOTS = {"argmax", "argmin", "gather", "dynamic_update_slice", "concatenate"}
"""Operations that can take fused operands, but whose result is a buffer (and so of every `reduce`)."""
DEAR = {"exp", "exp2", "log", "log1p", "tanh", "logistic", "erf", "sqrt", "rsqrt", "div", "pow", "sin", "cos"}
"""Operations that are not computed twice where two others need the result."""


class Cost(NamedTuple):
    """What a program takes before and after its turn: the first operation that needs a given input."""

    before: int
    """Bytes of the most that lives at once before the turn (in all, where there is none)."""
    turn: int
    """Bytes that live at the turn."""
    after: int
    """Bytes of the most that lives at once after it."""
    flops: int
    """Operations in matmuls, two for each multiplication that is added. Loops of unknown length count once."""

    @property
    def peak(self) -> int:
        """Bytes of the most that lives at once."""
        return max(self.before, self.after)


class _Operation(NamedTuple):
    name: str
    inputs: list[int]
    outputs: list[int]
    params: dict
    flops: int  # of its own


class _Flat:
    """A jaxpr with calls opened and views dropped; variables are numbers, with their sizes in bytes."""

    def __init__(self, jaxpr: Jaxpr):
        self.sizes: list[int] = []
        self.operations: list[_Operation] = []
        names = {}
        self.inputs = [self._new(var, names) for var in (*jaxpr.constvars, *jaxpr.invars)]
        self._open(jaxpr, names)
        self.outputs = [names[var] for var in jaxpr.outvars if not isinstance(var, Literal)]

    def _new(self, var, names) -> int:
        names[var] = len(self.sizes)
        self.sizes.append(size_of(var.aval))
        return names[var]

    def _open(self, jaxpr: Jaxpr, names: dict) -> None:
        for eqn in jaxpr.eqns:
            name = eqn.primitive.name
            inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params), None)
            one_turn = name == "scan" and eqn.params["length"] == 1  # XLA opens such a loop
            if (name in CALLS or one_turn) and inner is not None:
                inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
                if name in RECOMPUTED:  # starts when all of its operands are there
                    operands = [names[var] for var in eqn.invars if not isinstance(var, Literal)]
                    self.operations.append(_Operation("barrier", operands, [], {}, 0))
                within = {}
                for var in inner.constvars:
                    self._new(var, within)
                for var, outer in zip(inner.invars, eqn.invars, strict=True):
                    if isinstance(outer, Literal):
                        self._new(var, within)
                    else:
                        within[var] = names[outer]
                self._open(inner, within)
                for var, outer in zip(eqn.outvars, inner.outvars, strict=True):
                    if isinstance(outer, Literal):
                        self._new(var, names)
                    else:
                        names[var] = within[outer]
                continue
            operands = [names[var] for var in eqn.invars if not isinstance(var, Literal)]
            folded = name == "transpose" and len(eqn.params["permutation"]) == 2  # into the matmul that takes it
            if (name in VIEWS or folded) and len(operands) == len(eqn.outvars):
                names |= dict(zip(eqn.outvars, operands, strict=True))
            else:
                outputs = [self._new(var, names) for var in eqn.outvars]
                params = eqn.params | {"num_carry": _num_carry(eqn)} if name == "scan" else eqn.params
                self.operations.append(_Operation(name, operands, outputs, params, _matmul(eqn)))


def size_of(aval) -> int:
    """Bytes of an array."""
    itemsize = getattr(aval.dtype, "itemsize", 4)
    return math.prod(aval.shape) * itemsize


def cost(jaxpr: ClosedJaxpr, owned: Iterable[int] = (), turn: int | None = None) -> Cost:
    """The `Cost` of a program.

    Arguments:
        jaxpr: the program.
        owned: numbers of inputs that count, until their last use; others belong to the caller.
        turn: number of the input whose first use divides the program; it counts from there.
    """
    return _cost(jaxpr.jaxpr, owned, turn)


def _cost(jaxpr: Jaxpr, owned: Iterable[int] = (), turn: int | None = None) -> Cost:
    flat = _Flat(jaxpr)
    buffers = _buffers(flat)
    sources = _sources(flat, buffers)
    last = {source: len(flat.operations) for output in flat.outputs for source in sources[output]}
    for place, operation in reversed(list(enumerate(flat.operations))):
        if not buffers.isdisjoint(operation.outputs):
            for source in set().union(*(sources[operand] for operand in operation.inputs)):
                last.setdefault(source, place)
    inputs = flat.inputs[len(jaxpr.constvars) :]
    late = None if turn is None else inputs[turn]
    own = {inputs[number] for number in owned}
    ends: dict[int, list[int]] = {}
    for variable, place in last.items():
        if variable not in flat.inputs or variable in own or variable == late:
            ends.setdefault(place, []).append(variable)

    size = flat.sizes
    live = sum(size[variable] for variable in own)
    peaks, at_turn, flops = [live, 0], 0, 0
    after = False
    for place, operation in enumerate(flat.operations):
        if not after and late in operation.inputs:
            after, at_turn = True, live
            live += size[late]
        inner = _inner(operation)
        flops += inner.flops
        made = [output for output in operation.outputs if output in buffers]
        new, dead = sum(size[output] for output in made), sum(size[variable] for variable in ends.get(place, ()))
        live += new - min(new, dead, _in_place(operation))
        peaks[after] = max(peaks[after], live + inner.peak)
        live += min(new, dead, _in_place(operation)) - dead
        live -= sum(size[output] for output in made if output not in last)
    return Cost(peaks[0], at_turn, peaks[1], flops)


def _num_carry(scan) -> int:
    """How many results of a scan go from turn to turn; the others pile up, and so have one more axis."""
    results = zip(scan.params["jaxpr"].out_avals, scan.outvars, strict=True)
    return sum(one.shape == result.aval.shape for one, result in results)


def _in_place(operation: _Operation) -> float:
    """How many bytes of its results an operation may write over operands that nothing else needs."""
    if operation.name == "dot_general":
        return 0
    if operation.name == "while":
        return sum(size_of(aval) for aval in operation.params["body_jaxpr"].out_avals)
    if operation.name == "scan":  # what goes from turn to turn; not what it stacks
        return sum(size_of(aval) for aval in operation.params["jaxpr"].out_avals[: operation.params["num_carry"]])
    return math.inf


def _unfused(name: str) -> bool:
    return name in UNFUSED or name.startswith(("scatter", "random", "threefry", "custom"))


def _buffers(flat: _Flat) -> set[int]:
    """The variables that become buffers."""
    users: dict[int, int] = {}
    for operation in flat.operations:
        for operand in set(operation.inputs):
            users[operand] = users.get(operand, 0) + 1
    buffers = set(flat.inputs) | set(flat.outputs)
    dear: set[int] = set()
    for operation in flat.operations:
        if _unfused(operation.name):
            buffers |= {*operation.inputs, *operation.outputs}
        elif operation.name in ROOTS or operation.name.startswith("reduce"):
            buffers |= set(operation.outputs)
        elif operation.name in DEAR or any(o in dear and o not in buffers for o in operation.inputs):
            for output in operation.outputs:
                dear.add(output)
                if users.get(output, 0) > 1:
                    buffers.add(output)
    return buffers


def _sources(flat: _Flat, buffers: set[int]) -> list[set[int]]:
    """For each variable the buffers from which it is computed; of a buffer, itself."""
    sources: list[set[int]] = [{number} & buffers for number in range(len(flat.sizes))]
    for operation in flat.operations:
        below = set().union(*(sources[operand] for operand in operation.inputs))
        for output in operation.outputs:
            if output not in buffers:
                sources[output] = below
    return sources


def _inner(operation: _Operation) -> Cost:
    """What an operation takes beyond its operands and results."""
    params = operation.params
    if operation.name == "scan":
        turn = _cost(params["jaxpr"].jaxpr)
        return Cost(turn.peak, 0, 0, turn.flops * params["length"])
    if operation.name == "while":
        return _cost(params["body_jaxpr"].jaxpr)
    if operation.name == "cond":
        branches = [_cost(branch.jaxpr) for branch in params["branches"]]
        return Cost(max(branch.peak for branch in branches), 0, 0, max(branch.flops for branch in branches))
    return Cost(0, 0, 0, operation.flops)


def _matmul(eqn) -> int:
    if eqn.primitive.name != "dot_general":
        return 0
    (contracted, _), _ = eqn.params["dimension_numbers"]
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
