"""Talks to a simulator with the official SDKs. Arguments: OpenAI base URL, Anthropic base URL."""

import json
import sys

import anthropic
import openai

OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
ANTHROPIC_TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
ARGUMENTS = [{"city": "Paris"}, {"city": "Oslo", "days": 3}]


def equal(expected, actual):
    assert expected == actual, f"expected {expected!r}, got {actual!r}"


def user(text):
    return [{"role": "user", "content": text}]


def check_openai(url):
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    chat = client.chat.completions
    equal(["sim/fast", "sim/best"], [model.id for model in client.models.list()])

    answer = chat.create(model="sim/fast", messages=user("hello"))
    equal("You said: hello", answer.choices[0].message.content)
    equal("stop", answer.choices[0].finish_reason)
    equal((2, 4, 6), (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens))
    equal(0, answer.usage.prompt_tokens_details.cached_tokens)

    stream = chat.create(model="sim/fast", messages=user("hello"), stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    equal("You said: hello", "".join(c.choices[0].delta.content or "" for c in chunks if c.choices))
    equal(4, chunks[-1].usage.completion_tokens)

    # The SDK's own accumulator, which also checks the order of indexes.
    conversation = user("weather?")
    with chat.stream(model="sim/fast", messages=conversation, tools=[OPENAI_TOOL]) as events:
        done = [e.arguments for e in events if e.type == "tool_calls.function.arguments.done"]
        final = events.get_final_completion().choices[0]
    equal(ARGUMENTS, [json.loads(arguments) for arguments in done])
    equal("tool_calls", final.finish_reason)
    equal(ARGUMENTS, [json.loads(call.function.arguments) for call in final.message.tool_calls])

    whole = chat.create(model="sim/fast", messages=conversation, tools=[OPENAI_TOOL]).choices[0].message
    conversation.append(whole.model_dump(exclude_none=True))
    for call, result in zip(whole.tool_calls, ["18 C", "4 C"]):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = chat.create(model="sim/fast", messages=conversation, tools=[OPENAI_TOOL])
    equal("Results: weather=18 C;weather=4 C;", answer.choices[0].message.content)

    try:
        chat.create(model="sim/fast", messages=user("limited"))
        raise AssertionError("no rate limit")
    except openai.RateLimitError as error:
        equal((429, "rate_limit_exceeded"), (error.status_code, error.code))
    try:
        chat.create(model="sim/fast", messages=[{"role": "tool", "tool_call_id": "x", "content": ""}])
        raise AssertionError("orphan accepted")
    except openai.BadRequestError as error:
        equal("invalid_request_error", error.type)
    answer = client.with_options(max_retries=1).chat.completions.create(model="sim/fast", messages=user("flaky"))
    equal("You said: flaky", answer.choices[0].message.content)


def check_anthropic(url):
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    common = {"model": "sim/best", "max_tokens": 100}
    equal(["sim/fast", "sim/best"], [model.id for model in client.models.list()])

    answer = client.messages.create(messages=user("hello"), **common)
    equal("You said: hello", answer.content[0].text)
    equal(("end_turn", 2, 4), (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens))

    with client.messages.stream(messages=user("hello"), **common) as stream:
        equal("You said: hello", "".join(stream.text_stream))
        equal(4, stream.get_final_message().usage.output_tokens)

    conversation = user("weather?")
    with client.messages.stream(messages=conversation, tools=[ANTHROPIC_TOOL], **common) as stream:
        final = stream.get_final_message()
    equal(["text", "tool_use", "tool_use"], [block.type for block in final.content])
    equal(ARGUMENTS, [block.input for block in final.content[1:]])
    equal("tool_use", final.stop_reason)

    whole = client.messages.create(messages=conversation, tools=[ANTHROPIC_TOOL], **common)
    equal(ARGUMENTS, [block.input for block in whole.content[1:]])
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": result}
        for block, result in zip(whole.content[1:], ["18 C", "4 C"])
    ]
    conversation += [{"role": "assistant", "content": whole.content}, {"role": "user", "content": results}]
    answer = client.messages.create(messages=conversation, tools=[ANTHROPIC_TOOL], **common)
    equal("Results: weather=18 C;weather=4 C;", answer.content[0].text)

    try:
        client.messages.create(messages=user("limited"), **common)
        raise AssertionError("no rate limit")
    except anthropic.RateLimitError as error:
        equal((429, "rate_limit_error"), (error.status_code, error.body["error"]["type"]))
    try:
        client.messages.create(messages=conversation[:2], **common)
        raise AssertionError("unanswered tool_use accepted")
    except anthropic.BadRequestError as error:
        equal("invalid_request_error", error.body["error"]["type"])
    answer = client.with_options(max_retries=1).messages.create(messages=user("flaky"), **common)
    equal("You said: flaky", answer.content[0].text)


check_openai(sys.argv[1])
check_anthropic(sys.argv[2])
print("all checks passed")
