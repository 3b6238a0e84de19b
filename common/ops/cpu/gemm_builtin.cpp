// The matrix product by our own hands: blocks that fit the caches around an inner loop that fits the
// registers (Goto and van de Geijn 2008; Van Zee and van de Geijn 2015). Chapter 3.
//
// C (m, n) = A (m, k) B (k, n) is cut three times:
//   * k into pieces of at most 384, and n into blocks so that one of B fills at most three quarters of the
//     second-level cache: the threads copy such a block together, as panels of 48 columns (16 with AVX2), and
//     it stays there,
//   * m into strips of eight (or six) rows, which the threads share out: eight rows of A (12 KB) stay in the
//     first-level cache while all panels of the block pass by,
//   * a strip times a panel is the inner loop of block_product.h: 8 x 48 (or 6 x 16) sums in registers.
// Odd ends are padded with zeros where B is copied, so the inner loop never sees them.
//
// An element of C is always the same chain of fused multiply-adds in the order of k, in pieces that depend on
// k alone. Neither the number of threads nor the size of the rest of the matrix changes a bit of it.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/core/threads.h"
#include "common/ops/cpu/block_product.h"
#include "common/ops/cpu/gemm.h"
#include "common/ops/cpu/scratch.h"
#include "common/ops/cpu/transpose.h"
#include "common/ops/cpu/vec.h"

namespace llm {

namespace cpu {

namespace {

constexpr Index kPanel = kTileVectors * kLanes;  // columns of C per inner loop
constexpr Index kBlockDepth = 384;               // along k
constexpr Index kPackRows = 8 * kTileRows;       // rows of A packed at a time, if they must be
constexpr Index kGrainWork = 250'000;            // multiplications worth a part of a loop

/// How many elements of B are copied at a time.
Index block_size() {
  static const Index elements = [] {
    const long cache = sysconf(_SC_LEVEL2_CACHE_SIZE);  // 0 or -1 where it is not known
    return (cache > 0 ? Index{cache} : Index{512} << 10) * 3 / 4 / static_cast<Index>(sizeof(float));
  }();
  return elements;
}

Index divide_up(Index n, Index by) {
  return (n + by - 1) / by;
}

/// A matrix in memory: element (i, j) is data[i row + j column]; one of the two strides is 1.
struct Strided {
  const float* data;
  Index row, column;
  const float* at(Index i, Index j) const { return data + i * row + j * column; }
};

/// The width of the panel that begins at column j of a block, to whole vectors.
Index panel_width(Index block_columns, Index j) {
  return std::min(kPanel, divide_up(block_columns - j, kLanes) * kLanes);
}

/// A block of C, and of the sums: columns [column, column + columns) and the products [k, k + depth).
struct Block {
  Index column, columns, k, depth;
};

// B (depth, columns) of a block times alpha becomes panels of kPanel columns (the last may be narrower), each
// (depth, width) and one after the other, with zeros beyond the last column. Several threads do it together:
// each copies what lies together in memory.

/// Panels [first, last) of B that is stored (columns, depth), as the transpose of a row-major matrix.
void pack_panels(float* panels, const Strided& b, const Block& block, float alpha, Index first, Index last) {
  const Index begin = first * kPanel;
  const Index end = std::min(divide_up(block.columns, kLanes) * kLanes, last * kPanel);
  for (Index j = begin; j < end; j += kLanes) {
    const Index panel = j / kPanel * kPanel;
    transpose_block(panels + panel * block.depth + (j - panel), panel_width(block.columns, panel), b.at(0, j),
                    b.column, std::min(kLanes, block.columns - j), block.depth);
  }
  if (alpha != 1)
    for (Index i = begin * block.depth; i < end * block.depth; ++i) panels[i] *= alpha;
}

/// Rows [begin, end) of row-major B into all panels.
///
/// Eight rows at a time: memory is read in order, eight streams at once, and written in stretches. (Panels
/// lie a multiple of 4 KB apart, so single rows would all be written to the same few places of the
/// first-level cache.)
constexpr Index kRowsAtOnce = 8;
void pack_rows(float* panels, const Strided& b, const Block& block, float alpha, Index begin, Index end) {
  for (Index first = begin; first < end; first += kRowsAtOnce)
    for (Index panel = 0; panel < block.columns; panel += kPanel) {
      const Index width = panel_width(block.columns, panel);
      for (Index p = first; p < std::min(end, first + kRowsAtOnce); ++p) {
        float* to = panels + panel * block.depth + p * width;
        for (Index j = 0; j < width; j += kLanes) {
          const Index count = block.columns - panel - j;
          const float* from = b.at(p, panel + j);
          store(to + j, alpha * (count >= kLanes ? load(from) : load_part(from, count)));
        }
      }
    }
}

/// All panels of a block, by all threads.
void pack_block(float* panels, const Product& o, const Block& block) {
  constexpr Index kGrain = 8'192;  // numbers worth a part of the loop
  if (o.transpose_b) {
    const Strided b{o.b + block.column * o.ldb + block.k, 1, o.ldb};
    parallel_for(divide_up(block.columns, kPanel), 1 + kGrain / (kPanel * (block.depth + 1)),
                 [&](Index first, Index last) { pack_panels(panels, b, block, o.alpha, first, last); });
  } else {
    const Strided b{o.b + block.k * o.ldb + block.column, o.ldb, 1};
    parallel_for(divide_up(block.depth, kRowsAtOnce), 1 + kGrain / (kRowsAtOnce * block.columns),
                 [&](Index first, Index last) {
                   pack_rows(panels, b, block, o.alpha, first * kRowsAtOnce,
                             std::min(block.depth, last * kRowsAtOnce));
                 });
  }
}

/// Rows of A (at most kPackRows) that is stored by columns -> strips, each (depth, kTileRows), zeros beyond
/// the last row. Whole cache lines of a column are used at each visit; columns lie on different pages, where
/// the processor does not fetch ahead by itself.
void pack_strips(float* strips, const Strided& a, Index depth, Index rows) {
  constexpr Index kAhead = 16, kLine = 16;
  for (Index p = 0; p < depth; ++p) {
    for (Index i = 0; i < rows; i += kLine) __builtin_prefetch(a.at(i, p + kAhead));
    for (Index i = 0; i < rows; i += kTileRows) {
      float* to = strips + i * depth + p * kTileRows;
      if (rows - i >= kTileRows) {
        std::memcpy(to, a.at(i, p), kTileRows * sizeof(float));
      } else {
        for (Index r = 0; r < kTileRows; ++r) to[r] = i + r < rows ? *a.at(i + r, p) : 0;
      }
    }
  }
}

/// What happens to the sums of a tile: C = sums + beta C + bias.
struct Finish {
  float beta;
  const float* bias;  // of this tile's first column, or null
};

/// One row of a tile that may be narrower than its vectors.
void finish_row(float* c, const float* sums, Index columns, const Finish& finish) {
  for (Index j = 0; j < columns; ++j) {
    float value = sums[j];
    if (finish.beta != 0) value += finish.beta * c[j];
    if (finish.bias) value += finish.bias[j];
    c[j] = value;
  }
}

/// C (rows <= kTileRows, columns <= 16 Vectors) from a strip of A and a panel of B.
template <int Vectors>
void tile(float* c, Index ldc, Index rows, Index columns, const Finish& finish, const float* a, Index a_row,
          Index a_column, const float* panel, Index depth) {
  for (Index i = 0; i < rows; ++i)
    for (int v = 0; v < Vectors; ++v) __builtin_prefetch(c + i * ldc + v * kLanes, 1);
  Vec total[kTileRows][Vectors] = {};
  if (a_column == 1)
    tile_sums(total, a, a_row, 1, panel, Vectors * kLanes, depth);
  else
    tile_sums(total, a, 1, kTileRows, panel, Vectors * kLanes, depth);
  // `total` lives in registers as long as every index into it is a constant.
  if (rows == kTileRows && columns == Vectors * kLanes) {
    if (const float beta = finish.beta; beta != 0)
#pragma GCC unroll 8
      for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
        for (int v = 0; v < Vectors; ++v) total[i][v] += beta * load(c + i * ldc + v * kLanes);
    if (const float* bias = finish.bias)
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 8
        for (Index i = 0; i < kTileRows; ++i) total[i][v] += load(bias + v * kLanes);
#pragma GCC unroll 8
    for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) store(c + i * ldc + v * kLanes, total[i][v]);
    return;
  }
  float sums[kTileRows * Vectors * kLanes];
#pragma GCC unroll 8
  for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) store(sums + (i * Vectors + v) * kLanes, total[i][v]);
  for (Index i = 0; i < rows; ++i) finish_row(c + i * ldc, sums + i * Vectors * kLanes, columns, finish);
}

/// The tile of as few vectors as hold `columns`, at most MaxVectors.
template <int MaxVectors>
void tile_of_width(float* c, Index ldc, Index rows, Index columns, const Finish& finish, const float* a,
                   Index a_row, Index a_column, const float* panel, Index depth) {
  if constexpr (MaxVectors > 1)
    if (columns <= (MaxVectors - 1) * kLanes)
      return tile_of_width<MaxVectors - 1>(c, ldc, rows, columns, finish, a, a_row, a_column, panel, depth);
  tile<MaxVectors>(c, ldc, rows, columns, finish, a, a_row, a_column, panel, depth);
}

/// Strips [first, last) of a block of C, on the calling thread. `panels` is B.
void multiply_strips(const Product& o, const Block& block, const float* panels, Index first, Index last) {
  const Strided a = o.transpose_a ? Strided{o.a, 1, o.lda} : Strided{o.a, o.lda, 1};
  static thread_local Scratch scratch;
  float* const strips = scratch.floats(block.depth * kPackRows);
  const float beta = block.k == 0 ? o.beta : 1;
  const float* bias = block.k == 0 && o.bias ? o.bias + block.column : nullptr;
  const Index end = std::min(o.m, last * kTileRows);
  for (Index i = first * kTileRows; i < end; i += kTileRows) {
    const Index height = std::min(kTileRows, o.m - i);
    const float* strip = a.at(i, block.k);
    Index strip_row = a.row, strip_column = a.column;
    if (a.row == 1) {
      const Index within = (i - first * kTileRows) % kPackRows;
      if (within == 0)
        pack_strips(strips, {strip, a.row, a.column}, block.depth, std::min(kPackRows, end - i));
      strip = strips + within * block.depth;
      strip_column = kTileRows;
    } else if (height < kTileRows) {
      for (Index p = 0; p < block.depth; ++p)
        for (Index r = 0; r < kTileRows; ++r)
          strips[p * kTileRows + r] = r < height ? *a.at(i + r, block.k + p) : 0;
      strip = strips;
      strip_row = 1;
      strip_column = kTileRows;
    }
    for (Index j = 0; j < block.columns; j += kPanel)
      tile_of_width<kTileVectors>(o.c + i * o.ldc + block.column + j, o.ldc, height,
                                  std::min(kPanel, block.columns - j), {beta, bias ? bias + j : nullptr},
                                  strip, strip_row, strip_column, panels + j * block.depth, block.depth);
  }
}

/// All blocks, one after the other: the threads copy B together, then share out the strips.
void multiply_blocks(const Product& o) {
  const Index pieces = std::max<Index>(1, divide_up(o.k, kBlockDepth));
  const Index max_depth = divide_up(o.k, pieces);
  const Index all_panels = divide_up(o.n, kPanel);
  const Index blocks = std::max<Index>(1, divide_up(all_panels * kPanel * max_depth, block_size()));
  const Index max_columns = divide_up(all_panels, blocks) * kPanel;
  static thread_local Scratch scratch;
  float* const panels = scratch.floats(max_depth * max_columns);

  Block block;
  for (block.column = 0; block.column < o.n; block.column += max_columns) {
    block.columns = std::min(max_columns, o.n - block.column);
    for (Index piece = 0; piece < pieces; ++piece) {
      block.k = piece * max_depth;
      block.depth = std::min(max_depth, o.k - block.k);
      pack_block(panels, o, block);
      parallel_for(divide_up(o.m, kTileRows),
                   1 + kGrainWork / (kTileRows * block.columns * (block.depth + 1)),
                   [&](Index first, Index last) { multiply_strips(o, block, panels, first, last); });
    }
  }
}

}  // namespace

void multiply(const Product& o) {
  if (o.m <= 0 || o.n <= 0) return;
  const Index strips = divide_up(o.m, kTileRows), panels = divide_up(o.n, kPanel);
  if (strips >= 8 * thread_count() || strips >= panels) return multiply_blocks(o);
  // Few rows: the threads share out the columns, and each copies the part of B that it needs.
  parallel_for(panels, 1 + kGrainWork / (kPanel * o.m * (o.k + 1)), [&](Index first, Index last) {
    const Index column = first * kPanel;
    Product part = o;
    part.n = std::min(o.n, last * kPanel) - column;
    part.b += column * (o.transpose_b ? o.ldb : 1);
    part.c += column;
    if (o.bias) part.bias += column;
    multiply_blocks(part);  // loops within a part stay on its thread
  });
}

}  // namespace cpu

std::string describe_gemm() {
  return "built-in matrix product";
}

}  // namespace llm
