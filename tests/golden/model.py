#!/usr/bin/env python3
"""Golden models: tiny GPT-2 directories written by transformers, with the logits, losses and gradients of PyTorch.

    python tests/golden/model.py

Made with PyTorch 2.15.0 and transformers 5.23.0, seeds in MODELS below; all sizes are odd on purpose. Writes
data/model_NAME/: config.json and model.safetensors (save_pretrained) and answers.safetensors with
  tokens (B, T), targets (B, T) (some are -100 in PyTorch, -1 here), as f32
  logits (B, T, V), losses (B, T), and grad.NAME for every parameter, of the sum of the losses,
all computed in float64 from the float32 weights, then rounded: the goldens are exact to float32.
"""
import pathlib
import shutil

import safetensors.torch
import torch
import transformers

DATA = pathlib.Path(__file__).parent / "data"

#        name             seed  dtype            configuration
MODELS = {
    "tied": (11, torch.float32, dict(vocab_size=61, n_positions=24, n_embd=30, n_head=3, n_layer=3)),
    "untied": (12, torch.float32, dict(vocab_size=37, n_positions=17, n_embd=20, n_head=5, n_layer=2, n_inner=33,
                                       layer_norm_epsilon=1e-3, tie_word_embeddings=False)),
    "half": (13, torch.float16, dict(vocab_size=23, n_positions=9, n_embd=12, n_head=2, n_layer=1)),
    "bfloat": (14, torch.bfloat16, dict(vocab_size=23, n_positions=9, n_embd=12, n_head=2, n_layer=1)),
}


def make(name, seed, dtype, sizes):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # larger than the initialisation, and biases and norms that matter
        for p_name, p in model.named_parameters():
            p.add_(torch.randn_like(p) * (0.2 if p.dim() > 1 else 0.3))
    model = model.to(dtype)
    folder = DATA / f"model_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = model.double()
    batch, length = 3, sizes["n_positions"] - 1
    tokens = torch.randint(0, sizes["vocab_size"], (batch, length))
    targets = torch.randint(0, sizes["vocab_size"], (batch, length))
    targets[0, 3] = targets[2, 0] = -100
    logits = model(tokens).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    losses.sum().backward()
    answers = {"tokens": tokens.float(), "targets": targets.where(targets >= 0, -1).float(),
               "logits": logits.detach().float(), "losses": losses.detach().view(batch, length).float()}
    if dtype == torch.float32:
        for p_name, p in model.named_parameters():
            answers["grad." + p_name.removeprefix("transformer.")] = p.grad.float()
    safetensors.torch.save_file({k: v.contiguous() for k, v in answers.items()}, folder / "answers.safetensors")


if __name__ == "__main__":
    for model_name, arguments in MODELS.items():
        make(model_name, *arguments)
