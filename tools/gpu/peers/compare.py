#!/usr/bin/env python3
"""Runs this project's benchmarks on the GPU and PyTorch's alternately, and prints how they compare.

    python compare.py --bin build/cuda/bin --out build/gpu [--only GROUP ...] [--rounds 3] [--quick] [--no-peer]

Ours are the benchmarks `cuda_...` of ch03_attention_bench and ch04_gpt_model_bench, and `ch05_pretraining bench --device cuda
--dtype bf16`; the peer is peers.py, which measures the same work under the same names. A ratio is PyTorch's time by ours,
taken within each round (so that both saw the same clocks and temperature), then the median over the rounds; above 1 we are
faster. Kernels that only move memory are also held against the bandwidth of a copy.

Writes results.json (all rounds) and results.md (what stands in BENCHMARKS.md), anew after each group. Without PyTorch
or with --no-peer ours are measured alone. Exit code 1 if something did not run; a missed goal is no failure.
"""
import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]

# A group is one run of ours, the program and the pattern of its benchmarks' names, and one of the peer, if it has it.
THREE, FOUR = "ch03_attention_bench", "ch04_gpt_model_bench"
GROUPS = {
    "copy": (FOUR, "^cuda_copy/"),
    "attention_forward": (THREE, "^cuda_attention_flash_mma_forward/"),
    "attention_backward": (THREE, "^cuda_attention_flash_mma_backward/"),
    "layer_norm": (FOUR, "^cuda_(add_)?layer_norm"),
    "elementwise": (FOUR, "^cuda_(gelu_forward|gelu_backward|bias_gelu|add|cast|dropout)/"),
    "softmax": (FOUR, "^cuda_softmax"),
    "cross_entropy": (FOUR, "^cuda_cross_entropy"),
    "embedding": (FOUR, "^cuda_embedding"),
    "optimizer": (FOUR, "^cuda_(adamw|squared_norm)/"),
    "linear": (FOUR, "^cuda_linear"),
    "step": ("ch05_pretraining", ""),
    "other_attention": (THREE, "^cuda_attention_(naive|tiled|decode|flash_forward|flash_backward)"),  # slower ones: to see how much
}
NO_PEER = {"other_attention"}
STEPS = [(8, 1024), (16, 1024)]

# The goals, by the beginning of a name: of the ratio, and of the share of the copy's bandwidth where a benchmark says one.
RATIO_GOALS = {"attention_flash_mma_forward": 1.0, "attention_flash_mma_backward": 0.9, "step": 1.0}
BANDWIDTH_GOAL = 0.85


# ---- reading what programs print ----

def plain_name(name):
    """cuda_copy/1/manual_time -> copy/bf16; cuda_attention_flash_mma_forward/1024/64/manual_time -> .../T:1024/D:64."""
    kind, *arguments = re.sub(r"/(manual_time|real_time|iterations:\d+|repeats:\d+)", "", name).removeprefix("cuda_").split("/")
    if len(arguments) == 1:
        arguments = [{"0": "f32", "1": "bf16"}.get(arguments[0], arguments[0])]
    elif kind.startswith("attention") and len(arguments) == 2:
        arguments = [f"T:{arguments[0]}", f"D:{arguments[1]}"]
    return "/".join([kind, *arguments])


def read_google_benchmark(text):
    """{name: {us, and what it reached}} of Google Benchmark's JSON; {name: {error}} where one failed. The median of
    repetitions, if there are some."""
    unit = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
    found = {}
    for b in json.loads(text)["benchmarks"]:
        if b.get("run_type") == "aggregate" and b.get("aggregate_name") != "median":
            continue
        name = plain_name(b.get("run_name", b["name"]))
        if b.get("error_occurred"):
            found[name] = {"error": b.get("error_message", "")}
            continue
        found[name] = {"us": b["real_time"] * unit[b["time_unit"]]}
        if "TFLOP/s" in b or "FLOP/s" in b:
            found[name]["tflops"] = b.get("TFLOP/s") or 1e-12 * b["FLOP/s"]
        if "bytes/s" in b:
            found[name]["gbytes"] = 1e-9 * b["bytes/s"]
        if "of copy" in b:
            found[name]["of_copy"] = b["of copy"]
    return found


def read_step(line, batch, tokens):
    """The same of the line that `ch05_pretraining bench --metrics` writes."""
    record = json.loads(line)
    return {f"step/B:{batch}/T:{tokens}": {"us": 1e3 * record["step_ms"], "tflops": 1e-3 * record["gflops"]}}


def read_peer(lines):
    """{name: {us, how, ...}} of peers.py's lines."""
    records = [json.loads(line) for line in lines]
    return {r["name"]: r for r in records if "name" in r}


# ---- comparing ----

def combine(rounds):
    """rounds: [(ours, peer)], each {name: {us, ...}}. Returns rows in the order of ours, with medians, the ratio (and its
    range over the rounds), what was reached, and the goal."""
    names = list(dict.fromkeys(name for ours, _ in rounds for name in ours))
    rows = []
    for name in names:
        kind = name.split("/")[0]
        ours = [o[name] for o, _ in rounds if "us" in o.get(name, {})]
        row = {"name": name, "kind": kind}
        rows.append(row)
        if not ours:
            row["error"] = next((o[name].get("error") for o, _ in rounds if name in o), "")
            continue
        for key in ("us", "tflops", "gbytes", "of_copy"):
            if key in ours[0]:
                row[key] = statistics.median(o[key] for o in ours)
        pairs = [(o[name]["us"], p[name]) for o, p in rounds if "us" in o.get(name, {}) and "us" in p.get(name, {})]
        if pairs:
            ratios = sorted(p["us"] / us for us, p in pairs)
            row["peer_us"] = statistics.median(p["us"] for _, p in pairs)
            row["how"] = pairs[0][1].get("how", "")
            row["ratio"], row["ratio_range"] = statistics.median(ratios), [ratios[0], ratios[-1]]
        if "of_copy" in row and kind != "copy":
            row["goal"], row["met"] = f">= {100 * BANDWIDTH_GOAL:.0f}% of copy", row["of_copy"] >= BANDWIDTH_GOAL
        if kind in RATIO_GOALS:
            row["goal"] = f">= {RATIO_GOALS[kind]}"
            row["met"] = row["ratio"] >= RATIO_GOALS[kind] if "ratio" in row else None
    return rows


def time_text(us):
    return f"{us / 1e3:.2f} ms" if us >= 1e4 else f"{us:.1f} µs"


def cells(row):
    """name, ours, what it comes to, PyTorch, ratio, goal."""
    if "us" not in row:
        return [row["name"], "failed: " + str(row.get("error", "")), "", "", "", ""]
    speed = ""
    if "tflops" in row:
        speed = f"{row['tflops']:.3g} TFLOP/s"
    elif "gbytes" in row:
        speed = f"{row['gbytes']:.0f} GB/s" + (f", {100 * row['of_copy']:.0f}% of copy" if "of_copy" in row else "")
    peer = f"{time_text(row['peer_us'])} ({row['how']})" if "peer_us" in row else "–"
    ratio = f"{row['ratio']:.2f} ({row['ratio_range'][0]:.2f}–{row['ratio_range'][1]:.2f})" if "ratio" in row else "–"
    goal = ""
    if "goal" in row:
        goal = row["goal"] + (": met" if row["met"] else ": missed" if row["met"] is False else ": not compared")
    return [row["name"], time_text(row["us"]), speed, peer, ratio, goal]


HEADER = ["what", "ours", "that is", "PyTorch", "PyTorch's time / ours (range)", "goal"]


def table(rows):
    lines = [HEADER] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def markdown(rows, about):
    lines = [f"### {about['device']}, {about['date']}", "",
             f"Driver {about['driver']}, CUDA {about['cuda']}, PyTorch {about['torch']}, revision {about['revision']}; "
             f"{about['rounds']} rounds, ours and PyTorch alternating.", "",
             "| " + " | ".join(HEADER) + " |", "|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join([f"`{c[0]}`", *c[1:]]) + " |" for c in map(cells, rows)]
    return "\n".join(lines) + "\n"


# ---- running ----

class Peer:
    """peers.py --serve: started once, asked group by group. `about` is empty and `ask` returns nothing if it cannot run."""

    def __init__(self, wanted):
        self.process, self.about = None, {}
        if not wanted:
            return
        self.process = subprocess.Popen([sys.executable, str(HERE / "peers.py"), "--serve"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, cwd=HERE)
        first = self.process.stdout.readline()
        if not first:
            print("PyTorch does not run here (the reason stands above): nothing to compare with.")
            self.process = None
            return
        self.about = json.loads(first)

    def ask(self, group):
        if self.process is None or group in NO_PEER:
            return {}
        lines = []
        try:
            self.process.stdin.write(group + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith('{"done"'):
                    break
                if line.startswith("{"):
                    lines.append(line)
            else:
                raise BrokenPipeError
        except BrokenPipeError:
            print(f"PyTorch's side ended during {group}: nothing to compare with from here on.")
            self.process = None
        return read_peer(lines)


def run_ours(bin_folder, group, quick):
    program, pattern = GROUPS[group]
    if group != "step":
        command = [f"{bin_folder}/{program}", f"--benchmark_filter={pattern}", "--benchmark_format=json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return read_google_benchmark(done.stdout[done.stdout.index("{"):])
    results = {}
    for batch, tokens in STEPS[:1] if quick else STEPS:
        with tempfile.NamedTemporaryFile(suffix=".jsonl") as f:
            command = [f"{bin_folder}/{program}", "bench", "--device", "cuda", "--dtype", "bf16", "--batch", str(batch),
                       "--tokens", str(tokens), "--steps", "10" if quick else "30", "--metrics", f.name]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
            results |= read_step(pathlib.Path(f.name).read_text().splitlines()[-1], batch, tokens)
    return results


def first_line(command, cwd=None):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="build/cuda/bin")
    parser.add_argument("--out", default="build/gpu", type=pathlib.Path)
    parser.add_argument("--only", nargs="*", choices=GROUPS, help="these groups")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, and of the step few repetitions at one size")
    parser.add_argument("--no-peer", action="store_true")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    device = first_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]).split(", ")
    peer = Peer(not args.no_peer)
    revision = ROOT / "REVISION"
    about = {"device": device[0] or "an unnamed device", "driver": device[1] if len(device) > 1 else "unknown",
             "cuda": peer.about.get("cuda", "unknown"), "torch": peer.about.get("torch", "not there"), "rounds": rounds,
             "revision": revision.read_text().strip() if revision.exists() else first_line(["git", "log", "-1", "--format=%h, %cs"], ROOT),
             "date": datetime.date.today().isoformat()}
    print(", ".join(f"{key} {value}" for key, value in about.items()), flush=True)

    measured = [({}, {}) for _ in range(rounds)]
    failed = False
    for group in args.only or GROUPS:
        for number, (ours, theirs) in enumerate(measured):
            try:
                ours |= run_ours(args.bin, group, args.quick)
            except (OSError, RuntimeError, ValueError, KeyError, IndexError) as error:
                print(f"{group} did not run: {error}", flush=True)
                failed = True
                break
            theirs |= peer.ask(group)
            print(f"{group}: round {number + 1} of {rounds}", flush=True)
            if group in NO_PEER:
                break
        rows = combine(measured)
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "results.json").write_text(json.dumps({"about": about, "rows": rows, "rounds": measured}, indent=1) + "\n")
        (args.out / "results.md").write_text(markdown(rows, about))
    print()
    print(table(rows))
    missed = [row["name"] for row in rows if row.get("met") is False]
    failed = failed or any("us" not in row for row in rows)
    print(f"\n{sum(1 for row in rows if row.get('met'))} goals met, {len(missed)} missed" + (": " + ", ".join(missed) if missed else ""))
    print(f"wrote {args.out}/results.json and results.md")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
