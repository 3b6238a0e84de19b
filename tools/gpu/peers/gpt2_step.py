#!/usr/bin/env python3
"""The peer of `ch05_pretraining bench --device cuda --dtype bf16`: one training step of GPT-2 124M in PyTorch.

nanoGPT's model and recipe, written anew: tied head, vocabulary padded to 50304, scaled_dot_product_attention, bf16
autocast over f32 weights, fused AdamW, torch.compile of the whole model. A step is forward, backward, AdamW and
forgetting the gradients, on random tokens; no dropout, no clipping.

    python gpt2_step.py [--batch 8] [--tokens 1024] [--steps 30]

Prints one JSON line: the median of the steps' times by CUDA events, after warm-up and compilation. Needs PyTorch; not
part of the build or of the tests.
"""
import argparse
import json
import math
import statistics

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, channels, heads, layers):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        for layer in (self.qkv, self.out, self.up, self.down):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * layers))

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(C, dim=2)
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(B, T, C))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocabulary=50304, context=1024, layers=12, heads=12, channels=768):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, channels), nn.Embedding(context, channels)
        self.blocks = nn.ModuleList(Block(channels, heads, layers) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, vocabulary, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, x, targets):
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def measure(batch, tokens, steps=30):
    torch.manual_seed(1)
    torch._dynamo.reset()
    torch.set_float32_matmul_precision("high")  # as nanoGPT; within the autocast it concerns next to nothing
    model = Gpt(context=max(1024, tokens)).cuda()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=1e-4, betas=(0.9, 0.95), fused=True)
    run = torch.compile(model)
    x, y = (torch.randint(50257, (batch, tokens), device="cuda") for _ in range(2))

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = run(x, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(10):
        step()
    torch.cuda.synchronize()
    times = []
    for _ in range(steps):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step()
        end.record()
        times.append((begin, end))
    torch.cuda.synchronize()
    torch.set_float32_matmul_precision("highest")
    us = 1e3 * statistics.median(b.elapsed_time(e) for b, e in times)
    return {"name": f"step/B:{batch}/T:{tokens}", "us": round(us, 1), "how": "torch.compile",
            "others": {"peak memory, GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    print(json.dumps(measure(args.batch, args.tokens, args.steps)))


if __name__ == "__main__":
    main()
