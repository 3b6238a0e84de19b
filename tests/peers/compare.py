#!/usr/bin/env python3
"""Runs this project's programs and their PyTorch peers alternately and prints medians and ratios.

    python compare.py step --bin build/cpu/bin [--tokens 64] [--rounds 3]
    python compare.py shakespeare --bin build/cpu/bin --data TOKEN_FOLDER --text tinyshakespeare.txt [--rounds 1]

`step`: one training step of GPT-2 124M, B = 4: `ch05_pretraining bench` and gpt2_step.py (tuned and with malloc
settings). `shakespeare`: nanoGPT's small CPU run, 2,000 steps: nanogpt_like.py with its settings, and `ch05_pretraining train`
with the same but for the learning rate, 4e-3 (nanoGPT: 1e-3), which costs no time and learns more. The machine should be otherwise idle; alternating rounds at least share its moods. Needs PyTorch for the peers.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent


def ours_step(args):
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as f:
        subprocess.run([f"{args.bin}/ch05_pretraining", "bench", "--tokens", str(args.tokens), "--steps", str(args.steps),
                        "--threads", str(args.threads), "--metrics", f.name], check=True, capture_output=True)
        return json.loads(open(f.name).readlines()[-1])["step_ms"]


def peer_step(args):
    out = subprocess.run([sys.executable, HERE / "gpt2_step.py", "--malloc", "--tokens", str(args.tokens), "--steps",
                          str(args.steps), "--threads", str(args.threads)], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)["median_ms"]["step"]


def ours_shakespeare(args):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([f"{args.bin}/ch05_pretraining", "train", "--data", args.data, "--out", folder, "--threads",
                        str(args.threads), *SHAKESPEARE, "--log-every", "1"], check=True, capture_output=True)
        records = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    # Tokens per second of the training steps alone, as the peer times its own.
    seconds = sum(12 * 64 / r["tokens_per_s"] for r in records if "tokens_per_s" in r)
    return seconds, records[-1]["val_loss"]


SHAKESPEARE = ["--samples", "windows", "--layers", "4", "--heads", "4", "--channels", "128", "--context", "64",
               "--batch", "12", "--steps", "2000", "--dropout", "0", "--lr", "4e-3", "--min-lr", "1e-4", "--warmup",
               "100", "--beta2", "0.99", "--weight-decay", "0.1", "--clip", "1", "--no-bias", "--eval-every", "1000"]


def peer_shakespeare(args):
    out = subprocess.run([sys.executable, HERE / "nanogpt_like.py", args.text, "--threads", str(args.threads)],
                         check=True, capture_output=True, text=True)
    result = json.loads(out.stdout)
    return result["seconds"], result["validation_loss"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["step", "shakespeare"])
    parser.add_argument("--bin", default="build/cpu/bin")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--data")
    parser.add_argument("--text")
    args = parser.parse_args()
    ours, peers = [], []
    for round_ in range(args.rounds):
        if args.what == "step":
            ours.append(ours_step(args))
            peers.append(peer_step(args))
            print(f"round {round_}: ours {ours[-1]:.0f} ms, PyTorch {peers[-1]:.0f} ms", flush=True)
        else:
            a, b = ours_shakespeare(args), peer_shakespeare(args)
            ours.append(a[0])
            peers.append(b[0])
            print(f"round {round_}: ours {a[0]:.1f} s, validation {a[1]:.4f}; PyTorch {b[0]:.1f} s, {b[1]:.4f}", flush=True)
    ratio = statistics.median(p / o for o, p in zip(ours, peers))
    print(f"median: ours {statistics.median(ours):.1f}, PyTorch {statistics.median(peers):.1f}; "
          f"PyTorch takes {ratio:.2f} times as long")


if __name__ == "__main__":
    main()
