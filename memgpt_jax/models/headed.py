"""A model with a head: labels, tags or other outputs at every token of a stream."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import ModelConfig, Seq2SeqConfig
from memgpt_jax.memory import resolved
from memgpt_jax.models.base import Hidden, Model
from memgpt_jax.models.heads import StreamHead, make_head
from memgpt_jax.ops import Scores
from memgpt_jax.ops.int8_vectors import as_floats, in_form_of
from memgpt_jax.shapes import Array, Flags, Float, Targets, Tokens


class HeadedState(NamedTuple):
    """The states of both parts; every array has the batch axis first."""

    backbone: Any
    head: Any


class Headed(Model[HeadedState]):
    """A head over the last hidden states of a backbone.

    The outputs at a token are those for the document up to and with this token. On a causal backbone, any division of a
    document into calls gives the same outputs, so a document of any length is read in constant memory. An
    encoder-decoder reads the tokens of a call with both stacks, as in Lewis et al., "BART" (2020), section 3.1.

        outputs, state = model(tokens)
        outputs, state = model(more_tokens, state)
    """

    def __init__(self, config: HeadedConfig, backbone: Model[Any], *, rngs: nnx.Rngs):
        """Args: backbone: the model of `config.backbone`."""
        self.config = resolved(config)
        self.backbone = backbone
        head = make_head(config.head, config.last_stack, rngs=rngs)
        if not isinstance(head, StreamHead):
            raise ValueError(f"head={config.head}: a model needs a head with outputs at every token")
        check(
            not head.reads_embedding or isinstance(config.backbone, ModelConfig),
            f"head={type(config.head).__name__} needs a decoder, a ModelConfig, got {type(config.backbone).__name__}",
        )
        self.head = head

    def init_state(self, batch_size: int) -> HeadedState:
        """The state of both parts before the first token. It holds no parameters."""
        return HeadedState(self.backbone.init_state(batch_size), self.head.init_state(batch_size))

    def hidden(
        self,
        tokens: Tokens,
        state: HeadedState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> Hidden[HeadedState]:
        """The backbone's `hidden`: the last hidden states, the state after the call and the fusion gates."""
        state = self.state_or_initial(state, len(tokens))
        options = self._with_source(tokens, reset, valid, self._of_backbone(options))
        found = self.backbone.hidden(tokens, state.backbone, reset, valid, **options)
        return Hidden(found.stream, state._replace(backbone=found.state), found.gates)

    def __call__(
        self,
        tokens: Tokens,
        state: HeadedState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        alignment: Alignment = "any",
        **inputs: Array | None,
    ) -> tuple[Float[Array, "B L C"], HeadedState]:
        """The outputs of the head at every token, and the state after the call.

        Args:
            tokens: ids, like all other arguments as in the call of the backbone.
            state: the state after the previous call; default: that of `init_state`.
            reset: True for the first token of a document.
            valid: False for padding on the right.
            dropout_key: a PRNG key; default: no dropout.
            alignment: as in `MemGPT.__call__`.
            **inputs: further inputs of the backbone, and of the head (`HeadConfig.inputs`, `token_inputs`).

        Raises:
            ValueError: there are more than `call_length` tokens and not a multiple of it, or as in the backbone's call.
        """
        state = self.state_or_initial(state, len(tokens))
        arrays = {"tokens": tokens, "reset": reset, "valid": valid, **inputs}
        outputs, state = self._by_calls(self._one_call, state, arrays, dropout_key, alignment)
        return _joined(outputs), state

    def _by_calls(
        self,
        read: Callable[..., tuple[Any, HeadedState]],
        before: HeadedState,
        arrays: Mapping[str, Array | None],
        dropout_key: Array | None,
        alignment: Alignment,
    ) -> tuple[Any, HeadedState]:
        """What `read` returns for each call of `call_length` tokens [number of calls, ...], and the state after them.

        Args:
            read: of a state, the arrays of a call, a dropout key and an alignment; it returns the state, too.
        """
        arrays = {name: jnp.asarray(array) for name, array in arrays.items() if array is not None}
        total, length = arrays["tokens"].shape[1], self.config.call_length
        if length is None or total <= length:
            found, after = read(before, arrays, dropout_key, alignment)
            return jax.tree.map(lambda array: array[None], found), after
        number, rest = divmod(total, length)
        if rest:
            raise ValueError(f"tokens must be a multiple of call_length={length}, got {total}")
        keys = None if dropout_key is None else jax.random.split(dropout_key, number)

        def step(state: HeadedState, call: tuple[dict[str, Array], Array | None]) -> tuple[HeadedState, Any]:
            found, state = read(state, *call, alignment)
            return state, found

        calls = {name: _by_call(array, number) for name, array in arrays.items()}
        # As floats, what a call stores gets a gradient from later calls.
        floats = as_floats(before, jnp.dtype(self.config.last_stack.dtype))
        after, found = jax.lax.scan(step, floats, (calls, keys))
        return found, in_form_of(before, after)

    def _of_backbone(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options without the inputs of the head alone."""
        own = {*self.config.head.inputs, *self.config.head.token_inputs} - {*self.config.backbone.inputs}
        return {name: value for name, value in options.items() if name not in own}

    def _with_source(
        self, tokens: Tokens, reset: Flags | None, valid: Flags | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """The options; an encoder-decoder without a source reads the tokens of the call as its source, too."""
        if not isinstance(self.config.backbone, Seq2SeqConfig) or "source" in options:
            return options
        flags = {"source_reset": reset, "source_valid": valid}
        return options | {"source": tokens} | {name: flag for name, flag in flags.items() if flag is not None}

    def _one_call(
        self, state: HeadedState, arrays: dict[str, Array], dropout_key: Array | None, alignment: Alignment
    ) -> tuple[Float[Array, "B L C"], HeadedState]:
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        stream, state, *_ = self.hidden(**arrays, state=state, dropout_key=keys[0], alignment=alignment)
        reset, valid = arrays.get("reset"), arrays.get("valid")
        embedding = {"embedding": self._embedding()} if self.head.reads_embedding else {}
        names = self.config.head.inputs + self.config.head.token_inputs
        own = {name: arrays[name] for name in names if name in arrays}
        outputs, head = self.head(stream, state.head, reset, valid, dropout_key=keys[1], **embedding, **own)
        return outputs, state._replace(head=head)

    def _embedding(self) -> Float[Array, "V D"]:
        """What the backbone, a decoder, reads for each token."""
        backbone: Any = self.backbone
        return backbone.embedding[...] * jnp.float32(backbone.config.stream_scale)

    def score(
        self,
        tokens: Tokens,
        targets: Targets,
        state: HeadedState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        asked: Flags | None = None,
        dropout_key: Array | None = None,
        **options: Any,
    ) -> tuple[dict[str, Scores], HeadedState]:
        """Loss and correctness of each target.

        Args:
            tokens: ids, like all other arguments as in `__call__`.
            targets: {name: array} with the name `HeadConfig.target` and an array as in the head's `check_targets`; for
                `LabelHead` {"labels": classes [B, L]}, for several labels 0 or 1 of each class [B, L, C].
            state: as in `__call__`.
            reset: as in `__call__`.
            valid: as in `__call__`.
            asked: for `LabelHeadConfig.mixup`: True for the targets that count.
            dropout_key: as in `__call__`; also of mixup, which needs a key.
            **options: as in `__call__`.

        Raises:
            ValueError: as in `__call__`, a target is not valid, or `asked` is missing.
        """
        (name,) = self.config.heads
        check(
            isinstance(targets, dict) and list(targets) == [name],
            f"targets must be a dictionary {{{name!r}: targets}}, got "
            f"{list(targets) if isinstance(targets, dict) else type(targets).__name__}",
        )
        wanted = self.head.check_targets(targets[name], tokens)
        if dropout_key is None or not self.config.mixes_texts:
            outputs, state = self(tokens, state, reset, valid, dropout_key=dropout_key, **options)
            return {name: self.head.score(outputs, wanted, reset=reset, valid=valid)}, state
        if asked is None:
            raise ValueError("head.mixup needs the argument `asked`, the targets that count: weights > 0")
        dropout_key, mixup_key = jax.random.split(dropout_key)
        outputs, state = self(tokens, state, reset, valid, dropout_key=dropout_key, **options)
        return {name: self.head.mixed_score(outputs, wanted, jnp.asarray(asked), mixup_key)}, state

    def diagnostics(
        self,
        tokens: Tokens,
        state: HeadedState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        alignment: Alignment = "any",
        **inputs: Array | None,
    ) -> dict[str, Array]:
        """The backbone's `diagnostics`; with `call_length`, their mean over the calls that have a valid token."""

        def read(state: HeadedState, arrays: dict[str, Array], _: None, alignment: Alignment) -> Any:
            flags = {name: arrays.get(name) for name in ("reset", "valid")}
            options = {name: array for name, array in arrays.items() if name not in ("tokens", *flags)}
            options = self._with_source(arrays["tokens"], **flags, options=self._of_backbone(options))
            options |= {**flags, "alignment": alignment}
            found = self.backbone.diagnostics(arrays["tokens"], state.backbone, **options)
            counts = jnp.bool_(True) if flags["valid"] is None else jnp.any(flags["valid"])
            return (found, counts), self.hidden(**arrays, state=state, alignment=alignment).state

        arrays = {"tokens": tokens, "reset": reset, "valid": valid, **inputs}
        (found, counts), _ = self._by_calls(read, self.state_or_initial(state, len(tokens)), arrays, None, alignment)

        def mean(values: Array) -> Array:
            return jnp.mean(values, axis=0, where=counts.reshape(-1, *(1,) * (values.ndim - 1)))

        return {name: mean(values) for name, values in found.items()}


def _joined(outputs: Float[Array, "N B L C"]) -> Float[Array, "B N*L C"]:
    """The outputs of consecutive calls as those of one."""
    if len(outputs) == 1:
        return outputs[0]
    return jnp.swapaxes(outputs, 0, 1).reshape(outputs.shape[1], -1, outputs.shape[3])


def _by_call(array: Array, number: int) -> Array:
    """[B, number n, ...] -> [number, B, n, ...]."""
    return jnp.swapaxes(array.reshape(len(array), number, -1, *array.shape[2:]), 0, 1)
