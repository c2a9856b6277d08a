"""What the routes answer, for the OpenAPI document. Bodies are written by hand, so FastAPI cannot know them.

Nothing is built from these classes; the tests check real answers against the document that they make. Objects are open:
clients of these protocols ignore what they do not know.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class OpenAIErrorBody(BaseModel):
    """What went wrong; `param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """Every refusal, but of Anthropic's routes."""

    error: OpenAIErrorBody


class AnthropicErrorBody(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """Every refusal of Anthropic's routes."""

    type: Literal["error"]
    error: AnthropicErrorBody
    request_id: str | None


class OpenAIModel(BaseModel):
    """A model, as OpenAI describes it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModelList(BaseModel):
    """The models, as OpenAI lists them."""

    object: Literal["list"]
    data: list[OpenAIModel]


class AnthropicModel(BaseModel):
    """A model, as Anthropic describes it."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class AnthropicModelList(BaseModel):
    """The models, as Anthropic lists them."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str
    last_id: str


class PromptTokensDetails(BaseModel):
    """Of the prompt."""

    cached_tokens: int  # that were found computed


class CompletionUsage(BaseModel):
    """Tokens of a request and its answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class EngineDecision(BaseModel):
    """What the engine decided about an answer, and why."""

    at: float  # seconds since it came
    what: Literal["queued", "admitted", "preempted"]
    why: str


class FunctionAnswer(BaseModel):
    """The function that is called; `arguments` is JSON."""

    name: str
    arguments: str


class ToolCallAnswer(BaseModel):
    """A call that the client is asked to make."""

    id: str
    type: Literal["function"]
    function: FunctionAnswer


class UsedServerTool(BaseModel):
    """A call of a tool that the server ran, once it ended."""

    id: str
    name: str
    arguments: str
    status: Literal["ok", "error", "withheld"]
    content: str
    seconds: float


class ServerToolDescription(BaseModel):
    """A tool that the server runs."""

    name: str
    description: str
    parameters: dict[str, Any]


class ServerToolList(BaseModel):
    """The tools that a request may allow in `server_tools`."""

    object: Literal["list"]
    data: list[ServerToolDescription]


class ChatMessageAnswer(BaseModel):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    server_tools: list[UsedServerTool] = Field(default=[], description="Only where tools of the server were used.")
    reasoning_content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


class GuardState(BaseModel):
    """What the guard did to an answer: why it ended it, and which of its detectors gave no result."""

    category: str
    degraded: list[str]


class ChatChoice(BaseModel):
    """One answer to a conversation."""

    index: int
    message: ChatMessageAnswer
    logprobs: dict[str, Any] | None
    finish_reason: str
    guard: GuardState | None = None  # only where it did something, or could not


class ChatCompletion(BaseModel):
    """The answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    explanation: list[list[EngineDecision]] | None = None  # one list a choice, if asked for


class TextChoice(BaseModel):
    """One continuation of a text."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: str
    guard: GuardState | None = None  # only where it did something, or could not


class TextCompletion(BaseModel):
    """The continuations of a text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: CompletionUsage
    explanation: list[list[EngineDecision]] | None = None  # one list a choice, if asked for


class MessageUsage(BaseModel):
    """Tokens of a request and its answer, as Anthropic counts them."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class MessageBlock(BaseModel):
    """A block of an answer, by its type."""

    type: str


class Message(BaseModel):
    """Anthropic's answer to a conversation."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[MessageBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
    stop_sequence: str | None
    usage: MessageUsage
    guard: GuardState | None = None  # only where it did something, or could not


class MessageTokenCount(BaseModel):
    """The length of a prompt."""

    input_tokens: int


class ResponseUsage(BaseModel):
    """Tokens of a request and its response."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponseItem(BaseModel):
    """An item of a response, by its type."""

    type: str
    id: str
    status: Literal["completed", "incomplete"]


class Response(BaseModel):
    """OpenAI's response object."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[ResponseItem]
    error: None
    incomplete_details: dict[str, str] | None
    guard: GuardState | None = None  # only where it did something, or could not
    store: Literal[False]
    usage: ResponseUsage


class EmbeddingUsage(BaseModel):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """The vector of one text: its values, or base64 of them as little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(BaseModel):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModerationResult(BaseModel):
    """What the guard says of one text."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]
    guard: dict[str, Any]


class Moderation(BaseModel):
    """What the guard says of each text."""

    id: str
    model: str
    results: list[ModerationResult]


class Tokens(BaseModel):
    """The token ids of a text or conversation, with `token_strs` if they were asked for."""

    count: int
    max_model_len: int
    tokens: list[int]


class Detokenized(BaseModel):
    """The text of token ids."""

    prompt: str


class Health(BaseModel):
    """How the server stands, and why if it is not well."""

    status: str
