#!/usr/bin/env python3
"""Talks to `ch07_finetuning serve` as other programs do: with the public `openai` package (PyPI).

    python openai_client.py [--url http://127.0.0.1:8080] [--prompt TEXT]

Asks for the models, for completions and chat answers, whole and streamed, eight at once, and for things that are
refused; every answer is checked, and the process fails with the first that is wrong. By hand; not part of the tests.
"""
import argparse
import concurrent.futures
import time

import openai


def expect(condition, what):
    if not condition:
        raise SystemExit(f"wrong: {what}")
    print(f"ok: {what}")


def streamed_completion(client, model, prompt, **options):
    text, usage = "", None
    for chunk in client.completions.create(model=model, prompt=prompt, stream=True,
                                           stream_options={"include_usage": True}, **options):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.text
    return text, usage


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--prompt", default="Once upon a time")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.url + "/v1", api_key="none", max_retries=0, timeout=60)

    models = [m.id for m in client.models.list()]
    expect(len(models) == 1, f"one model: {models}")
    model = models[0]
    expect(client.models.retrieve(model).id == model, "the model by its name")

    greedy = {"temperature": 0, "max_tokens": 40}
    whole = client.completions.create(model=model, prompt=args.prompt, **greedy)
    print("   ", repr(args.prompt + whole.choices[0].text))
    expect(whole.choices[0].finish_reason in ("stop", "length"), "a completion with a reason to end")
    expect(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, "usage adds up")
    text, usage = streamed_completion(client, model, args.prompt, **greedy)
    expect(text == whole.choices[0].text, "the same text in a stream")
    expect(usage.completion_tokens == whole.usage.completion_tokens, "and the same usage")

    two = client.completions.create(model=model, prompt=[args.prompt, "The"], n=2, seed=5, max_tokens=8)
    again = client.completions.create(model=model, prompt=[args.prompt, "The"], n=2, seed=5, max_tokens=8)
    expect(len(two.choices) == 4, "two prompts, two answers each")
    expect([c.text for c in two.choices] == [c.text for c in again.choices], "a seed gives the same answers again")

    messages = [{"role": "user", "content": args.prompt}]
    answer = client.chat.completions.create(model=model, messages=messages, **greedy).choices[0].message
    expect(answer.role == "assistant", "a chat's answer is the assistant's")
    pieces = client.chat.completions.create(model=model, messages=messages, stream=True, **greedy)
    expect("".join(p.choices[0].delta.content or "" for p in pieces) == answer.content, "and the same in a stream")

    prompts = [args.prompt + " " * i for i in range(8)]
    alone = [streamed_completion(client, model, p, **greedy) for p in prompts]
    begin = time.time()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda p: streamed_completion(client, model, p, **greedy), prompts))
    tokens = sum(usage.completion_tokens for _, usage in together)
    expect([t for t, _ in together] == [t for t, _ in alone], "eight streams at once say what eight single runs say")
    print(f"    {tokens / (time.time() - begin):.0f} tokens per second")

    for what, kind, ask in [
        ("another model", openai.NotFoundError, lambda: client.completions.create(model="gpt-0", prompt="x")),
        ("a negative temperature", openai.BadRequestError,
         lambda: client.completions.create(model=model, prompt="x", temperature=-1)),
        ("a prompt beyond the context", openai.BadRequestError,
         lambda: client.completions.create(model=model, prompt="word " * 100_000)),
        ("tools", openai.BadRequestError,
         lambda: client.chat.completions.create(model=model, messages=messages, tools=[
             {"type": "function", "function": {"name": "f"}}])),
    ]:
        try:
            ask()
        except kind as error:
            expect(error.status_code in (400, 404), f"{what} is refused: {error.message}")
        else:
            raise SystemExit(f"wrong: {what} was not refused")

    stream = client.completions.create(model=model, prompt=args.prompt, stream=True, max_tokens=1000)
    next(iter(stream))
    stream.close()
    expect(client.models.retrieve(model).id == model, "after hanging up in mid-stream the server goes on")


if __name__ == "__main__":
    main()
