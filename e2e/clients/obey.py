"""Published Python clients against a limit: do they understand a refusal, and is the next try, made when told, served?

Usage: obey.py BASE_URL ROUNDS. Prints one JSON object a client. The API key of each client is its own name.
"""

import json
import re
import sys
import threading
import time
from importlib.metadata import version

import anthropic
import ollama
import openai

BASE, ROUNDS = sys.argv[1].rstrip("/"), int(sys.argv[2])
MODEL = "tiny"
# How often a client may be served before it meets a refusal.
PATIENCE = 200


def openai_client(retries):
    client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="key-of-openai-python", max_retries=retries)
    def ask():
        client.chat.completions.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "a"}])
    def understand(error):
        assert isinstance(error, openai.RateLimitError), repr(error)
        assert error.code == "rate_limit_exceeded" and error.type == "requests", (error.code, error.type)
        return int(error.response.headers["retry-after-ms"]) / 1000
    return ask, understand


def anthropic_client(retries):
    client = anthropic.Anthropic(base_url=BASE, api_key="key-of-anthropic-python", max_retries=retries)
    def ask():
        client.messages.create(model=MODEL, max_tokens=1, messages=[{"role": "user", "content": "a"}])
    def understand(error):
        assert isinstance(error, anthropic.RateLimitError), repr(error)
        assert error.body["error"]["type"] == "rate_limit_error", error.body
        return int(error.response.headers["retry-after-ms"]) / 1000
    return ask, understand


def ollama_client(_retries):
    client = ollama.Client(host=BASE, headers={"Authorization": "Bearer key-of-ollama-python"})
    def ask():
        client.generate(model=MODEL, prompt="a", options={"num_predict": 1})
    def understand(error):
        assert isinstance(error, ollama.ResponseError) and error.status_code == 429, repr(error)
        # Its errors carry no headers: the text alone says when to come back.
        return float(re.search(r"Retry in (?:about )?([0-9.]+)s\.", error.error).group(1))
    return ask, understand


def meet_refusal(ask, understand):
    for _ in range(PATIENCE):
        try:
            ask()
        except Exception as error:  # noqa: BLE001: whatever it is, `understand` judges it
            return understand(error)
    raise AssertionError(f"{PATIENCE} requests in a row, and none was refused")


def rounds(make):
    ask, understand = make(0)
    served, wrong = 0, []
    for _ in range(ROUNDS):
        time.sleep(meet_refusal(ask, understand))
        try:
            ask()
            served += 1
        except Exception as error:  # noqa: BLE001
            wrong.append(repr(error)[:300])
    return served, wrong


def tell(name, package, make, retries_itself):
    told = {"client": f"{name}-python", "version": version(package), "rounds": ROUNDS}
    try:
        told["served"], told["wrong"] = rounds(make)
        if retries_itself:
            ask, _ = make(5)
            for _ in range(10):
                ask()
            told["alone"] = 10
    except Exception as error:  # noqa: BLE001
        told["failed"] = repr(error)[:500]
    print(json.dumps(told), flush=True)


clients = [
    ("openai", "openai", openai_client, True),
    ("anthropic", "anthropic", anthropic_client, True),
    ("ollama", "ollama", ollama_client, False),
]
threads = [threading.Thread(target=tell, args=client) for client in clients]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
