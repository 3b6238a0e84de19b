#!/usr/bin/env python3
"""The way back: does transformers load a model folder that this project wrote, and give the same logits?

    ch04_gpt_model logits --model DIR --tokens 1,2,3,4,5 --out logits.safetensors
    python tests/golden/check_written_model.py DIR 1,2,3,4,5 logits.safetensors

Fails if a key is missing, unexpected or of another shape, or if the logits differ by more than 1e-5 (Euclidean
norm of the difference over the norm). With PyTorch 2.15.0 and transformers 5.23.0; the tests do not need it.
"""
import sys

import safetensors.torch
import torch
import transformers


def main():
    folder, tokens, ours = sys.argv[1], [int(x) for x in sys.argv[2].split(",")], sys.argv[3]
    model, info = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        print(f"{key}: {list(info[key])}")
        assert not info[key]
    with torch.no_grad():
        theirs = model.eval().double()(torch.tensor([tokens])).logits[0]
    logits = safetensors.torch.load_file(ours)["logits"].double()
    distance = ((logits - theirs).norm() / theirs.norm()).item()
    print(f"logits {tuple(logits.shape)}: relative distance {distance:.2e}")
    assert distance < 1e-5


if __name__ == "__main__":
    main()
