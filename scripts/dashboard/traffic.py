"""Mixed requests for some minutes, with a failure in the middle: openai answers 503 or not at all, then asks to be left alone,
and meanwhile the fallbacks have too many requests for a while. Later anthropic is overloaded."""

import json
import random
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

PER_SECOND = 14
# How long a service takes for its first token, in milliseconds.
FIRST = {"openai": (90, 260), "qwen": (120, 320), "local": (40, 90), "anthropic": (130, 330), "bedrock": (170, 380)}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CHAT = "/v1/chat/completions"


def send(ports, before, seconds):
    """`before`: as many seconds of good days come first."""
    random.seed(5)
    begun = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        while (now := time.monotonic() - begun - before) < seconds:
            pool.submit(request, random.choice(ports), now / seconds)
            time.sleep(random.expovariate(PER_SECOND))


def request(port, when):
    """`when`: which part of the whole time is over."""
    path, headers, body = random.choices([chat, choices, messages, embeddings, unread, refused], [55, 12, 18, 12, 2, 1])[0]()
    for service in FIRST:
        headers[f"x-mock-{service}"] = behaviour(service, when, body.get("stream"))
    text = json.dumps(body)[: -2 if body.get("broken") else None]
    url = f"http://127.0.0.1:{port}{path}"
    asked = urllib.request.Request(url, text.encode(), {"content-type": "application/json", **headers})
    try:
        with DIRECT.open(asked, timeout=30) as answer:
            answer.read()
    except (urllib.error.URLError, OSError):
        # It is the gateway that counts.
        pass


def chat():
    stream = random.random() < 0.6
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    return CHAT, {}, {"model": "gpt-4o", "stream": stream, "messages": [], **usage}


def choices():
    path, headers, body = chat()
    return path, headers | {"x-demo": "choices"}, body


def messages():
    return "/v1/messages", {}, {"model": "claude", "stream": random.random() < 0.6, "max_tokens": 100, "messages": []}


def embeddings():
    return "/v1/embeddings", {}, {"model": "embed-3", "input": "Hello"}


def unread():
    header = random.choice([{"content-type": "text/plain"}, {"content-encoding": "gzip"}])
    return CHAT, header, {"model": "gpt-4o"}


def refused():
    denied = {"model": "gpt-4o", "models": ["anthropic:claude"], "messages": []}
    return random.choice([
        (CHAT, {}, {"model": "gpt-4o", "broken": True}),
        (CHAT, {"x-demo": "choices", "x-consumer": "guest"}, denied),
    ])


def behaviour(service, when, stream):
    """What the mock is told: tests/mock/README.md."""
    fault = pick(faults(service, when))
    if fault:
        return fault
    first = random.randint(*FIRST[service])
    return f"first={first},chunks=8,gap={random.randint(8, 25)}" if stream else f"delay={first + random.randint(50, 250)}"


def faults(service, when):
    """How probable each is."""
    if service == "openai" and 0.30 < when < 0.42:
        return {"503": 0.6, "reset": 0.1, "silence": 0.12, "429": 0.05}
    if service == "openai" and 0.42 <= when < 0.58:
        return {"503,retry-after=12": 0.8}
    if service == "qwen" and 0.46 < when < 0.56:
        return {"429": 0.45}
    if service == "local" and 0.46 < when < 0.56:
        return {"503": 0.3}
    if service == "anthropic" and 0.75 < when < 0.83:
        return {"529": 0.5}
    return {"503": 0.006, "429": 0.008, "reset": 0.003}


def pick(faults):
    chance = random.random()
    for fault, probability in faults.items():
        if chance < probability:
            return fault
        chance -= probability
    return None
