"""Models as pure functions of pytrees: parameters and state are arguments, results and the new state are returned."""

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import BaseModelConfig, EncoderConfig, ModelConfig, Seq2SeqConfig, XLNetConfig
from memgpt_jax.models.decoder import MemGPT, ModelState
from memgpt_jax.models.encoder import Encoder, EncoderState
from memgpt_jax.models.headed import Headed, HeadedState
from memgpt_jax.models.seq2seq import EncoderDecoder, Seq2SeqState
from memgpt_jax.models.xlnet import XLNet
from memgpt_jax.ops import Scores
from memgpt_jax.ops.trees import tree_bytes
from memgpt_jax.shapes import Array, Flags, Float32, Targets, Tokens

Params = dict[str, Any]
"""Parameters: nested dictionaries of float32 arrays."""
AnyModel = MemGPT | Encoder | EncoderDecoder | XLNet | Headed
State = TypeVar("State", ModelState, EncoderState, Seq2SeqState, HeadedState)


def _headed(config: HeadedConfig, *, rngs: nnx.Rngs) -> Headed:
    return Headed(config, MODELS[type(config.backbone)](config.backbone, rngs=rngs), rngs=rngs)


MODELS: dict[type, Callable[..., AnyModel]] = {
    ModelConfig: MemGPT,
    EncoderConfig: Encoder,
    Seq2SeqConfig: EncoderDecoder,
    XLNetConfig: XLNet,
    HeadedConfig: _headed,
}
"""The model of each class of configuration."""


@functools.lru_cache(maxsize=64)
def abstract_model(config: BaseModelConfig) -> AnyModel:
    """A model whose parameters are shapes without values. It is cached and shared: do not modify it."""

    def make() -> AnyModel:
        return MODELS[type(config)](config, rngs=nnx.Rngs(0))

    return nnx.eval_shape(make)


@functools.lru_cache(maxsize=256)
def _graph(config: BaseModelConfig) -> nnx.GraphDef:
    """The structure of a model, without arrays."""
    return nnx.split(abstract_model(config), nnx.Param)[0]


def to_params(model: nnx.Module) -> Params:
    """The parameters of a module as nested dictionaries; the keys of a list are "0", "1", ..."""
    return with_string_keys(nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def with_string_keys(tree: Any) -> Any:
    """Nested dictionaries with string keys, as in a model's parameters."""
    return {str(key): with_string_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def from_params(config: BaseModelConfig, params: Params) -> Any:
    """The model with the given parameters, of the class in `MODELS` for the configuration."""
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, params)
    return nnx.merge(_graph(config), nnx.restore_int_paths(arrays))


class ModelFunctions(Generic[State]):
    """The functions of one model, closed over its configuration, for `jax.jit`, `jax.grad` and other transformations.

    >>> model_fn = mg.functional(config)
    >>> params = model_fn.init(jax.random.key(0))
    >>> logits, state = jax.jit(model_fn.apply)(params, tokens)

    The parameters replace `self` of the model's methods. Inside `jit`, values of arguments cannot be checked: an
    invalid token id gives NaN, and there is no warning for texts beyond the `context_length` of a pretrained model.
    """

    def __init__(self, config: BaseModelConfig):
        self.config = config

    def __repr__(self) -> str:
        return f"functional({self.config!r})"

    def init(self, key: Array) -> Params:
        """Initial parameters: nested dictionaries of float32 arrays."""
        return to_params(MODELS[type(self.config)](self.config, rngs=nnx.Rngs(params=key)))

    def param_shapes(self) -> Params:
        """Shapes and dtypes of the parameters. Nothing is allocated."""
        params = to_params(abstract_model(self.config))  # may carry the sharding of the mesh under which it was made
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)

    def init_state(self, batch_size: int) -> State:
        """The state of `batch_size` rows before the first token."""
        model: Any = abstract_model(self.config)
        return model.init_state(batch_size)

    def apply(
        self,
        params: Params,
        tokens: Tokens,
        state: State | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Float32[Array, "B L V"], State]:
        """The model's `__call__`: logits [B, L, V] and the state after the call. `state=None` begins a stream."""
        return from_params(self.config, params)(tokens, state, reset, valid, **options)

    def score(
        self, params: Params, tokens: Tokens, targets: Targets, state: State | None = None, **options: Any
    ) -> tuple[dict[str, Scores], State]:
        """The model's `score`: loss in nats and correctness of each target by head, and the state after the call."""
        return from_params(self.config, params).score(tokens, targets, state, **options)

    def diagnostics(
        self, params: Params, tokens: Tokens, state: State | None = None, reset: Flags | None = None, **options: Any
    ) -> dict[str, Array]:
        """The model's `diagnostics`: gates and memory statistics, one row per layer with a memory."""
        return from_params(self.config, params).diagnostics(tokens, state, reset, **options)


@overload
def functional(config: EncoderConfig | XLNetConfig) -> ModelFunctions[EncoderState]: ...
@overload
def functional(config: Seq2SeqConfig) -> ModelFunctions[Seq2SeqState]: ...
@overload
def functional(config: HeadedConfig) -> ModelFunctions[HeadedState]: ...
@overload
def functional(config: ModelConfig) -> ModelFunctions[ModelState]: ...
@overload
def functional(config: BaseModelConfig) -> ModelFunctions[Any]: ...
def functional(config: BaseModelConfig) -> ModelFunctions[Any]:
    """The pure functions of the model with this configuration: `init`, `init_state`, `apply`, `score`, `diagnostics`.

    Equal configurations give the same object, so that a function is compiled once by `jax.jit`.
    """
    return _functions(config)


@functools.lru_cache(maxsize=256)
def _functions(config: BaseModelConfig) -> ModelFunctions[Any]:
    return ModelFunctions(config)


def model_state_bytes(config: BaseModelConfig) -> int:
    """Bytes of a model's state per batch row: the windows and memories of all layers."""
    state = jax.eval_shape(lambda: functional(config).init_state(1))
    return tree_bytes(state)
