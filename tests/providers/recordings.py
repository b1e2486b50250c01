"""One stream for each host, byte for byte as it would send it; made by us.

They follow what documentation, sources and issues say of each host: the order of its
chunks, the fields it adds and leaves out, its comments and its framing.
"""

from __future__ import annotations

import dataclasses

from holystream.events import Usage
from holystream.wire.sse import EventParser, LineSplitter

LIMIT = 1 << 20


@dataclasses.dataclass(frozen=True)
class Recording:
    body: bytes
    text: str
    usage: Usage | None = None
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str = "stop"
    model: str | None = None
    ended: bool = True
    """It has an end mark: [DONE]."""


def messages_of(body):
    """The events of a body, and the one that its end completes, if any."""
    splitter, parser = LineSplitter(LIMIT), EventParser(LIMIT)
    messages = parser.feed(splitter.feed(body).split(b"\n")[:-1])
    last = parser.close(splitter.rest)
    return messages if last is None else [*messages, last]


def frames(*data, end="\n\n", prefix="data: "):
    return "".join(f"{prefix}{each}{end}" for each in data).encode()


def counted(prompt, completion, **others):
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        **others,
    )


OPENAI_HEAD = (
    '{"id":"chatcmpl-Bx1","object":"chat.completion.chunk","created":1763000000,'
    '"model":"gpt-4.1-2025-04-14","service_tier":"default","system_fingerprint":"fp_1",'
)

OPENAI = Recording(
    frames(
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":"",'
        '"refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,'
        '"obfuscation":"9Z"}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,'
        '"finish_reason":null}],"usage":null,"obfuscation":"aPq3"}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{"content":"lo \\ud83d\\ude00"},'
        '"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":""}',
        OPENAI_HEAD + '"choices":[],"moderation":{"flagged":false},"usage":null}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{},"logprobs":null,'
        '"finish_reason":"stop"}],"usage":null,"obfuscation":"bb"}',
        OPENAI_HEAD + '"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,'
        '"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},'
        '"completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":0}},'
        '"obfuscation":""}',
        "[DONE]",
    ),
    "Hello \U0001f600",
    counted(9, 3, cached_tokens=4, reasoning_tokens=1),
    model="gpt-4.1-2025-04-14",
)

AZURE = Recording(
    frames(
        '{"choices":[],"created":0,"id":"","model":"","object":"",'
        '"prompt_filter_results":[{"prompt_index":0,"content_filter_results":'
        '{"hate":{"filtered":false,"severity":"safe"}}}]}',
        '{"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,'
        '"role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],'
        '"id":"chatcmpl-Az","model":"gpt-4o-2024-11-20","usage":null}',
        '{"choices":[{"content_filter_results":{"hate":{"filtered":false,"severity":'
        '"safe"}},"delta":{"content":"Hello"},"finish_reason":null,"index":0,'
        '"logprobs":null}],"id":"chatcmpl-Az","model":"gpt-4o-2024-11-20","usage":null}',
        '{"choices":[{"content_filter_offsets":{"check_offset":44,"start_offset":44,'
        '"end_offset":49},"content_filter_results":{},"finish_reason":null,"index":0}],'
        '"id":"","model":""}',
        '{"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop",'
        '"index":0,"logprobs":null}],"id":"chatcmpl-Az","model":"gpt-4o-2024-11-20"}',
        '{"choices":[],"id":"chatcmpl-Az","model":"gpt-4o-2024-11-20","usage":'
        '{"prompt_tokens":8,"completion_tokens":1,"total_tokens":9}}',
        "[DONE]",
    ),
    "Hello",
    counted(8, 1),
    model="gpt-4o-2024-11-20",
)

DEEPSEEK_HEAD = (
    '{"id":"6a7f","object":"chat.completion.chunk","created":1763000000,'
    '"model":"deepseek-v4-flash","system_fingerprint":"fp_d",'
)

DEEPSEEK = Recording(
    b": keep-alive\n\n" * 3
    + frames(
        DEEPSEEK_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant",'
        '"content":null,"reasoning_content":""},"logprobs":null,"finish_reason":null}]}',
        DEEPSEEK_HEAD + '"choices":[{"index":0,"delta":{"content":null,'
        '"reasoning_content":"A gree"},"logprobs":null,"finish_reason":null}]}',
        DEEPSEEK_HEAD + '"choices":[{"index":0,"delta":{"content":null,'
        '"reasoning_content":"ting."},"logprobs":null,"finish_reason":null}]}',
        DEEPSEEK_HEAD + '"choices":[{"index":0,"delta":{"content":"\u4f60\u597d",'
        '"reasoning_content":null},"logprobs":null,"finish_reason":null}]}',
        DEEPSEEK_HEAD + '"choices":[{"index":0,"delta":{"content":"",'
        '"reasoning_content":null},"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,'
        '"completion_tokens_details":{"reasoning_tokens":4},'
        '"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":3}}',
        "[DONE]",
    ),
    "\u4f60\u597d",
    counted(11, 5, reasoning_tokens=4, cached_tokens=8),
    reasoning="A greeting.",
    model="deepseek-v4-flash",
)

OPENROUTER_HEAD = (
    '{"id":"gen-176","provider":"Anthropic","model":"anthropic/claude-sonnet-4.5",'
    '"object":"chat.completion.chunk","created":1763000000,'
)

OPENROUTER = Recording(
    b": OPENROUTER PROCESSING\n\n" * 2
    + frames(
        OPENROUTER_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":'
        '"","reasoning":"Hm.","reasoning_details":[{"type":"reasoning.text",'
        '"text":"Hm."}]},"finish_reason":null,"native_finish_reason":null,'
        '"logprobs":null}]}',
        OPENROUTER_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant",'
        '"content":"Hello"},"finish_reason":null,"native_finish_reason":null}]}',
    )
    + b": OPENROUTER PROCESSING\n\n"
    + frames(
        OPENROUTER_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant",'
        '"content":""},"finish_reason":"stop","native_finish_reason":"end_turn"}]}',
        OPENROUTER_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant",'
        '"content":""},"finish_reason":null,"native_finish_reason":null}],'
        '"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,'
        '"cost":0.00009,"is_byok":false,"cost_details":{"upstream_inference_cost":null},'
        '"completion_tokens_details":{"reasoning_tokens":2}}}',
        "[DONE]",
    ),
    "Hello",
    counted(10, 4, reasoning_tokens=2),
    reasoning="Hm.",
    model="anthropic/claude-sonnet-4.5",
)

MISTRAL_HEAD = (
    '{"id":"m1","object":"chat.completion.chunk","created":1763000000,'
    '"model":"magistral-medium-latest",'
)

MISTRAL = Recording(
    frames(
        MISTRAL_HEAD
        + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        '"finish_reason":null}],"p":"abc"}',
        MISTRAL_HEAD + '"choices":[{"index":0,"delta":{"content":[{"type":"thinking",'
        '"thinking":[{"type":"text","text":"Hm."}],"closed":true}]},'
        '"finish_reason":null}]}',
        MISTRAL_HEAD + '"choices":[{"index":0,"delta":{"content":"Bonjour"},'
        '"finish_reason":null}],"p":"abcdefgh"}',
        MISTRAL_HEAD + '"choices":[{"index":0,"delta":{"content":"","tool_calls":null},'
        '"finish_reason":"model_length"}],"usage":{"prompt_tokens":7,'
        '"total_tokens":10,"completion_tokens":3}}',
        "[DONE]",
    ),
    "Bonjour",
    counted(7, 3),
    reasoning="Hm.",
    finish_reason="model_length",
    model="magistral-medium-latest",
)

VLLM_HEAD = (
    '{"id":"chatcmpl-8e","object":"chat.completion.chunk","created":1763000000,'
    '"model":"Qwen/Qwen3-8B",'
)

VLLM = Recording(
    frames(
        VLLM_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        '"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,'
        '"usage":{"prompt_tokens":5,"total_tokens":5,"completion_tokens":0}}',
        VLLM_HEAD + '"choices":[{"index":0,"delta":{"reasoning":"Hm."},'
        '"logprobs":null,"finish_reason":null,"token_ids":null}],'
        '"usage":{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}',
        VLLM_HEAD + '"choices":[{"index":0,"delta":{"content":"Hello"},'
        '"logprobs":null,"finish_reason":null,"token_ids":null}],'
        '"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}}',
        VLLM_HEAD + '"choices":[{"index":0,"delta":{"content":""},"logprobs":null,'
        '"finish_reason":"stop","stop_reason":151645,"token_ids":null}],'
        '"usage":{"prompt_tokens":5,"total_tokens":8,"completion_tokens":3}}',
        VLLM_HEAD + '"choices":[],"usage":{"prompt_tokens":5,"total_tokens":8,'
        '"completion_tokens":3}}',
        "[DONE]",
    ),
    "Hello",
    counted(5, 3),
    reasoning="Hm.",
    model="Qwen/Qwen3-8B",
)

LLAMA_HEAD = (
    '"created":1763000000,"id":"chatcmpl-L","model":"qwen3.gguf",'
    '"system_fingerprint":"b9478-1","object":"chat.completion.chunk"'
)

LLAMA = Recording(
    b":\n\n"
    + frames(
        '{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant",'
        '"content":null}}],' + LLAMA_HEAD + "}",
        '{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hel"}}],'
        + LLAMA_HEAD
        + "}",
    )
    + b":\n\n"
    + frames(
        '{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"lo"}}],'
        + LLAMA_HEAD
        + "}",
        '{"choices":[{"finish_reason":"length","index":0,"delta":{}}],'
        + LLAMA_HEAD
        + "}",
        '{"choices":[],'
        + LLAMA_HEAD
        + ',"usage":{"completion_tokens":2,"prompt_tokens":6,"total_tokens":8},'
        '"timings":{"prompt_n":6,"prompt_ms":12.5,"predicted_n":2}}',
        "[DONE]",
    ),
    "Hello",
    counted(6, 2),
    finish_reason="length",
    model="qwen3.gguf",
)

OLLAMA_HEAD = (
    '{"id":"chatcmpl-42","object":"chat.completion.chunk","created":1763000000,'
    '"model":"llama3.2","system_fingerprint":"fp_ollama",'
)

OLLAMA = Recording(
    frames(
        OLLAMA_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":'
        '"Hel"},"finish_reason":""}]}',
        OLLAMA_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":'
        '"lo"},"finish_reason":null}]}',
        OLLAMA_HEAD + '"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
        '"finish_reason":"stop"}]}',
        OLLAMA_HEAD + '"choices":[],"usage":{"prompt_tokens":26,"completion_tokens":2,'
        '"total_tokens":28}}',
        "[DONE]",
    ),
    "Hello",
    counted(26, 2),
    model="llama3.2",
)

HOLYSHEEP = Recording(
    frames(
        '{"id":"hs-rk-1","object":"chat.completion.chunk","model":"gemini-3-flash",'
        '"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"},'
        '"finish_reason":null}]}',
        '{"id":"hs-rk-1","object":"chat.completion.chunk","model":"gemini-3-flash",'
        '"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,'
        '"cost_usd":0.0001,"latency_ms":31}}',
        "[DONE]",
    ),
    "Hello",
    counted(4, 2),
    model="gemini-3-flash",
)

# litellm's proxy: no finish_reason key, and its usage beside an empty choice.
LITELLM = Recording(
    frames(
        '{"id":"c1","created":1,"model":"m","object":"chat.completion.chunk",'
        '"choices":[{"index":0,"delta":{"content":"Hello","role":"assistant"}}]}',
        '{"id":"c1","created":1,"model":"m","object":"chat.completion.chunk",'
        '"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}',
        '{"id":"c1","created":1,"model":"m","object":"chat.completion.chunk",'
        '"choices":[{"index":0,"delta":{}}],"usage":{"completion_tokens":1,'
        '"prompt_tokens":3,"total_tokens":4,"cost":0.1}}',
        "[DONE]",
        end="\r\n\r\n",
    ),
    "Hello",
    counted(3, 1),
    model="m",
)

# transformers serve: usage on the finish chunk, no [DONE], no blank line at the end;
# and no space behind the colon.
TRANSFORMERS = Recording(
    frames(
        '{"id":"r","object":"chat.completion.chunk","model":"m","choices":[{"delta":'
        '{"role":"assistant"},"index":0}],"system_fingerprint":""}',
        '{"id":"r","object":"chat.completion.chunk","model":"m","choices":[{"delta":'
        '{"content":"Hello"},"index":0}],"system_fingerprint":""}',
        '{"id":"r","object":"chat.completion.chunk","model":"m","choices":[{"delta":{},'
        '"finish_reason":"stop","index":0}],"usage":{"prompt_tokens":2,'
        '"completion_tokens":1,"total_tokens":3}}',
        prefix="data:",
    ).removesuffix(b"\n\n"),
    "Hello",
    counted(2, 1),
    model="m",
    ended=False,
)

# A refusal in its own field, an audio update without a finish reason, bare CRs, and a
# [DONE] that no blank line ends.
REFUSAL = Recording(
    frames(
        OPENAI_HEAD
        + '"choices":[{"index":0,"delta":{"role":"assistant","content":null,'
        '"refusal":"I can"},"finish_reason":null}]}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{"refusal":"not."},'
        '"finish_reason":null}]}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{"audio":{"expires_at":7}}}]}',
        OPENAI_HEAD + '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        "[DONE]",
        end="\r\r",
    ).removesuffix(b"\r\r"),
    "",
    refusal="I cannot.",
    model="gpt-4.1-2025-04-14",
)

OF_A_HOST = {
    "holysheep": HOLYSHEEP,
    "openai": OPENAI,
    "azure": AZURE,
    "deepseek": DEEPSEEK,
    "openrouter": OPENROUTER,
    "mistral": MISTRAL,
    "vllm": VLLM,
    "llama.cpp": LLAMA,
    "ollama": OLLAMA,
    "openai-compatible": TRANSFORMERS,
}

ALL = {**OF_A_HOST, "litellm": LITELLM, "refusal": REFUSAL}
