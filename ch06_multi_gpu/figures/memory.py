"""Draws memory.svg: bytes of a rank under each ZeRO stage, for 7.5 billion parameters on 64 ranks (Rajbhandari et al. 2020,
figure 1). Run it in this folder: python3 memory.py > memory.svg"""

PARAMETERS, RANKS = 7.5e9, 64
PARTS = [("parameters", 2, 3, "#2563eb"), ("gradients", 2, 2, "#15803d"), ("optimizer", 12, 1, "#d97706")]

print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 250" width="720" height="250" font-family="sans-serif" font-size="13">')
print('<rect width="720" height="250" rx="8" fill="#ffffff" stroke="#e5e7eb"/>')
print('<text x="24" y="28" font-weight="bold" fill="#1f2937">7.5 billion parameters on 64 ranks: GB per rank</text>')
for stage, name in enumerate(["no ZeRO", "ZeRO-1", "ZeRO-2", "ZeRO-3"]):
    y, x, total = 50 + 40 * stage, 100.0, 0.0
    print(f'<text x="88" y="{y + 18}" text-anchor="end" fill="#4b5563">{name}</text>')
    for _, size, since, color in PARTS:
        gigabytes = size * PARAMETERS / (RANKS if stage >= since else 1) / 1e9
        width = gigabytes * 4.4
        print(f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="26" fill="{color}"/>')
        x += width
        total += gigabytes
    print(f'<text x="{x + 8:.1f}" y="{y + 18}" fill="#1f2937">{total:.1f}</text>')
for i, (name, size, _, color) in enumerate(PARTS):
    print(f'<rect x="{100 + 190 * i}" y="216" width="12" height="12" fill="{color}"/>')
    print(f'<text x="{118 + 190 * i}" y="227" fill="#4b5563">{name}, {size} bytes each</text>')
print('</svg>')
