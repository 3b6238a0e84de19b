#!/usr/bin/env python3
"""Five steps of clipped AdamW with a decay and a no-decay group, for tests/ch05_optimizer_test.cpp.

Writes tests/golden/data/training_adamw.json. Run with PyTorch 2; the seed and the version are in the file.
"""
import json
import pathlib

import torch

SEED = 5
torch.manual_seed(SEED)
# Sizes that are no multiple of anything, so that ranges of the flat buffer begin at odd places.
shapes = {"a.weight": (7, 5), "a.bias": (7,), "norm.weight": (3,), "b.weight": (11, 3)}
decays = {"a.weight": True, "a.bias": False, "norm.weight": False, "b.weight": True}
parameters = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
options = {"lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 3.0}
optimizer = torch.optim.AdamW(
    [{"params": [p for n, p in parameters.items() if decays[n]], "weight_decay": options["weight_decay"]},
     {"params": [p for n, p in parameters.items() if not decays[n]], "weight_decay": 0.0}],
    lr=options["lr"], betas=(options["beta1"], options["beta2"]), eps=options["eps"])

flat = lambda t: [float(f"{x:.9g}") for x in t.detach().flatten().tolist()]  # 9 digits: every float exactly
result = {"torch": torch.__version__, "seed": SEED, "options": options, "steps": [], "parameters": [
    {"name": n, "shape": list(s), "decay": decays[n], "initial": flat(parameters[n])} for n, s in shapes.items()]}
for step in range(5):
    # Gradients of a norm around the clipping limit: some steps are clipped, some are not.
    gradients = {n: torch.randn(s) * (0.2 + 0.15 * step) for n, s in shapes.items()}
    for n, p in parameters.items():
        p.grad = gradients[n].clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), options["clip"])
    for group in optimizer.param_groups:
        group["lr"] = options["lr"] * (step + 1)
    optimizer.step()
    result["steps"].append({"lr": options["lr"] * (step + 1), "norm": float(norm),
                            "gradients": {n: flat(g) for n, g in gradients.items()},
                            "values": {n: flat(p) for n, p in parameters.items()}})
path = pathlib.Path(__file__).parent / "data" / "training_adamw.json"
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps(result) + "\n")
print(path, path.stat().st_size, [s["norm"] for s in result["steps"]])
