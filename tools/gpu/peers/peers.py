#!/usr/bin/env python3
"""PyTorch's side of the benchmarks on a GPU: the same work as ch03_attention/bench_cuda.cpp and ch04_gpt_model/bench_cuda.cpp,
at the same sizes, under the same names.

    python peers.py [group ...]      groups: see GROUPS; without one: all but the training step
    python peers.py --serve          reads groups from stdin, one a line; compare.py runs it so

Prints one JSON line per measurement: {"name", "us", "how", "others"}. `us` is the median of seven timings of many calls
between two CUDA events, after warm-up; the calls are queued while the GPU is kept waiting, so that Python's own time does
not count. Where PyTorch has several ways to do a thing (eager, compiled; layouts of the heads) each is tried and the
fastest counts; `others` has the rest. Attention is scaled_dot_product_attention with the flash backend forced. f32
products are in f32 (TF32 off). Needs PyTorch 2.3 or newer; not part of the build or of the tests.
"""
import argparse
import json
import statistics
import sys

try:
    import torch
except ModuleNotFoundError:
    sys.exit("there is no PyTorch here")
import torch.nn.functional as F
from torch._functorch import config as functorch_config
from torch.nn.attention import SDPBackend, sdpa_kernel

BF16 = torch.bfloat16


def normal(*shape, dtype=BF16, grad=False):
    return torch.randn(*shape, device="cuda", dtype=dtype).requires_grad_(grad)


def time_us(call):
    """The median time of one call in microseconds."""
    def batch(calls):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(40_000_000)  # cycles, some 20 ms: the GPU waits until the queue is filled
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        torch.cuda.synchronize()
        return 1e3 * begin.elapsed_time(end) / calls

    for _ in range(3):
        call()
    calls = int(min(200, max(3, 30_000 / batch(3))))
    return statistics.median(batch(calls) for _ in range(7))


def fastest(name, variants):
    """Prints the fastest of the variants, {how: function that makes the call}. A variant that PyTorch refuses is said so."""
    times, refused = {}, {}
    for how, make in variants.items():
        try:
            times[how] = time_us(make())
        except Exception as error:  # a variant may be unknown to this version of PyTorch
            refused[how] = str(error).splitlines()[0][:200]
        torch.cuda.empty_cache()
    if not times:
        print(json.dumps({"name": name, "error": refused}), flush=True)
        return
    how = min(times, key=times.get)
    others = {h: round(t, 2) for h, t in times.items() if h != how} | refused
    print(json.dumps({"name": name, "us": round(times[how], 3), "how": how, "others": others}), flush=True)


def gradients(output, inputs, dy):
    """A call that runs the backward pass of `output` again and again."""
    return lambda: torch.autograd.grad(output, inputs, dy, retain_graph=True)


def compiled(function):
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


# ---- the groups ----

N, C, V, T = 32768, 768, 50304, 1024  # rows, channels, vocabulary, positions: ch04_gpt_model/bench_cuda.cpp
TYPES = {"f32": torch.float32, "bf16": BF16}


def forward(function, *shapes, dtype):
    """Makes a call of the function on normal numbers, nothing kept for a backward pass."""
    def make(function):
        inputs = [normal(*shape, dtype=dtype) for shape in shapes]
        return lambda: function(*inputs)
    return {"eager": lambda: make(function), "compiled": lambda: make(compiled(function))}


def backward(function, *shapes, dtype):
    """Makes a call of its backward pass alone, for all inputs."""
    def make(function):
        inputs = [normal(*shape, dtype=dtype, grad=True) for shape in shapes]
        outputs = function(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return gradients(outputs, inputs, [torch.randn_like(y) for y in outputs])
    return {"eager": lambda: make(function), "compiled": lambda: make(compiled(function))}


def copy():
    for name, dtype in TYPES.items():
        def make():
            x = normal(N, C, dtype=dtype)
            y = torch.empty_like(x)
            return lambda: y.copy_(x)
        fastest(f"copy/{name}", {"copy_": make})


def heads(layout, B, H, T, D):
    """q, k, v of shape (B, H, T, D): each for itself, or parts of one (B, T, 3C) as a linear layer leaves them."""
    if layout == "separate":
        return [normal(B, H, T, D, grad=True) for _ in range(3)]
    parts = normal(B, T, 3 * H * D).split(H * D, dim=2)
    return [p.view(B, T, H, D).transpose(1, 2).detach().requires_grad_() for p in parts]


def attention(direction):
    for D in (64, 128):
        for T in (1024, 2048, 4096, 8192):
            def make(layout):
                q, k, v = heads(layout, 8, 12, T, D)
                if direction == "forward":
                    q, k, v = q.detach(), k.detach(), v.detach()
                    return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                return gradients(y, (q, k, v), torch.randn_like(y))

            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                fastest(f"attention_flash_mma_{direction}/T:{T}/D:{D}",
                        {layout: lambda layout=layout: make(layout) for layout in ("separate", "parts of qkv")})


def layer_norm():
    def plain(x, w, b):
        return F.layer_norm(x, (C,), w, b)

    def added(x, r, w, b):
        s = x + r
        return s, F.layer_norm(s, (C,), w, b)

    def beside_the_residual(x, w, b):  # its backward adds the gradient that comes past the layer norm
        return F.layer_norm(x, (C,), w, b), x.view_as(x)

    for name, dtype in TYPES.items():
        fastest(f"layer_norm_forward/{name}", forward(plain, (N, C), (C,), (C,), dtype=dtype))
        fastest(f"add_layer_norm_forward/{name}", forward(added, (N, C), (N, C), (C,), (C,), dtype=dtype))
        fastest(f"layer_norm_backward/{name}", backward(beside_the_residual, (N, C), (C,), (C,), dtype=dtype))


def elementwise():
    def gelu(x):
        return F.gelu(x, approximate="tanh")

    for name, dtype in TYPES.items():
        other = BF16 if dtype == torch.float32 else torch.float32  # of a cast the name says the result
        fastest(f"gelu_forward/{name}", forward(gelu, (N, 4 * C), dtype=dtype))
        fastest(f"gelu_backward/{name}", backward(gelu, (N, 4 * C), dtype=dtype))
        fastest(f"add/{name}", forward(torch.add, (N, C), (N, C), dtype=dtype))
        fastest(f"cast/{name}", forward(lambda x: x.to(dtype), (N, C), dtype=other))
        fastest(f"dropout/{name}", forward(lambda x: F.dropout(x, 0.1, training=True), (N, C), dtype=dtype))


def softmax():
    def function(x):
        return F.softmax(x, dim=-1)

    for name, dtype in TYPES.items():
        fastest(f"softmax_forward/{name}", forward(function, (N, 1024), dtype=dtype))
        fastest(f"softmax_backward/{name}", backward(function, (N, 1024), dtype=dtype))


def cross_entropy():
    """One loss per row; then losses and gradient together."""
    rows = 2048
    targets = torch.randint(V, (rows,), device="cuda")
    for name, dtype in TYPES.items():
        fastest(f"cross_entropy_forward/{name}", forward(lambda x: F.cross_entropy(x.float(), targets, reduction="none"), (rows, V), dtype=dtype)
                | {"eager, no cast": forward(lambda x: F.cross_entropy(x, targets, reduction="none"), (rows, V), dtype=dtype)["eager"]})

        def make(loss):
            logits = normal(rows, V, dtype=dtype, grad=True)
            return lambda: torch.autograd.grad(loss(logits), (logits,))

        fastest(f"cross_entropy_with_gradient/{name}",
                {"eager": lambda: make(lambda x: F.cross_entropy(x, targets)),
                 "compiled": lambda: make(compiled(lambda x: F.cross_entropy(x.float(), targets)))})


def embedding():
    tokens = torch.randint(V, (N // T, T), device="cuda")

    def function(table, positions):
        return F.embedding(tokens, table) + positions

    for name, dtype in TYPES.items():
        fastest(f"embedding_forward/{name}", forward(function, (V, C), (T, C), dtype=dtype))
        fastest(f"embedding_backward/{name}", backward(function, (V, C), (T, C), dtype=dtype))


def optimizer():
    count = 124439808

    def adamw(rounded):
        def make():
            p = normal(count, dtype=torch.float32, grad=True)
            p.grad = torch.randn_like(p)
            fused = torch.optim.AdamW([p], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
            if not rounded:
                return fused.step
            copy = torch.empty_like(p, dtype=BF16)

            def step():
                fused.step()
                copy.copy_(p.detach())
            return step
        return make

    fastest("adamw/f32", {"fused": adamw(False)})
    fastest("adamw/bf16", {"fused, then a copy": adamw(True)})  # f32 values, and rounded ones beside them
    for name, dtype in TYPES.items():
        fastest(f"squared_norm/{name}", forward(lambda x: x.square().sum(dtype=torch.float32), (count,), dtype=dtype)
                | {"vector_norm": forward(lambda x: torch.linalg.vector_norm(x, dtype=torch.float32), (count,), dtype=dtype)["eager"]})


def linear():
    torch.backends.cuda.matmul.allow_tf32 = False

    def up_gelu(x, w, b):
        pre = F.linear(x, w, b)
        return pre, F.gelu(pre, approximate="tanh")

    for name, dtype in TYPES.items():
        shapes = (N, C), (4 * C, C), (4 * C,)
        fastest(f"linear_forward/{name}", forward(F.linear, *shapes, dtype=dtype))
        fastest(f"linear_gelu_forward/{name}", forward(up_gelu, *shapes, dtype=dtype))
        fastest(f"linear_backward/{name}", backward(F.linear, *shapes, dtype=dtype))

        targets = torch.randint(V, (N,), device="cuda")

        def make(loss):
            x, w = normal(N, C, dtype=dtype, grad=True), normal(V, C, dtype=dtype, grad=True)
            return lambda: torch.autograd.grad(loss(x, w), (x, w))

        fastest(f"linear_cross_entropy/{name}",
                {"eager": lambda: make(lambda x, w: F.cross_entropy(F.linear(x, w), targets)),
                 "compiled": lambda: make(compiled(lambda x, w: F.cross_entropy(F.linear(x, w).float(), targets)))})


def step():
    import gpt2_step
    for B in (8, 16):
        print(json.dumps(gpt2_step.measure(B, 1024)), flush=True)
        torch.cuda.empty_cache()


GROUPS = {"copy": copy, "attention_forward": lambda: attention("forward"), "attention_backward": lambda: attention("backward"),
          "layer_norm": layer_norm, "elementwise": elementwise, "softmax": softmax, "cross_entropy": cross_entropy,
          "embedding": embedding, "optimizer": optimizer, "linear": linear, "step": step}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help=", ".join(GROUPS))
    parser.add_argument("--serve", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    if hasattr(functorch_config, "donated_buffer"):  # compiled backward passes run more than once here
        functorch_config.donated_buffer = False
    print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name()}), flush=True)
    if not args.serve:
        for group in args.groups or [g for g in GROUPS if g != "step"]:
            GROUPS[group]()
        return
    for line in sys.stdin:
        try:
            GROUPS[line.strip()]()
        except Exception as error:
            print(json.dumps({"name": line.strip(), "error": str(error).splitlines()[0][:500]}), flush=True)
        torch.cuda.empty_cache()
        print(json.dumps({"done": line.strip()}), flush=True)


if __name__ == "__main__":
    main()
