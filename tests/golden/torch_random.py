#!/usr/bin/env python3
"""Golden numbers for TorchRandom: what PyTorch's CPU generator draws.

    python tests/golden/torch_random.py

Made with PyTorch 2.15.0 on an x86-64 CPU with AVX2 (normal numbers of 16 elements and more come from a
vectorised kernel, whose last bits an older CPU may round differently). Writes data/torch_random.json:
cases with the seed and, in the order of drawing, the operations. f32 results are given as their bits. Of more
than 64 numbers only the first and last four and a fingerprint are kept: the sum of (i + 1) * bits_i mod 2^64.
"""
import json
import pathlib

import numpy as np
import torch

OUT = pathlib.Path(__file__).parent / "data" / "torch_random.json"


def bits(tensor):
    flat = tensor.detach().reshape(-1)
    if flat.dtype == torch.float32:
        return flat.numpy().view(np.uint32).astype(np.uint64)
    return flat.numpy().astype(np.uint64)


def result(tensor):
    b = bits(tensor)
    if b.size <= 64:
        return {"bits": [int(x) for x in b]}
    index = np.arange(1, b.size + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        total = int((index * b).sum(dtype=np.uint64))
    return {"first": [int(x) for x in b[:4]], "last": [int(x) for x in b[-4:]], "fingerprint": str(total)}


def draw(op):
    kind, n = op["op"], op["n"]
    if kind == "rand":
        return torch.rand(n)
    if kind == "uniform":
        return torch.empty(n).uniform_(op["low"], op["high"])
    if kind == "randn":
        return torch.randn(n)
    if kind == "normal":
        return torch.empty(n).normal_(op["mean"], op["std"])
    if kind == "randint":
        return torch.randint(op["low"], op["high"], (n,))
    if kind == "randperm":
        return torch.randperm(n)
    if kind == "linear":  # n = out features
        layer = torch.nn.Linear(op["in"], n, bias=op["bias"])
        parts = [layer.weight.reshape(-1)] + ([layer.bias] if op["bias"] else [])
        return torch.cat(parts)
    if kind == "embedding":
        return torch.nn.Embedding(n, op["width"]).weight
    raise ValueError(kind)


CASES = [
    (123, [{"op": "rand", "n": 8}, {"op": "rand", "n": 100_003}]),
    (0, [{"op": "randn", "n": 5}, {"op": "randn", "n": 4}, {"op": "randn", "n": 1}, {"op": "rand", "n": 3}]),
    (123, [{"op": "randn", "n": 15}, {"op": "randn", "n": 16}, {"op": "randn", "n": 17}, {"op": "randn", "n": 31},
           {"op": "randn", "n": 40}, {"op": "randn", "n": 200_000}, {"op": "randn", "n": 100_007}]),
    (7, [{"op": "normal", "n": 9, "mean": 0.1, "std": 0.02}, {"op": "normal", "n": 33, "mean": -1.3, "std": 0.7},
         {"op": "normal", "n": 5000, "mean": 0.0, "std": 0.02}]),
    (42, [{"op": "uniform", "n": 40, "low": -0.3, "high": 0.7}, {"op": "uniform", "n": 9999, "low": 2, "high": 5}]),
    (123, [{"op": "randint", "n": 20, "low": 0, "high": 10}, {"op": "randint", "n": 20, "low": -5, "high": 50257},
           {"op": "randint", "n": 10, "low": 0, "high": 2**28 - 1}, {"op": "randint", "n": 10, "low": 0, "high": 2**28},
           {"op": "randint", "n": 10, "low": 0, "high": 2**31}, {"op": "randint", "n": 10, "low": 0, "high": 2**32},
           {"op": "randint", "n": 10, "low": 0, "high": 2**40}, {"op": "randint", "n": 1000, "low": 0, "high": 2**62}]),
    (123, [{"op": "randperm", "n": 1}, {"op": "randperm", "n": 10}, {"op": "randperm", "n": 60},
           {"op": "randperm", "n": 30_000}, {"op": "randperm", "n": 100_000}]),
    (123, [{"op": "linear", "n": 2, "in": 3, "bias": True}, {"op": "linear", "n": 30, "in": 7, "bias": False},
           {"op": "embedding", "n": 6, "width": 3}, {"op": "embedding", "n": 3, "width": 5},
           {"op": "linear", "n": 96, "in": 768, "bias": True}]),
    (2**31 + 5, [{"op": "rand", "n": 4}]),
    (2**40 + 9, [{"op": "rand", "n": 4}, {"op": "randn", "n": 20}]),
]


def main():
    cases = []
    for seed, ops in CASES:
        torch.manual_seed(seed)
        cases.append({"seed": seed, "draws": [{**op, **result(draw(op))} for op in ops]})
    OUT.write_text(json.dumps({"torch": torch.__version__, "cases": cases}, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
