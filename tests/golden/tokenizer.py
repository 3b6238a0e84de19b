#!/usr/bin/env python3
"""Golden files for the tokenizer tests: what tiktoken, Hugging Face's tokenizers and the regex module say.

    python tests/golden/tokenizer.py [FOLDER with gpt2/ and tinyshakespeare.txt, the-verdict.txt]

Made with Python 3.11, tiktoken 0.14.0, tokenizers 0.23.3, regex (V0), seed 2026. Writes into tests/golden/data:
  tokenizer_sample.txt    a made-up text in several scripts
  tokenizer_merges.txt    the merges that tokenizers' ByteLevelBPETokenizer learns from it (vocab_size 1000)
  tokenizer_classes.txt   runs of code points and their class: L, N, S (white space), O
  tokenizer_strings.json  strings: the pieces of GPT-2's rule, the tokens of the small vocabulary, GPT-2's tokens
  tokenizer_gpt2.json     number and FNV-1a hash of the GPT-2 tokens of two texts
"""
import json
import pathlib
import random
import sys
import unicodedata

import regex
import tiktoken
import tokenizers

PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
OUT = pathlib.Path(__file__).parent / "data"

WORDS = """the a and of to in was it she he they said with on at had but for not his her you that is
kite river morning lantern garden window market teacher button harbour umbrella whisper thunder blanket
paper bridge candle winter summer pocket mountain shadow silver copper little quick slowly gently running
jumped walked carried answered wondered remembered forgotten breaking unbroken misunderstanding
straße café naïve über Ελλάδα θάλασσα Москва зима река снег 東京 山 川 水 日本語 한국어 바다
مدينة بحر שלום ים नमस्ते नदी""".split()
ODD = ["don't", "it's", "we'll", "they've", "I'm", "you're", "she'd", "DON'T", "1984", "3.14", "42", "१२३", "٣٤", "Ⅷ",
       "½", "x²", "--", "...", "?!", "“yes”", "e\u0301", "👍🏽", "👩‍👩‍👧", "\u3000", "\u00a0", "\t", "  ", "   ", "\n\n", "\r\n"]


def sample_text(rng):
    weights = [1 / (i + 1) for i in range(len(WORDS))]
    lines = []
    for _ in range(420):
        words = []
        for _ in range(rng.randint(3, 16)):
            words.append(rng.choice(ODD) if rng.random() < 0.06 else rng.choices(WORDS, weights)[0])
        lines.append((" ".join(words)).capitalize() + rng.choice([".", ".", "!", "?", ","]))
    return "\n".join(lines) + "\n"


def byte_table():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(others)}}


def to_tiktoken(name, vocab, special):
    table = byte_table()
    ranks = {bytes(table[c] for c in token): i for token, i in vocab.items() if token != special}
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={special: vocab[special]})


def character_class(c):
    return "S" if regex.match(r"\s", c) else "L" if regex.match(r"\p{L}", c) else "N" if regex.match(r"\p{N}", c) else "O"


def classes():
    """Only characters that were assigned in Unicode 3.2, so that no library is too old."""
    runs = []
    for i in range(0x110000):
        c = chr(i)
        if 0xD800 <= i < 0xE000 or unicodedata.ucd_3_2_0.category(c) == "Cn":
            continue
        k = character_class(c)
        if runs and runs[-1][1] == i - 1 and runs[-1][2] == k:
            runs[-1][1] = i
        else:
            runs.append([i, i, k])
    return "".join(f"{a:X} {b:X} {k}\n" for a, b, k in runs)


def strings(rng):
    fixed = ["", " ", "  ", "\n", " \n", "a", " a", "  a", "   a", "a ", "a  ", "a \n b", "\n\na", "\t\ta", "a\u00a0b", "a \u00a0b",
             "\u00a0 a", "\u3000\u3000a", " \u2003 x", "\u0085x", "\x1c\x1dx", "\u200b\u200bx", "\ufeffx", "\u180ex",
             "don't", "DON'T", "don't've", "'s", " 's", "''s", "x's", "'sx", "'re", "'r", "'", "''", "I'll'd", "it’s",
             "ab12", "12ab", " 12", "  12", "1,234.50", "x²½Ⅷ", "१२३ नमस्ते", "٣٤٥", "e\u0301tude", "\u0301", " \u0301a",
             "👍🏽 ok", "👩‍👩‍👧", "🇫🇷🇯🇵", "日本語テキスト 東京", "Ελλάδα;", "мир-дверь", "שלום עולם", "مرحبا 123", "ﬁ ß İ ı ǅ ʰ ª",
             "<|endoftext|>", "a<|endoftext|>b", "\x00\x00", "a\x00b", "\x7f", "~~~===~~~", "if (x) {\n    return y;\n}\n",
             "https://example.org/a?b=c&d=%20", "a" * 300, " " * 40 + "a", "ab" * 100, "\n" * 20, "\r\n\r\n a", "\U0001D7D8\U0001D400",
             "aaaa aaa aa a", "hello hello hellohello", "'ſ", "K", "\u2028\u2029 x", "_a_ __b__"]
    pool = [" "] * 12 + list("abctsdmrvelL'’.,-!01९²\n\t\r\u00a0\u2003\u3000\u0085\u200béßЖ東한ש̈👍\u200d_")
    pool += ["'s", "'ll", "the", " the", "\x00", "\x1f"]
    return fixed + ["".join(rng.choice(pool) for _ in range(rng.randint(1, 24))) for _ in range(300)]


def fnv1a(ids):
    h = 0xCBF29CE484222325
    for i in ids:
        h = (h ^ i) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def main():
    rng = random.Random(2026)
    text = sample_text(rng)
    (OUT / "tokenizer_sample.txt").write_bytes(text.encode())
    (OUT / "tokenizer_classes.txt").write_text(classes())

    trained = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    trained.train_from_iterator([text], vocab_size=999, min_frequency=2, show_progress=False)
    vocab = trained.get_vocab()
    state = json.loads(trained.to_str())["model"]
    merges = [" ".join(m) if isinstance(m, list) else m for m in state["merges"]]
    (OUT / "tokenizer_merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    vocab["<|endoftext|>"] = len(vocab)
    small = to_tiktoken("small", vocab, "<|endoftext|>")

    gpt2 = None
    if len(sys.argv) > 1:
        data = pathlib.Path(sys.argv[1])
        gpt2 = to_tiktoken("gpt2", json.loads((data / "gpt2/vocab.json").read_text()), "<|endoftext|>")
        texts = {}
        for name in ["tinyshakespeare.txt", "the-verdict.txt"]:
            ids = gpt2.encode_ordinary((data / name).read_bytes().decode())
            texts[name] = {"tokens": len(ids), "first": ids[:10], "fnv1a": fnv1a(ids)}
        (OUT / "tokenizer_gpt2.json").write_text(json.dumps(texts, indent=1) + "\n")

    rows = []
    for s in strings(rng):
        pieces = regex.findall(PATTERN, s)
        assert "".join(pieces) == s
        ids = small.encode_ordinary(s)
        assert ids == trained.encode(s).ids, s  # the two oracles agree
        row = {"text": s, "pieces": [len(p.encode()) for p in pieces], "small": ids}
        if gpt2:
            row["gpt2"] = gpt2.encode_ordinary(s)
        rows.append(json.dumps(row, separators=(",", ":")))
    (OUT / "tokenizer_strings.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")


if __name__ == "__main__":
    main()
