#!/usr/bin/env python3
"""Golden values of fine-tuning: LoRA, weighted losses, DPO, GRPO, a packed batch, and a model adapted by peft.

    python tests/golden/finetuning.py

Made with PyTorch 2.6.0, transformers 5.24.0 and peft 0.21.2, seed 70. Inputs are float32, results are computed in
float64 and rounded once. Writes data/finetuning.safetensors with tensors "CASE.NAME", and data/peft_tied/, an adapter of
data/model_tied as peft saves it, with answers.safetensors. Losses of preferences are the published formulas:
DPO, Rafailov et al. 2023, equation 7; GRPO, Shao et al. 2024, equations 3 and 4 (the mean over a group is over answers,
each the mean over its tokens), advantages with the sample's standard deviation plus 1e-4, as trl has them.
"""
import json
import pathlib
import shutil

import peft
import safetensors.torch
import torch
import torch.nn.functional as F
import transformers

DATA = pathlib.Path(__file__).parent / "data"
OUT = {}


def put(case, **tensors):
    for name, t in tensors.items():
        t = torch.as_tensor(t, dtype=torch.float64)
        OUT[f"{case}.{name}"] = t.detach().to(torch.float32).contiguous().reshape(t.shape or (1,))


def randn(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).double().requires_grad_()


def lora():
    """peft's layer on torch.nn.Linear: y = x w^T + b + alpha / r (x A^T) B^T."""
    for case, (shape, inputs, outputs, rank, alpha) in enumerate([((5,), 7, 3, 2, 4), ((2, 3), 65, 33, 16, 8), ((1,), 4, 9, 1, 1)]):
        base = torch.nn.Linear(inputs, outputs)
        layer = peft.tuners.lora.Linear(base, "default", config=peft.LoraConfig(r=rank, lora_alpha=alpha), r=rank, lora_alpha=alpha)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        with torch.no_grad():
            b.copy_(torch.randn_like(b))
        layer = layer.double()
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        x, dy = randn(*shape, inputs), randn(*shape, outputs)
        y = layer(x)
        y.backward(dy)
        put(f"lora{case}", x=x, w=base.weight, bias=base.bias, A=a, B=b, scale=alpha / rank, y=y, dy=dy, dx=x.grad, dA=a.grad, dB=b.grad,
            merged=base.weight + layer.get_delta_weight("default"))


def weighted():
    """The head with a weight for each row, as policy gradients need it."""
    x, w, weights = randn(9, 13), randn(31, 13), torch.randn(9).double()
    targets = torch.randint(0, 31, (9,))
    targets[2] = -1
    losses = F.cross_entropy(F.linear(x, w), targets, ignore_index=-1, reduction="none")
    (losses * weights * 0.5).sum().backward()
    put("weighted0", x=x, w=w, weights=weights, targets=targets, losses=losses, dx=x.grad, dw=w.grad)


def dpo():
    for case, (count, scale, beta) in enumerate([(1, 1.0, 0.1), (7, 10.0, 0.3), (4, 400.0, 0.5)]):
        chosen, rejected = randn(count, scale=scale), randn(count, scale=scale)
        reference_chosen, reference_rejected = torch.randn(count).double() * scale, torch.randn(count).double() * scale
        z = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
        loss = -F.logsigmoid(z).mean()
        loss.backward()
        put(f"dpo{case}", chosen=chosen, rejected=rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected,
            beta=beta, loss=loss, dchosen=chosen.grad, drejected=rejected.grad, margin=z.mean(), accuracy=(z > 0).double().mean())


def grpo():
    for case, (group, clip, kl) in enumerate([(2, 0.2, 0.04), (6, 0.2, 0.0), (5, 0.1, 0.5)]):
        lengths = torch.randint(1, 6, (group,))
        rewards = torch.rand(group).double().round(decimals=1) if case != 1 else torch.ones(group).double()
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        if case == 1:  # equal rewards teach nothing; use others for the loss
            advantages = torch.randn(group).double()
        n = int(lengths.sum())
        new = randn(n)
        old, reference = new.detach() + 0.3 * torch.randn(n).double(), new.detach() + 0.5 * torch.randn(n).double()
        old, reference = old.float().double(), reference.float().double()
        per_answer, kls, at = [], [], 0
        for length, advantage in zip(lengths.tolist(), advantages.float().double()):
            part = slice(at, at + length)
            ratio = (new[part] - old[part]).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            difference = reference[part] - new[part]
            divergence = difference.exp() - difference - 1
            per_answer.append((gain - kl * divergence).mean())
            kls.append(divergence)
            at += length
        loss = -torch.stack(per_answer).mean()
        loss.backward()
        put(f"grpo{case}", lengths=lengths, rewards=rewards, advantages=advantages, log_probabilities=new, old=old, reference=reference, clip=clip,
            kl=kl, loss=loss, mean_kl=torch.cat(kls).mean(), dlog=new.grad)
    rewards = torch.tensor([[1.0, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 3]]).double()
    put("advantages0", rewards=rewards, advantages=(rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4))


def adapted():
    """data/model_tied with adapters of rank 3 on all linear layers of the blocks."""
    torch.manual_seed(71)
    base = transformers.GPT2LMHeadModel.from_pretrained(DATA / "model_tied").eval()
    config = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True,
                             task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(0.2 * torch.randn_like(p))
    folder = DATA / "peft_tied"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = "model_tied"  # not where it lay on this machine
    (folder / "adapter_config.json").write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    answers = safetensors.torch.load_file(DATA / "model_tied" / "answers.safetensors")
    tokens, targets = answers["tokens"].long(), answers["targets"].long()
    model = model.double()
    logits = model(tokens).logits
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    losses.sum().backward()
    result = {"logits": logits.detach().float(), "losses": losses.detach().view(tokens.shape).float()}
    for name, p in model.named_parameters():
        if p.requires_grad:
            result["grad." + name.removeprefix("base_model.model.transformer.").replace(".default", "")] = p.grad.float()
    safetensors.torch.save_file({k: v.contiguous() for k, v in result.items()}, folder / "answers.safetensors")


def packed():
    """Documents packed into rows equal the same documents alone: what a block-diagonal mask computes, by transformers."""
    base = transformers.GPT2LMHeadModel.from_pretrained(DATA / "model_tied").eval().double()
    tokens = torch.randint(0, 61, (2, 12))
    starts = [0, 5, 12, 15, 20]
    logits = torch.cat([base(tokens.flatten()[None, b:e]).logits[0] for b, e in zip(starts, starts[1:] + [24])])
    put("packed0", tokens=tokens, starts=torch.tensor(starts), logits=logits.view(2, 12, -1))


if __name__ == "__main__":
    torch.manual_seed(70)
    for make in (lora, weighted, dpo, grpo, packed):
        make()
    safetensors.torch.save_file(OUT, DATA / "finetuning.safetensors")
    adapted()
