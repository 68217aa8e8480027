"""Calls a gateway with the real SDKs, and prints what a program that uses them sees.

    client.py openai|anthropic BASE_URL < calls

Each line of the input is a call as JSON: {"call": NAME, "model": NAME, "headers": {…}, "body": {…}}, where `body` goes into
the body of the request beside what the SDK writes itself. Each line of the output is what came of it as JSON:
{"model", "text", "chunks", "headers"}, or {"error", "status", "message", "headers"} for an exception.
"""

import json
import sys


def openai_client(base_url):
    import openai

    return openai.OpenAI(base_url=base_url + "/v1", api_key="the-client-key", max_retries=0, timeout=60)


def anthropic_client(base_url):
    import anthropic

    return anthropic.Anthropic(base_url=base_url, api_key="the-client-key", max_retries=0, timeout=60)


MESSAGES = [{"role": "user", "content": "Hello"}]


def chat(client, **request):
    raw = client.chat.completions.with_raw_response.create(messages=MESSAGES, **request)
    answer = raw.parse()
    return raw, answer.model, [answer.choices[0].message.content]


def chat_stream(client, **request):
    raw = client.chat.completions.with_raw_response.create(messages=MESSAGES, stream=True, **request)
    chunks = list(raw.parse())
    return raw, chunks[0].model, [chunk.choices[0].delta.content or "" for chunk in chunks]


def embeddings(client, **request):
    raw = client.embeddings.with_raw_response.create(input=["Hello", "there"], **request)
    answer = raw.parse()
    return raw, answer.model, [str(item.embedding) for item in answer.data]


def responses(client, **request):
    raw = client.responses.with_raw_response.create(input="Hello", **request)
    answer = raw.parse()
    return raw, answer.model, [answer.output_text]


def responses_stream(client, **request):
    raw = client.responses.with_raw_response.create(input="Hello", stream=True, **request)
    events = list(raw.parse())
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    return raw, events[-1].response.model, deltas


def messages(client, **request):
    raw = client.messages.with_raw_response.create(messages=MESSAGES, max_tokens=9, **request)
    answer = raw.parse()
    return raw, answer.model, [answer.content[0].text]


def messages_stream(client, **request):
    raw = client.messages.with_raw_response.create(messages=MESSAGES, max_tokens=9, stream=True, **request)
    events = list(raw.parse())
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    return raw, events[0].message.model, deltas


def outcome(client, call):
    try:
        raw, model, chunks = globals()[call["call"]](
            client, model=call["model"], extra_headers=call["headers"], extra_body=call.get("body")
        )
    except Exception as error:  # noqa: BLE001 - whatever a program could see
        kinds = [kind.__name__ for kind in type(error).__mro__]
        status = getattr(error, "status_code", None)
        headers = dict(error.response.headers) if status else {}
        return {"error": kinds, "status": status, "message": str(error), "headers": headers}
    return {"model": model, "text": "".join(chunks), "chunks": len(chunks), "headers": dict(raw.headers)}


def main():
    kind, base_url = sys.argv[1:]
    client = {"openai": openai_client, "anthropic": anthropic_client}[kind](base_url)
    for line in sys.stdin:
        print(json.dumps(outcome(client, json.loads(line))), flush=True)


main()
