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
// A^T has to be copied as well, as strips, which is slower than copying panels. So where A^T is the smaller
// of the two (in the weight gradient of a layer with fewer outputs than inputs) the roles change: the threads
// copy strips of A^T together and share out the panels of B, and each panel is copied by the thread that
// multiplies it.
//
// An element of C is always the same chain of fused multiply-adds in the order of k, in pieces that depend on
// k alone. Neither the number of threads nor the size of the rest of the matrix changes a bit of it.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
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
constexpr Index kGrainCopy = 2'048;              // and numbers to be copied
constexpr Index kAhead = 16, kLine = 16;         // rows to fetch ahead while copying; floats of a cache line

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

/// k is cut into equal pieces of at most kBlockDepth. (Without any products there is one, of depth 0.)
Index piece_depth(Index k) {
  return divide_up(k, std::max<Index>(1, divide_up(k, kBlockDepth)));
}

/// n columns of B (or rows of A) are cut into equal blocks, each of whole panels (or strips) of `tile`.
Index block_width(Index n, Index tile, Index depth) {
  const Index tiles = divide_up(n, tile);
  return divide_up(tiles, std::max<Index>(1, divide_up(tiles * tile * depth, block_size()))) * tile;
}

/// The width of the panel that begins at column j of a block, to whole vectors.
Index panel_width(Index block_columns, Index j) {
  return std::min(kPanel, divide_up(block_columns - j, kLanes) * kLanes);
}

/// A block of C, and of the sums: columns [column, column + columns) and the products [k, k + depth).
struct Block {
  Index column = 0, columns = 0, k = 0, depth = 0;
  std::uint64_t number = 0;  // of a block of B that was copied by all threads: no other has it
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
      const float* from = b.at(first, panel);
      float* to = panels + panel * block.depth + first * width;
      for (Index p = first; p < std::min(end, first + kRowsAtOnce); ++p, from += b.row, to += width)
        for (Index j = 0; j < width; j += kLanes) {
          const Index count = block.columns - panel - j;
          __builtin_prefetch(from + kAhead * b.row + j);
          store(to + j, alpha * load_up_to(from + j, count));
        }
    }
}

/// All panels of a block, by all threads.
void pack_block(float* panels, const Product& o, const Block& block) {
  if (o.transpose_b) {
    const Strided b{o.b + block.column * o.ldb + block.k, 1, o.ldb};
    parallel_for(divide_up(block.columns, kPanel), 1 + kGrainCopy / (kPanel * (block.depth + 1)),
                 [&](Index first, Index last) { pack_panels(panels, b, block, o.alpha, first, last); });
  } else {
    const Strided b{o.b + block.k * o.ldb + block.column, o.ldb, 1};
    parallel_for(divide_up(block.depth, kRowsAtOnce), 1 + kGrainCopy / (kRowsAtOnce * block.columns),
                 [&](Index first, Index last) {
                   pack_rows(panels, b, block, o.alpha, first * kRowsAtOnce,
                             std::min(block.depth, last * kRowsAtOnce));
                 });
  }
}

/// Products [begin, end) of `rows` rows of A (stored by columns, or fewer than kTileRows) -> strips, each
/// (depth, kTileRows), zeros beyond the last row. Whole cache lines of a column are used at each visit;
/// columns lie on different pages, where the processor does not fetch ahead by itself.
///
/// A has `left` rows from the first strip on. Where two more follow a strip, eight numbers are copied instead
/// of six, as one vector: the next product's overwrite the other two.
void pack_strips(float* strips, const Strided& a, Index depth, Index rows, Index left, Index begin,
                 Index end) {
  constexpr Index kCopied = 8;
  static_assert(kTileRows <= kCopied);
  const Index as_vectors = std::min(rows, left - (kCopied - kTileRows)) / kTileRows * kTileRows;
  for (Index p = begin; p < end; ++p) {
    for (Index i = 0; i < rows; i += kLine) __builtin_prefetch(a.at(i, p + kAhead));
    const float* const from = a.at(0, p);
    float* to = strips + p * kTileRows;
    Index i = 0;
    if (p + 1 < end)  // behind the last product is what others have copied
      for (; i < as_vectors; i += kTileRows, to += kTileRows * depth)
        std::memcpy(to, from + i, kCopied * sizeof(float));
    for (; i < rows; i += kTileRows, to += kTileRows * depth)
      for (Index r = 0; r < kTileRows; ++r) to[r] = i + r < rows ? *a.at(i + r, p) : 0;
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
                std::min(kPackRows, all_rows - first), all_rows - first, 0, block.depth);
    kept.block = block.number;
    kept.first = first;
  }
  return strips + (i - first) * block.depth;
}

/// Where the sums of a tile go: C = sums + beta C + bias.
struct Target {
  float* c;
  Index row;  // from one row of C to the next
  float beta;
  const float* bias;  // of the tile's first column, or null
};

/// That of the tile at row i of C and column j of a block.
Target target(const Product& o, const Block& block, Index i, Index j) {
  const Index column = block.column + j;
  float* const c = o.c + i * o.ldc + column;
  if (block.k > 0) return {c, o.ldc, 1, nullptr};  // adds to the pieces of k before
  return {c, o.ldc, o.beta, o.bias ? o.bias + column : nullptr};
}

/// Sums (rows, columns) that lie in rows of `width`, one by one: a tile at the edge.
void finish(const Target& to, const float* sums, Index width, Index rows, Index columns) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) {
      float& c = to.c[i * to.row + j];
      float value = sums[i * width + j];
      if (to.beta != 0) value += to.beta * c;
      if (to.bias) value += to.bias[j];
      c = value;
    }
}

/// C (rows <= kTileRows, columns <= 16 Vectors) from a strip of A and a panel of B.
template <int Vectors>
void tile(const Target& to, Index rows, Index columns, const float* a, Index a_row, Index a_column,
          const float* panel, Index depth) {
  for (Index i = 0; i < rows; ++i)
    for (int v = 0; v < Vectors; ++v) __builtin_prefetch(to.c + i * to.row + v * kLanes, 1);
  Vec total[kTileRows][Vectors] = {};
  if (a_column == 1)
    tile_sums(total, a, a_row, 1, panel, Vectors * kLanes, depth);
  else
    tile_sums(total, a, 1, kTileRows, panel, Vectors * kLanes, depth);
  // `total` lives in registers as long as every index into it is a constant.
  if (rows == kTileRows && columns == Vectors * kLanes) {
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
void multiply_strips(const Product& o, const Block& block, const float* panels, Index first, Index last) {
  const Strided a = o.transpose_a ? Strided{o.a, 1, o.lda} : Strided{o.a, o.lda, 1};
  for (Index i = first * kTileRows; i < std::min(o.m, last * kTileRows); i += kTileRows) {
    const Index height = std::min(kTileRows, o.m - i);
    const bool in_place = a.column == 1 && height == kTileRows;
    const float* strip = in_place ? a.at(i, block.k) : packed_strip(a, block, o.m, i);
    for (Index j = 0; j < block.columns; j += kPanel)
      tile_of_width<kTileVectors>(target(o, block, i, j), height, std::min(kPanel, block.columns - j), strip,
                                  in_place ? a.row : 1, in_place ? 1 : kTileRows, panels + j * block.depth,
                                  block.depth);
  }
}

/// Blocks of B, one after the other: the threads copy one together, then share out the strips of A.
void multiply_blocks(const Product& o) {
  const Index depth = piece_depth(o.k), width = block_width(o.n, kPanel, depth);
  static thread_local Scratch scratch;
  float* const panels = scratch.floats(depth * width);

  static std::atomic<std::uint64_t> blocks_begun = 0;
  Block block;
  for (block.column = 0; block.column < o.n; block.column += width) {
    block.columns = std::min(width, o.n - block.column);
    block.k = 0;
    do {
      block.depth = std::min(depth, o.k - block.k);
      block.number = ++blocks_begun;
      pack_block(panels, o, block);
      parallel_for(divide_up(o.m, kTileRows),
                   1 + kGrainWork / (kTileRows * block.columns * (block.depth + 1)),
                   [&](Index first, Index last) { multiply_strips(o, block, panels, first, last); });
      block.k += block.depth;
    } while (block.k < o.k);
  }
}

// B's panels are copied two at a time, so that 128 bytes of a row are read together.
constexpr Index kPanelsAtOnce = kParts == 1 ? 1 : 2;
constexpr Index kColumnsAtOnce = kPanelsAtOnce * kPanel;

/// C's rows [row, row + rows) in the columns of a block of at most kColumnsAtOnce, on the calling thread.
void multiply_panels(const Product& o, const Block& block, const float* strips, Index row, Index rows) {
  static thread_local Scratch scratch;
  float* const panels = scratch.floats(block.depth * kColumnsAtOnce);
  if (o.transpose_b)
    pack_panels(panels, {o.b + block.column * o.ldb + block.k, 1, o.ldb}, block, o.alpha, 0, kPanelsAtOnce);
  else
    pack_rows(panels, {o.b + block.k * o.ldb + block.column, o.ldb, 1}, block, o.alpha, 0, block.depth);
  for (Index i = 0; i < rows; i += kTileRows)
    for (Index j = 0; j < block.columns; j += kPanel)
      tile_of_width<kTileVectors>(target(o, block, row + i, j), std::min(kTileRows, rows - i),
                                  std::min(kPanel, block.columns - j), strips + i * block.depth, 1, kTileRows,
                                  panels + j * block.depth, block.depth);
}

/// A^T B, A^T the smaller: blocks of A^T, one after the other. The threads copy one together, then share out
/// the panels of B.
void multiply_blocks_of_a(const Product& o) {
  const Index depth = piece_depth(o.k), height = block_width(o.m, kTileRows, depth);
  static thread_local Scratch scratch;
  float* const strips = scratch.floats(depth * height);
  for (Index row = 0; row < o.m; row += height) {
    const Index rows = std::min(height, o.m - row);
    Block block;
    do {
      block.depth = std::min(depth, o.k - block.k);
      parallel_for(block.depth, 1 + kGrainCopy / rows, [&](Index begin, Index end) {
        pack_strips(strips, {o.a + block.k * o.lda + row, 1, o.lda}, block.depth, rows, o.m - row, begin,
                    end);
      });
      parallel_for(divide_up(o.n, kColumnsAtOnce),
                   1 + kGrainWork / (kColumnsAtOnce * rows * (block.depth + 1)),
                   [&](Index first, Index last) {
                     Block part = block;
                     for (Index j = first; j < last; ++j) {
                       part.column = j * kColumnsAtOnce;
                       part.columns = std::min(kColumnsAtOnce, o.n - part.column);
                       multiply_panels(o, part, strips, row, rows);
                     }
                   });
      block.k += block.depth;
    } while (block.k < o.k);
  }
}

}  // namespace

void multiply(const Product& o) {
  if (o.m <= 0 || o.n <= 0) return;
  if (o.transpose_a && o.m < o.n) return multiply_blocks_of_a(o);
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

std::string cpu::describe_gemm() {
  return "built-in matrix product";
}

}  // namespace llm
