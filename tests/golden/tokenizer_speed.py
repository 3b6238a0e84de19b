#!/usr/bin/env python3
"""Times tiktoken and Hugging Face's tokenizers on tinyshakespeare.txt with GPT-2's vocabulary, for comparison with
`LLM_DATA=FOLDER build/cpu/bin/ch02_tokenizer_bench --benchmark_filter=gpt2`.

    python tests/golden/tokenizer_speed.py FOLDER
"""
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false" if "--one" in sys.argv else "true"
os.environ.setdefault("RAYON_NUM_THREADS", "2")
import tokenizers  # noqa: E402

from tokenizer import to_tiktoken  # noqa: E402


def best(name, work, size, rounds=7):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    times.sort()
    print(f"{name:44} {size / times[len(times) // 2] / 1e6:8.1f} MB/s (median), {size / times[0] / 1e6:8.1f} (best)")


def main():
    data = pathlib.Path(sys.argv[1])
    text = (data / "tinyshakespeare.txt").read_text()
    size = len(text.encode())
    parts, begin = [], 0  # about 1 kB each, cut before a space behind a letter
    while begin < len(text):
        end = min(begin + 1000, len(text))
        while end < len(text) and not (text[end] == " " and text[end - 1].isalpha()):
            end += 1
        parts.append(text[begin:end])
        begin = end
    vocab = json.loads((data / "gpt2/vocab.json").read_text())
    tik = to_tiktoken("gpt2", vocab, "<|endoftext|>")
    hugging = tokenizers.ByteLevelBPETokenizer(str(data / "gpt2/vocab.json"), str(data / "gpt2/merges.txt"))
    ids = tik.encode_ordinary(text)
    assert len(ids) == 338025 and ids == hugging.encode(text).ids
    best("tiktoken encode_ordinary, 1 thread", lambda: tik.encode_ordinary(text), size)
    best("tiktoken encode_ordinary_batch, 2 threads", lambda: tik.encode_ordinary_batch(parts, num_threads=2), size)
    best("tokenizers encode, 1 thread", lambda: hugging.encode(text), size)
    best("tokenizers encode_batch, 2 threads", lambda: hugging.encode_batch(parts), size)
    best("tokenizers encode_batch_fast, 2 threads", lambda: hugging._tokenizer.encode_batch_fast(parts), size)
    best("tiktoken decode_bytes", lambda: tik.decode_bytes(ids), size)


if __name__ == "__main__":
    main()
