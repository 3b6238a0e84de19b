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
#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

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
  std::uint64_t number;  // no other block has it
};

/// A product as it is computed: C = A B as asked for, or C^T = B^T A^T.
struct Task : Product {
  Index c_row, c_column;  // from one row and column of C to the next
};
Task task_of(const Product& o) {
  Task task{o, o.ldc, 1};
  // Columns of A are packed once for each block of columns of C: better the wider of the two matrices, unless
  // that takes more tiles. (Where alpha is rounded into B, it must not depend on the sizes which of them is
  // B.)
  const auto tiles = [](Index m, Index n) { return divide_up(m, kTileRows) * divide_up(n, kPanel); };
  if (o.transpose_a && o.alpha == 1 && !o.bias && o.n > o.m && tiles(o.n, o.m) <= tiles(o.m, o.n)) {
    task.transpose_a = !o.transpose_b;
    task.transpose_b = false;
    std::swap(task.m, task.n);
    std::swap(task.a, task.b);
    std::swap(task.lda, task.ldb);
    std::swap(task.c_row, task.c_column);
  }
  return task;
}

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
void pack_block(float* panels, const Task& o, const Block& block) {
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

/// Rows of A (at most kPackRows, stored by columns; or fewer than kTileRows) -> strips, each
/// (depth, kTileRows), zeros beyond the last row. Whole cache lines of a column are used at each visit;
/// columns lie on different pages, where the processor does not fetch ahead by itself.
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

/// The strip that begins at row i of A, for the products [k, k + depth) of a block: (depth, kTileRows).
/// Where A is stored by columns, strips are packed kPackRows rows at a time and kept until the thread goes on
/// to others.
const float* packed_strip(const Strided& a, const Block& block, Index all_rows, Index i) {
  static thread_local struct {
    std::uint64_t block = 0;
    Index first = 0;
    Scratch memory;
  } kept;
  const Index first = a.row == 1 ? i / kPackRows * kPackRows : i;
  float* const strips = kept.memory.floats(block.depth * kPackRows);
  if (kept.block != block.number || kept.first != first) {
    pack_strips(strips, {a.at(first, block.k), a.row, a.column}, block.depth,
                std::min(kPackRows, all_rows - first));
    kept.block = block.number;
    kept.first = first;
  }
  return strips + (i - first) * block.depth;
}

/// Where the sums of a tile go: C = sums + beta C + bias.
struct Target {
  float* c;
  Index row, column;  // from one row and column of C to the next; one of the two is 1
  float beta;
  const float* bias;  // of the tile's first column, or null
};

/// Sums (rows, columns) that lie in rows of `width`, one by one: a tile at the edge, or one of C^T.
void finish(const Target& to, const float* sums, Index width, Index rows, Index columns) {
  const auto put = [&](Index i, Index j) {
    float& c = to.c[i * to.row + j * to.column];
    float value = sums[i * width + j];
    if (to.beta != 0) value += to.beta * c;
    if (to.bias) value += to.bias[j];
    c = value;
  };
  for (Index j = 0; j < columns; ++j)
    if (rows == kTileRows) {
#pragma GCC unroll 8
      for (Index i = 0; i < kTileRows; ++i) put(i, j);
    } else {
      for (Index i = 0; i < rows; ++i) put(i, j);
    }
}

/// C (rows <= kTileRows, columns <= 16 Vectors) from a strip of A and a panel of B.
template <int Vectors>
void tile(const Target& to, Index rows, Index columns, const float* a, Index a_row, Index a_column,
          const float* panel, Index depth) {
  const bool by_rows = to.column == 1;
  if (by_rows) {
    for (Index i = 0; i < rows; ++i)
      for (int v = 0; v < Vectors; ++v) __builtin_prefetch(to.c + i * to.row + v * kLanes, 1);
  } else {
    for (Index j = 0; j < columns; ++j) __builtin_prefetch(to.c + j * to.column, 1);
  }
  Vec total[kTileRows][Vectors] = {};
  if (a_column == 1)
    tile_sums(total, a, a_row, 1, panel, Vectors * kLanes, depth);
  else
    tile_sums(total, a, 1, kTileRows, panel, Vectors * kLanes, depth);
  // `total` lives in registers as long as every index into it is a constant.
  if (by_rows && rows == kTileRows && columns == Vectors * kLanes) {
    if (const float beta = to.beta; beta != 0)
#pragma GCC unroll 8
      for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
        for (int v = 0; v < Vectors; ++v) total[i][v] += beta * load(to.c + i * to.row + v * kLanes);
    if (const float* bias = to.bias)
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v)
#pragma GCC unroll 8
        for (Index i = 0; i < kTileRows; ++i) total[i][v] += load(bias + v * kLanes);
#pragma GCC unroll 8
    for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
      for (int v = 0; v < Vectors; ++v) store(to.c + i * to.row + v * kLanes, total[i][v]);
    return;
  }
  float sums[kTileRows * Vectors * kLanes];
#pragma GCC unroll 8
  for (Index i = 0; i < kTileRows; ++i)
#pragma GCC unroll 3
    for (int v = 0; v < Vectors; ++v) store(sums + (i * Vectors + v) * kLanes, total[i][v]);
  finish(to, sums, Vectors * kLanes, rows, columns);
}

/// The tile of as few vectors as hold `columns`, at most MaxVectors.
template <int MaxVectors>
void tile_of_width(const Target& to, Index rows, Index columns, const float* a, Index a_row, Index a_column,
                   const float* panel, Index depth) {
  if constexpr (MaxVectors > 1)
    if (columns <= (MaxVectors - 1) * kLanes)
      return tile_of_width<MaxVectors - 1>(to, rows, columns, a, a_row, a_column, panel, depth);
  tile<MaxVectors>(to, rows, columns, a, a_row, a_column, panel, depth);
}

/// Strips [first, last) of a block of C, on the calling thread. `panels` is B.
void multiply_strips(const Task& o, const Block& block, const float* panels, Index first, Index last) {
  const Strided a = o.transpose_a ? Strided{o.a, 1, o.lda} : Strided{o.a, o.lda, 1};
  const float beta = block.k == 0 ? o.beta : 1;
  const float* bias = block.k == 0 && o.bias ? o.bias + block.column : nullptr;
  for (Index i = first * kTileRows; i < std::min(o.m, last * kTileRows); i += kTileRows) {
    const Index height = std::min(kTileRows, o.m - i);
    const bool in_place = a.column == 1 && height == kTileRows;
    const float* strip = in_place ? a.at(i, block.k) : packed_strip(a, block, o.m, i);
    for (Index j = 0; j < block.columns; j += kPanel)
      tile_of_width<kTileVectors>({o.c + i * o.c_row + (block.column + j) * o.c_column, o.c_row, o.c_column,
                                   beta, bias ? bias + j : nullptr},
                                  height, std::min(kPanel, block.columns - j), strip, in_place ? a.row : 1,
                                  in_place ? 1 : kTileRows, panels + j * block.depth, block.depth);
  }
}

/// All blocks, one after the other: the threads copy B together, then share out the strips.
void multiply_blocks(const Task& o) {
  const Index pieces = std::max<Index>(1, divide_up(o.k, kBlockDepth));
  const Index max_depth = divide_up(o.k, pieces);
  const Index all_panels = divide_up(o.n, kPanel);
  const Index blocks = std::max<Index>(1, divide_up(all_panels * kPanel * max_depth, block_size()));
  const Index max_columns = divide_up(all_panels, blocks) * kPanel;
  static thread_local Scratch scratch;
  float* const panels = scratch.floats(max_depth * max_columns);

  static std::atomic<std::uint64_t> blocks_begun = 0;
  Block block;
  for (block.column = 0; block.column < o.n; block.column += max_columns) {
    block.columns = std::min(max_columns, o.n - block.column);
    for (Index piece = 0; piece < pieces; ++piece) {
      block.k = piece * max_depth;
      block.depth = std::min(max_depth, o.k - block.k);
      block.number = ++blocks_begun;
      pack_block(panels, o, block);
      parallel_for(divide_up(o.m, kTileRows),
                   1 + kGrainWork / (kTileRows * block.columns * (block.depth + 1)),
                   [&](Index first, Index last) { multiply_strips(o, block, panels, first, last); });
    }
  }
}

}  // namespace

void multiply(const Product& product) {
  if (product.m <= 0 || product.n <= 0) return;
  const Task o = task_of(product);
  const Index strips = divide_up(o.m, kTileRows), panels = divide_up(o.n, kPanel);
  if (strips >= 8 * thread_count() || strips >= panels) return multiply_blocks(o);
  // Few rows: the threads share out the columns, and each copies the part of B that it needs.
  parallel_for(panels, 1 + kGrainWork / (kPanel * o.m * (o.k + 1)), [&](Index first, Index last) {
    const Index column = first * kPanel;
    Task part = o;
    part.n = std::min(o.n, last * kPanel) - column;
    part.b += column * (o.transpose_b ? o.ldb : 1);
    part.c += column * o.c_column;
    if (o.bias) part.bias += column;
    multiply_blocks(part);  // loops within a part stay on its thread
  });
}

}  // namespace cpu

std::string describe_gemm() {
  return "built-in matrix product";
}

}  // namespace llm
