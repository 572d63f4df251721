"""Raw features of tokens: patches of pictures, frames of sound and vectors, which a model projects to its width."""

from dataclasses import dataclass, field

from memgpt_jax.config.checks import at_least, check, check_positive


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Base of the configurations of raw features, the input `features` [B, L, F] of a model.

    Tokens with the id `token` have F features each; the features of other tokens are ignored.
    """

    token: int = at_least(0, default=0)
    """The id of the tokens that have features."""

    def __post_init__(self) -> None:
        check_positive(self)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of all tokens that have features."""
        return (self.token,)

    @property
    def size(self) -> int:
        """Number of features F of a token."""
        raise NotImplementedError

    @property
    def layout(self) -> tuple[int, ...]:
        """What the features are, in numbers: data and model must agree on them."""
        raise NotImplementedError


def check_features(features: FeaturesConfig, layout: tuple[int, ...], field: str) -> None:
    """Raise `ValueError` unless a model reads features of this layout at the tokens of id 0. Args: field: its name."""
    check(features.layout == layout, f"the data have features {layout}, and {field}={features} reads {features.layout}")
    check(features.token == 0, f"{field}.token must be 0 for this task, got {features.token}")


@dataclass(frozen=True, kw_only=True)
class PatchesConfig(FeaturesConfig):
    """Patches of pictures, a token each, row by row. F = channels patch_size^2, in the order (channel, row, column)."""

    height: int = 32
    """Height of a picture in pixels, a multiple of `patch_size`."""
    width: int = 32
    """Width of a picture in pixels, a multiple of `patch_size`."""
    patch_size: int = 4
    """Height and width of a patch in pixels."""
    channels: int = 3
    """Numbers of a pixel: 3 for colours, 1 for grey."""
    stem: tuple[int, ...] = ()
    """Widths of 3x3 convolutions over the picture, after which a patch is a pixel: the last log2(patch_size) of them
    have stride 2. All patches of a picture must then be in one call and in one document: those of other pictures are
    refused, inside `jit` they are NaN. Default: none, each patch is projected by itself (ViT)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not isinstance(self.stem, str), f"features.stem must be a list of numbers, got {self.stem!r}")
        object.__setattr__(self, "stem", tuple(self.stem))  # a list is also accepted
        for name in ("height", "width"):
            value = getattr(self, name)
            check(value % self.patch_size == 0, f"{name}={value} must be a multiple of patch_size={self.patch_size}")
        halvings = self.patch_size.bit_length() - 1
        check(
            not self.stem or (2**halvings == self.patch_size and halvings <= len(self.stem)),
            f"features.stem={self.stem} needs a patch_size that is a power of two, and at least log2(patch_size) "
            f"widths; patch_size={self.patch_size}",
        )
        check(all(width >= 1 for width in self.stem), f"features.stem must be positive widths, got {self.stem}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches of a column and of a row."""
        return self.height // self.patch_size, self.width // self.patch_size

    @property
    def size(self) -> int:
        return self.channels * self.patch_size**2

    @property
    def layout(self) -> tuple[int, ...]:
        return self.height, self.width, self.patch_size, self.channels


FRAMES = 2
"""Frames of a token: the second convolution has stride 2."""


@dataclass(frozen=True, kw_only=True)
class FramesConfig(FeaturesConfig):
    """Log-mel frames of sound, two a token. F = 2 num_mels, in the order (frame, band).

    Two convolutions of 3 frames with GELU, the second with stride 2: Radford et al., "Robust Speech Recognition via
    Large-Scale Weak Supervision" (Whisper, 2022), section 2.2. In an encoder they are centred and see the frames of a
    call; in a decoder the first sees no later frame, and the last frames are part of the state.
    """

    num_mels: int = 80
    """Bands of a frame."""
    center: bool = False
    """In a decoder: subtract from each band its mean over the frames of the document so far, which is part of the
    state: neither loudness nor microphone then change the features. `data.center` needs whole sounds instead."""

    @property
    def size(self) -> int:
        return FRAMES * self.num_mels

    @property
    def layout(self) -> tuple[int, ...]:
        return (self.num_mels,)


@dataclass(frozen=True, kw_only=True)
class VectorsConfig(FeaturesConfig):
    """Vectors of any numbers, such as colour, shape and place of an object; each is projected by itself."""

    size: int = 16  # pyright: ignore[reportIncompatibleMethodOverride]
    """Numbers F of a token."""

    @property
    def layout(self) -> tuple[int, ...]:
        return (self.size,)


@dataclass(frozen=True, kw_only=True)
class SensesConfig(FeaturesConfig):
    """Pictures and sound in one stream: patches and frames are tokens of different ids.

    F is the larger of their sizes; what is beyond the size of a token is ignored.
    """

    pictures: PatchesConfig = field(default_factory=PatchesConfig)
    """The patches."""
    sound: FramesConfig = field(default_factory=lambda: FramesConfig(token=1))
    """The frames."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.token == self.pictures.token != self.sound.token,
            f"features.token={self.token} must be features.pictures.token={self.pictures.token}, and "
            f"features.sound.token={self.sound.token} must be another id",
        )

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.pictures.token, self.sound.token

    @property
    def size(self) -> int:
        return max(self.pictures.size, self.sound.size)

    @property
    def layout(self) -> tuple[int, ...]:
        return (*self.pictures.layout, *self.sound.layout)
