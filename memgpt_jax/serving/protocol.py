"""The bodies of requests: which fields are used, which are ignored, and which are refused.

A field that is in none of the three lists is refused. `null` means that a field is absent.
"""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

MOST_CHOICES = 16
MOST_STOPS = 4
LONGEST_STOP = 1000

Text = Annotated[str, Field(max_length=20_000_000)]
Ids = Annotated[list[int], Field(max_length=4_000_000)]
Prompt = (
    Text
    | Ids
    | Annotated[list[Text], Field(min_length=1, max_length=256)]
    | Annotated[list[Ids], Field(min_length=1, max_length=256)]
)


class Body(BaseModel):
    """A JSON object."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that clients send and that change nothing here."""
    refused: ClassVar[dict[str, str]] = {}
    """Fields that would change the answer, each with the reason why there is no such thing."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            raise PydanticCustomError("body", "the body must be a JSON object")
        values = {name: value for name, value in values.items() if value is not None and name not in cls.ignored}
        for name, reason in cls.refused.items():
            if name in values:
                raise PydanticCustomError(
                    "unsupported_parameter", "{name} is not supported: {reason}", {"name": name, "reason": reason}
                )
        return values


class StreamOptions(Body):
    """What a stream sends beside the text."""

    ignored = frozenset({"include_obfuscation"})

    include_usage: bool = False
    """A last chunk with the usage."""


class Generation(Body):
    """The fields that completions and chat completions share."""

    model: str | None = None
    """The name of the model, as in `/v1/models`; default: the only one."""
    temperature: float = Field(1.0, ge=0, le=100)
    """Softmax temperature; 0: greedy."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw among the smallest set of most probable tokens whose probability reaches this."""
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    """Draw among the k most probable tokens; 0: all."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Draw among tokens at least this fraction as probable as the most probable one."""
    repetition_penalty: float | None = Field(None, gt=0, le=100)
    """Above 1: tokens of the document become less probable."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of each token that the answer has."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtracted from the logit of each token as often as the answer has it."""
    logit_bias: dict[str, float] = Field({}, max_length=256)
    """Added to the logits of ids, from -100 to 100."""
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    """Answers to the prompt; each has its own copy of the memory."""
    seed: int | None = None
    """Seed of the draws; default: another one each time."""
    stop: Text | Annotated[list[Text], Field(max_length=MOST_STOPS)] = Field([])
    """Texts of at most `LONGEST_STOP` characters that end the answer and are not in it."""
    stop_token_ids: list[int] = Field([], max_length=64)
    """Ids that end the answer and are not in it."""
    ignore_eos: bool = False
    """Continue after the end of the text."""
    stream: bool = False
    """Send the answer token by token."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""
    session: str | None = None
    """The id of a session or response that this continues. The answer has a new id in the field `session`."""

    @field_validator("stop")
    @classmethod
    def _short(cls, stop: str | list[str]) -> str | list[str]:
        if any(len(text) > LONGEST_STOP for text in ([stop] if isinstance(stop, str) else stop)):
            raise PydanticCustomError("long", "a stop text may have at most {most} characters", {"most": LONGEST_STOP})
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class Completion(Generation):
    """The body of `/v1/completions`."""

    ignored = frozenset({"user", "metadata"})
    refused: ClassVar[dict[str, str]] = {"suffix": "the model reads from the beginning to the end"}

    prompt: Prompt
    """The text to continue, or ids, or a list of either."""
    max_tokens: int = Field(16, ge=0)
    """Most tokens of an answer; 0 only with `echo`."""
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)
    """Answers of which the n with the highest mean log-probability are returned."""
    logprobs: int | None = Field(None, ge=0, le=20)
    """Alternatives of each token whose log-probabilities are returned."""
    echo: bool = False
    """Return the prompt before the answer."""


TextType = Literal["text", "input_text", "output_text"]
TEXT_PARTS = get_args(TextType)


class TextPart(Body):
    """A part of a message."""

    ignored = frozenset({"annotations", "logprobs", "cache_control"})

    type: TextType
    text: Text


class ChatMessage(Body):
    """One turn of a dialogue."""

    ignored = frozenset({"name", "refusal", "annotations", "reasoning_content"})
    refused: ClassVar[dict[str, str]] = {
        "tool_calls": "the model calls no tools",
        "function_call": "the model calls no functions",
        "audio": "the model reads text",
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    @field_validator("content", mode="before")
    @classmethod
    def _texts(cls, content: Any) -> Any:
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") not in TEXT_PARTS:
                types = ", ".join(TEXT_PARTS)
                message = "the parts of a message must have one of the types {types}: pictures and sounds are not read"
                raise PydanticCustomError("unsupported_part", message, {"types": types})
        return content

    @property
    def text(self) -> str:
        """The text of all parts."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


TOOLS = "the model calls no tools"
HARMLESS = frozenset(
    {
        "user",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "parallel_tool_calls",
    }
)


def _without_unused_tools(values: Any) -> Any:
    """Tools are harmless where the client forbids their use, or the list is empty."""
    if isinstance(values, dict) and (values.get("tool_choice") == "none" or not values.get("tools")):
        return {name: value for name, value in values.items() if name not in ("tools", "tool_choice")}
    return values


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text"]


class ChatCompletion(Generation):
    """The body of `/v1/chat/completions`."""

    ignored = HARMLESS | {"metadata", "store", "reasoning_effort", "verbosity", "max_tokens_details"}
    refused: ClassVar[dict[str, str]] = {
        "tools": TOOLS,
        "tool_choice": TOOLS,
        "functions": TOOLS,
        "function_call": TOOLS,
        "audio": "the model writes text",
        "web_search_options": "the model has no access to the web",
        "prediction": "there is no speculative decoding",
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1)
    """Most tokens of the answer; the older name of `max_completion_tokens`."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """Most tokens of the answer."""
    logprobs: bool = False
    """Return the log-probability of each token."""
    top_logprobs: int | None = Field(None, ge=0, le=20)
    """Alternatives of each token; only with `logprobs`."""
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _tools(cls, values: Any) -> Any:
        return _without_unused_tools(values)


class ResponseItem(ChatMessage):
    """A message of `/v1/responses`."""

    ignored = ChatMessage.ignored | {"id", "status"}

    type: Literal["message"] = "message"


class TextFormat(Body):
    """The form of a response's text."""

    ignored = frozenset({"verbosity"})

    format: ResponseFormat | None = None


class Response(Body):
    """The body of `/v1/responses`."""

    ignored = HARMLESS | {"reasoning", "stream_options", "max_tool_calls"}
    refused: ClassVar[dict[str, str]] = {
        "tools": TOOLS,
        "tool_choice": TOOLS,
        "conversation": "continue a response by previous_response_id",
        "prompt": "there are no stored prompts",
    }

    model: str | None = None
    input: Text | Annotated[list[ResponseItem], Field(min_length=1, max_length=10_000)]
    """A text of the user, or messages."""
    instructions: Text | None = None
    """A system message before the input; not together with previous_response_id, because a memory cannot forget it."""
    previous_response_id: str | None = None
    """The response, or session, that this continues."""
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    seed: int | None = None
    stream: bool = False
    store: bool = True
    """Keep the response: it can be continued by its id."""
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        {}, max_length=16
    )
    text: TextFormat | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    include: list[Literal["message.output_text.logprobs"]] = []
    truncation: Literal["auto", "disabled"] = "disabled"
    """Without effect: the state never grows, and no input is cut."""
    background: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _tools(cls, values: Any) -> Any:
        return _without_unused_tools(values)


class InputTokens(Response):
    """The body of `/v1/responses/input_tokens`."""


class Embedding(Body):
    """The body of `/v1/embeddings`."""

    ignored = frozenset({"user"})

    model: str | None = None
    input: Prompt
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)


class Tokenize(Body):
    """The body of `/tokenize`."""

    model: str | None = None
    prompt: Text | None = None
    messages: list[ChatMessage] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Tokenize":
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one", "give one of prompt and messages")
        return self


class Detokenize(Body):
    """The body of `/detokenize`."""

    model: str | None = None
    tokens: Ids


class Feed(Body):
    """The body of `/v1/sessions` and `/v1/sessions/{id}/feed`."""

    model: str | None = None
    text: Text = ""
    """A text to read."""


class Inspect(Feed):
    """The body of `/v1/inspect`."""

    session: str | None = None
    """The document that the text continues."""


class Next(Body):
    """The body of `/v1/inspect/next`: what is taken from the memory, in one of three ways."""

    session: str
    all: bool = False
    """Everything."""
    start: int | None = None
    """Or the segments with the tokens from here,"""
    end: int | None = None
    """up to here."""
    layer: int | None = None
    """Or one entry: the number of its layer,"""
    place: int | None = None
    """its place there, from `/v1/inspect/entries`,"""
    gate: float | None = Field(default=None, ge=0, le=1)
    """and the write gate that it has instead; default: 0, without the entry."""


class Forget(Body):
    """The body of `/v1/inspect/forget`."""

    session: str
    start: int
    """The first token to forget; 0 begins the document."""
    end: int
    """The token after the last one."""


class ListEntries(Body):
    """The body of `/v1/inspect/entries`."""

    session: str
    layer: int
    """Number of the layer."""
    token: int | None = None
    """Only the entries that come from this token of the document."""


class EditEntry(Body):
    """The body of `/v1/inspect/edit`."""

    session: str
    layer: int
    """Number of the layer."""
    place: int
    """Of the entry, from `/v1/inspect/entries`."""
    gate: float = Field(default=0.0, ge=0, le=1)
    """The write gate that the entry then has; 0 deletes it."""


class PipelineCall(BaseModel):
    """The body of `/v1/pipelines/{name}`: the arguments of the pipeline."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    inputs: Any = None
    """The first argument of the pipeline."""
    parameters: dict[str, Any] = Field({}, max_length=32)
    """Its other arguments."""
