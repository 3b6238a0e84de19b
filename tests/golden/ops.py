#!/usr/bin/env python3
"""Golden values of every primitive, forward and backward, by PyTorch.

    python tests/golden/ops.py

Made with PyTorch 2.15.0, seed 20. Inputs are float32; results are computed in float64 and rounded once, so they are exact
to float32 and the comparison sees only our own errors. Writes data/ops_NAME.safetensors with tensors "CASE.NAME"; ids are
stored as f32. Sizes are odd on purpose. "dy" is the gradient that comes in, "dx" and so on those that go out.
"""
import math
import pathlib

import safetensors.torch
import torch
import torch.nn.functional as F

DATA = pathlib.Path(__file__).parent / "data"
OUT = {}


def put(case, **tensors):
    for name, t in tensors.items():
        OUT[f"{case}.{name}"] = t.detach().to(torch.float32).contiguous()


def write(name):
    safetensors.torch.save_file(OUT, DATA / f"ops_{name}.safetensors")
    OUT.clear()


def randn(*shape, scale=1.0):
    """float32 numbers, held as float64, that ask for gradients."""
    return (torch.randn(*shape) * scale).double().requires_grad_()


def linear():
    for case, (shape, inputs, outputs, bias) in enumerate(
            [((5,), 7, 3, True), ((1,), 1, 1, True), ((2, 3), 65, 63, True), ((63,), 33, 129, False), ((9,), 400, 50, True)]):
        x, w, b = randn(*shape, inputs), randn(outputs, inputs), randn(outputs)
        dy = randn(*shape, outputs)
        y = F.linear(x, w, b if bias else None)
        y.backward(dy)
        put(case, x=x, w=w, y=y, dy=dy, dx=x.grad, dw=w.grad)
        if bias:
            put(case, b=b, db=b.grad)
    write("linear")


def embedding():
    vocabulary, channels, first = 11, 7, 2
    tokens = torch.randint(0, vocabulary, (3, 5))
    table, positions, dy = randn(vocabulary, channels), randn(9, channels), randn(3, 5, channels)
    y = F.embedding(tokens, table) + positions[first:first + 5]
    y.backward(dy)
    put(0, tokens=tokens, table=table, positions=positions, y=y, dy=dy, dtable=table.grad, dpositions=positions.grad)
    write("embedding")


def layer_norm():
    for case, (rows, channels, bias) in enumerate([(3, 1, True), (5, 7, True), (4, 65, False), (70, 48, True), (2, 768, True)]):
        x = randn(rows, channels, scale=3.0)
        gamma, beta, dy, dresidual = randn(channels), randn(channels), randn(rows, channels), randn(rows, channels)
        y = F.layer_norm(x, (channels,), gamma, beta if bias else None, 1e-5)
        (x * dresidual).sum().backward()
        y.backward(dy)
        put(case, x=x, gamma=gamma, y=y, dy=dy, dresidual=dresidual, dx=x.grad, dgamma=gamma.grad,
            mean=x.mean(-1), rstd=(x.var(-1, unbiased=False) + 1e-5).rsqrt())
        if bias:
            put(case, beta=beta, dbeta=beta.grad)
    write("layer_norm")


def gelu():
    x = torch.cat([torch.linspace(-60, 60, 241), torch.linspace(-6, 6, 601), torch.tensor([0.0, -0.0, 1e-30, -1e-7, 3e4, -3e4])])
    x = x.double().requires_grad_()
    dy = randn(x.numel())
    y = F.gelu(x, approximate="tanh")
    y.backward(dy)
    put(0, x=x, y=y, dy=dy, dx=x.grad)
    write("gelu")


def softmax():
    for case, (rows, columns, scale) in enumerate([(3, 1, 1.0), (4, 65, 5.0), (3, 1000, 1.0), (5, 33, 1e4)]):
        x, dy = randn(rows, columns, scale=scale), randn(rows, columns)
        y = x.softmax(-1)
        y.backward(dy)
        put(case, x=x, y=y, dy=dy, dx=x.grad)
    write("softmax")


def attention():
    for case, (batch, time, heads, size) in enumerate(
            [(2, 1, 1, 5), (1, 2, 3, 8), (2, 63, 2, 7), (1, 65, 3, 16), (1, 64, 1, 32), (1, 130, 2, 9)]):
        qkv, dy = randn(batch, time, 3 * heads * size), randn(batch, time, heads * size)
        q, k, v = (part.view(batch, time, heads, size).transpose(1, 2) for part in qkv.split(heads * size, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(size)
        scores = scores.masked_fill(torch.ones(time, time, dtype=torch.bool).triu(1), -math.inf)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, time, heads * size)
        y.backward(dy)
        put(case, qkv=qkv, y=y, lse=scores.logsumexp(-1), dy=dy, dqkv=qkv.grad, heads=torch.tensor([heads]))
    write("attention")


def cross_entropy():
    for case, (rows, vocabulary, scale, ignored) in enumerate(
            [(5, 7, 1.0, [2]), (3, 1000, 3.0, []), (4, 65, 1e4, [0, 3]), (2, 9, 1.0, [0, 1]), (1, 1, 1.0, [])]):
        logits = randn(rows, vocabulary, scale=scale)
        targets = torch.randint(0, vocabulary, (rows,))
        targets[ignored] = -1
        losses = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none")
        (losses.sum() * 0.25).backward()
        put(case, logits=logits, targets=targets, losses=losses, dlogits=logits.grad)
    write("cross_entropy")


def head():
    for case, (rows, channels, vocabulary) in enumerate([(9, 13, 101), (50, 16, 257)]):
        x, w = randn(rows, channels), randn(vocabulary, channels)
        targets = torch.randint(0, vocabulary, (rows,))
        targets[4] = -1
        losses = F.cross_entropy(F.linear(x, w), targets, ignore_index=-1, reduction="none")
        (losses.sum() * 0.125).backward()
        put(case, x=x, w=w, targets=targets, losses=losses, dx=x.grad, dw=w.grad)
    write("head")


def adamw():
    """Three steps of torch.optim.AdamW in float64; the state after each."""
    values = torch.nn.Parameter(torch.randn(131).double())
    optimizer = torch.optim.AdamW([values], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    put(0, values=values)
    for step in range(1, 4):
        gradients = torch.randn(131)
        put(step, gradients=gradients)
        values.grad = gradients.double() * 0.5  # the gradient scale
        optimizer.step()
        state = optimizer.state[values]
        put(step, values=values, m=state["exp_avg"], v=state["exp_avg_sq"])
    write("adamw")


if __name__ == "__main__":
    torch.manual_seed(20)
    for make in (linear, embedding, layer_norm, gelu, softmax, attention, cross_entropy, head, adamw):
        make()
