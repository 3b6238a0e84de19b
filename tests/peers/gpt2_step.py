#!/usr/bin/env python3
"""The peer of `ch05_pretraining bench`: one training step of GPT-2 in PyTorch 2, tuned for a CPU.

Forward, backward and AdamW in float32 on random tokens. Tuned: the thread count fixed, the vocabulary padded to
50304, gradients set to None, the fused CPU AdamW, scaled_dot_product_attention, no logits kept beyond the loss.
`--plain` is PyTorch as it comes: vocabulary 50257, default AdamW. An allocator such as jemalloc goes into
LD_PRELOAD; `--malloc` asks glibc (through environment variables, restarting itself) never to give memory back,
which does the same for page faults.

    python gpt2_step.py [--batch 4] [--tokens 64] [--steps 10] [--threads 2] [--plain] [--malloc]

Prints one JSON line with the median milliseconds of a step. Needs PyTorch; not part of the build or of the tests.
"""
import argparse
import json
import os
import statistics
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--malloc", action="store_true")
    args = parser.parse_args()
    if args.malloc and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        os.environ.update(MALLOC_TRIM_THRESHOLD_="100000000000", MALLOC_MMAP_THRESHOLD_="100000000000",
                          MALLOC_TOP_PAD_="268435456")
        os.execv(sys.executable, [sys.executable] + sys.argv)

    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)

    class Block(nn.Module):
        def __init__(self, C, H):
            super().__init__()
            self.H = H
            self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
            self.qkv, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
            self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

        def forward(self, x):
            B, T, C = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(C, dim=2)
            q, k, v = (t.view(B, T, self.H, C // self.H).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self, V, S, L, H, C):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, C), nn.Embedding(S, C)
            self.blocks = nn.ModuleList(Block(C, H) for _ in range(L))
            self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, V, bias=False)
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)
            self.tokens.weight = self.head.weight

        def forward(self, x, y):
            h = self.tokens(x) + self.positions.weight[: x.shape[1]]
            for block in self.blocks:
                h = block(h)
            logits = self.head(self.norm(h))
            return F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))

    V = args.vocabulary if args.plain else (args.vocabulary + 63) // 64 * 64
    model = Gpt(V, 1024, args.layers, args.heads, args.channels)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    other = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}],
        lr=1e-4, betas=(0.9, 0.95), fused=None if args.plain else True)
    x = torch.randint(args.vocabulary, (args.batch, args.tokens))
    y = torch.randint(args.vocabulary, (args.batch, args.tokens))

    parts = {"forward": [], "backward": [], "adamw": [], "step": []}
    for step in range(args.steps + 2):
        t0 = time.perf_counter()
        loss = model(x, y)
        t1 = time.perf_counter()
        loss.backward()
        t2 = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        t3 = time.perf_counter()
        if step >= 2:  # the first steps allocate
            for name, seconds in zip(parts, (t1 - t0, t2 - t1, t3 - t2, t3 - t0)):
                parts[name].append(1e3 * seconds)
    print(json.dumps({"what": f"PyTorch {torch.__version__}" + (" plain" if args.plain else " tuned"),
                      "batch": args.batch, "tokens": args.tokens, "threads": args.threads, "vocabulary": V,
                      "median_ms": {k: round(statistics.median(v), 1) for k, v in parts.items()}}))


if __name__ == "__main__":
    main()
