#!/usr/bin/env python3
"""The numbers from PyTorch in tests/exercises/ch05_exercises_test.cpp: three steps of AdamW."""
import torch

w = torch.nn.Parameter(torch.tensor([0.3, -1.2]))
optimizer = torch.optim.AdamW([w], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
for g in ([0.4, -0.1], [-0.2, 0.3], [0.1, 0.05]):
    w.grad = torch.tensor(g)
    optimizer.step()
state = optimizer.state[w]
print(f"# torch {torch.__version__}")
for name, t in (("w", w.data), ("m", state["exp_avg"]), ("v", state["exp_avg_sq"])):
    print(name, ", ".join(f"{x:.8g}F" for x in t.tolist()))
