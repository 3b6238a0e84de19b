#!/usr/bin/env python3
"""The first 20 training steps of a tiny GPT, for tests/ch05_trainer_test.cpp.

Everything that the C++ side draws is computed here from its definition: weights and tokens from an integer hash,
the windows of each step from Philox4x32-10. So the two runs see the same numbers, and the test compares losses,
gradient norms and the final weights of two independent implementations: model, loss, backward, accumulation,
clipping, schedule, AdamW with decay groups. Computed in float64, so that only one side rounds.

Writes tests/golden/data/training_curve.json. Run with PyTorch 2.
"""
import json
import math
import pathlib

import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
V, T, C, L, H = 61, 16, 32, 2, 4
ROWS, MICRO, STEPS, SEED, TOKENS = 3, 2, 20, 7, 5000
PEAK, FLOOR, WARMUP, CLIP, DECAY, BETA1, BETA2 = 1e-2, 1e-3, 4, 0.8, 0.1, 0.9, 0.95
MASK = 0xFFFFFFFF


def mix(i):
    """A 32-bit hash, as in the test."""
    i = ((i ^ (i >> 16)) * 0x7FEB352D) & MASK
    i = ((i ^ (i >> 15)) * 0x846CA68B) & MASK
    return i ^ (i >> 16)


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & MASK, (p0 >> 32) ^ c[3] ^ k[1], p0 & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def stream_id(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def window_start(n, step, row):
    i, s = (step << 32) | row, stream_id("batch")
    words = philox((i & MASK, i >> 32, s & MASK, s >> 32), (SEED & MASK, SEED >> 32))
    return (((words[0] << 32) | words[1]) * n) >> 64


# Parameter number p in this order; element i of it is (mix(1000003 p + i) / 2^32 - 0.5) * scale, norms 1 + that.
names = ["wte.weight", "wpe.weight"]
for l in range(L):
    names += [f"h.{l}.{n}" for n in ("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias",
                                     "attn.c_proj.weight", "attn.c_proj.bias", "ln_2.weight", "ln_2.bias",
                                     "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")]
names += ["ln_f.weight", "ln_f.bias"]
shapes = {"wte.weight": (V, C), "wpe.weight": (T, C), "attn.c_attn.weight": (3 * C, C), "attn.c_attn.bias": (3 * C,),
          "attn.c_proj.weight": (C, C), "mlp.c_fc.weight": (4 * C, C), "mlp.c_fc.bias": (4 * C,),
          "mlp.c_proj.weight": (C, 4 * C)}
parameters = {}
for p, name in enumerate(names):
    shape = next((s for key, s in shapes.items() if name.endswith(key)), (C,))
    count = math.prod(shape)
    values = torch.tensor([(mix(1000003 * p + i) / 2**32 - 0.5) * 0.2 for i in range(count)]).to(torch.float32)
    if "ln_" in name and name.endswith("weight"):
        values = (1 + values.double()).to(torch.float32)
    parameters[name] = torch.nn.Parameter(values.double().reshape(shape))
tokens = torch.tensor([mix(i // 2) % 9 + i % 2 * 20 for i in range(TOKENS)])


def loss_of(x, y):
    P = parameters
    h = P["wte.weight"][x] + P["wpe.weight"][: x.shape[1]]
    for l in range(L):
        n = lambda s: P[f"h.{l}.{s}"]
        a = F.layer_norm(h, (C,), n("ln_1.weight"), n("ln_1.bias"), 1e-5)
        q, k, v = F.linear(a, n("attn.c_attn.weight"), n("attn.c_attn.bias")).split(C, dim=2)
        q, k, v = (t.view(*t.shape[:2], H, C // H).transpose(1, 2) for t in (q, k, v))
        y_ = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(h.shape)
        h = h + F.linear(y_, n("attn.c_proj.weight"), n("attn.c_proj.bias"))
        m = F.layer_norm(h, (C,), n("ln_2.weight"), n("ln_2.bias"), 1e-5)
        m = F.gelu(F.linear(m, n("mlp.c_fc.weight"), n("mlp.c_fc.bias")), approximate="tanh")
        h = h + F.linear(m, n("mlp.c_proj.weight"), n("mlp.c_proj.bias"))
    h = F.layer_norm(h, (C,), P["ln_f.weight"], P["ln_f.bias"], 1e-5)
    return F.cross_entropy(F.linear(h, P["wte.weight"]).view(-1, V), y.reshape(-1))


optimizer = torch.optim.AdamW(
    [{"params": [p for p in parameters.values() if p.dim() == 2], "weight_decay": DECAY},
     {"params": [p for p in parameters.values() if p.dim() < 2], "weight_decay": 0.0}],
    betas=(BETA1, BETA2), eps=1e-8)
losses, norms = [], []
for step in range(STEPS):
    if step < WARMUP:
        rate = PEAK * (step + 1) / (WARMUP + 1)
    else:
        rate = FLOOR + (PEAK - FLOOR) * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    total = 0.0
    for micro in range(MICRO):
        starts = [window_start(TOKENS - T, step, micro * ROWS + row) for row in range(ROWS)]
        x = torch.stack([tokens[s:s + T] for s in starts])
        y = torch.stack([tokens[s + 1:s + T + 1] for s in starts])
        loss = loss_of(x, y) / MICRO
        loss.backward()
        total += loss.item()
    norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)))
    losses.append(total)
    optimizer.step()
# The bias of the keys has no gradient but rounding (softmax does not see it), which Adam blows up: leave it out.
for l in range(L):
    parameters[f"h.{l}.attn.c_attn.bias"].data[C:2 * C] = 0
final = {name: [p.sum().item(), (p * p).sum().item()] for name, p in parameters.items()}
path = pathlib.Path(__file__).parent / "data" / "training_curve.json"
path.write_text(json.dumps({"torch": torch.__version__, "losses": losses, "norms": norms, "final": final}) + "\n")
print(path, path.stat().st_size, losses[0], losses[-1], norms)
