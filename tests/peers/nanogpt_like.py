#!/usr/bin/env python3
"""The peer of the tinyshakespeare comparison: nanoGPT's small CPU run, in eager PyTorch 2.

Character level, 4 layers, 4 heads, 128 channels, context 64, batch 12, 2,000 steps, no dropout, no biases,
learning rate 1e-3 to 1e-4 with 100 steps of warm-up, AdamW (0.9, 0.99), weight decay 0.1, clipping at 1: what
nanoGPT's README gives for a computer without a GPU, with its choices (tied head, initialisation, random-offset
batches, scaled_dot_product_attention, torch.compile off). The model is written here anew.

    python nanogpt_like.py tinyshakespeare.txt [--threads 2] [--steps 2000] [--fused]

Prints one JSON line: seconds of the training steps alone, milliseconds per step (median), and the loss over the
whole validation text. Needs PyTorch; not part of the build or of the tests.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels, bias=False)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.norm2 = nn.LayerNorm(channels, bias=False)
        self.up = nn.Linear(channels, 4 * channels, bias=False)
        self.down = nn.Linear(4 * channels, channels, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(C, dim=2)
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, vocabulary, context, layers, heads, channels):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, channels)
        self.positions = nn.Embedding(context, channels)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(channels, bias=False)
        self.head = nn.Linear(channels, vocabulary, bias=False)
        self.tokens.weight = self.head.weight
        for name, p in self.named_parameters():
            if p.dim() == 2:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, x, targets):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def learning_rate(step, peak, floor, warmup, steps):
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    x = (step - warmup) / (steps - warmup)
    return floor + 0.5 * (1 + math.cos(math.pi * x)) * (peak - floor)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("text")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--fused", action="store_true", help="PyTorch's fused CPU AdamW instead of the default")
    parser.add_argument("--no-eval", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    text = open(args.text, encoding="utf-8").read()
    characters = sorted(set(text))
    ids = {c: i for i, c in enumerate(characters)}
    data = torch.tensor([ids[c] for c in text], dtype=torch.long)
    cut = int(0.9 * len(data))
    train, val = data[:cut], data[cut:]
    context, batch = 64, 12

    model = Gpt(len(characters), context, 4, 4, 128)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=args.fused or None)

    def get_batch():
        starts = torch.randint(len(train) - context, (batch,))
        x = torch.stack([train[i:i + context] for i in starts])
        y = torch.stack([train[i + 1:i + 1 + context] for i in starts])
        return x, y

    times = []
    x, y = get_batch()
    for step in range(args.steps):
        begin = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 1e-3, 1e-4, 100, args.steps)
        loss = model(x, y)
        x, y = get_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append(time.perf_counter() - begin)

    result = {"what": "PyTorch " + torch.__version__, "threads": args.threads, "steps": args.steps,
              "seconds": round(sum(times), 3), "median_ms": round(1e3 * statistics.median(times), 3)}
    if not args.no_eval:
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            windows = (len(val) - 1) // context
            xs = val[:windows * context].view(windows, context)
            ys = val[1:windows * context + 1].view(windows, context)
            for i in range(0, windows, 256):
                n = xs[i:i + 256].numel()
                total += model(xs[i:i + 256], ys[i:i + 256]).item() * n
                count += n
        result["validation_loss"] = round(total / count, 4)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
