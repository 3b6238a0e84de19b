// What every communicator must do, whatever carries it: checked by every rank on numbers whose sums are
// exact in any order, so that all backends agree to the bit. Throws Error where something differs.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "common/parallel/communicator.h"

namespace conformance {

using namespace llm;

/// Element i of rank r: a whole number from -8 to 8, so that the sum over 8 ranks is exact in bf16 too.
inline float value(int rank, std::int64_t i) {
  return static_cast<float>((i * 7 + rank * 13 + i / 17) % 17 - 8);
}

template <typename Of>
Tensor make(std::int64_t count, DType dtype, Device device, const Of& of) {
  Tensor t({count}, dtype);
  for (std::int64_t i = 0; i < count; ++i) {
    if (dtype == DType::f32) t.data<float>()[i] = of(i);
    if (dtype == DType::bf16) t.data<BFloat16>()[i] = BFloat16(of(i));
    if (dtype == DType::i32) t.data<std::int32_t>()[i] = static_cast<std::int32_t>(of(i));
  }
  return t.to(device);
}

template <typename Of>
void expect(const std::string& what, const Tensor& got, const Of& of) {
  const Tensor t = got.to(Device::cpu);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const float x = t.dtype() == DType::f32    ? t.data<float>()[i]
                    : t.dtype() == DType::bf16 ? static_cast<float>(t.data<BFloat16>()[i])
                                               : static_cast<float>(t.data<std::int32_t>()[i]);
    if (x != of(i)) fail("{}: element {} of {} is {}, expected {}", what, i, t.numel(), x, of(i));
  }
}

/// All operations on `count` elements per rank.
inline void operations(Communicator& c, std::int64_t count, DType dtype, Device device) {
  const int n = c.size(), me = c.rank();
  const std::string size = fmt::format("{} {} on {} ranks, rank {}", count, name(dtype), n, me);
  const auto mine = [&](std::int64_t i) { return value(me, i); };
  const auto sum = [&](std::int64_t i) {
    float s = 0;
    for (int r = 0; r < n; ++r) s += value(r, i);
    return s;
  };
  Tensor x = make(count, dtype, device, mine);
  c.all_reduce(x).wait();
  expect("all_reduce, " + size, x, sum);

  x = make(count, dtype, device, mine);
  c.all_reduce(x, ReduceOp::max).wait();
  expect("all_reduce (max), " + size, x, [&](std::int64_t i) {
    float most = value(0, i);
    for (int r = 1; r < n; ++r) most = std::max(most, value(r, i));
    return most;
  });

  const auto of_me = [&](std::int64_t i) { return sum(me * count + i); };
  x = make(n * count, dtype, device, mine);
  Tensor part({count}, dtype, device);
  c.reduce_scatter(part, x).wait();
  expect("reduce_scatter, " + size, part, of_me);
  expect("the input of reduce_scatter, " + size, x, mine);
  part = x.range(me * count, {count});
  c.reduce_scatter(part, x).wait();
  expect("reduce_scatter in place, " + size, part, of_me);

  const auto gathered = [&](std::int64_t i) { return value(static_cast<int>(i / count), i % count); };
  part = make(count, dtype, device, mine);
  Tensor all({n * count}, dtype, device);
  c.all_gather(all, part).wait();
  expect("all_gather, " + size, all, gathered);
  all.zero();
  all.range(me * count, {count}).copy_from(part);
  c.all_gather(all, all.range(me * count, {count})).wait();
  expect("all_gather in place, " + size, all, gathered);

  for (const int root : {0, n - 1}) {
    x = make(count, dtype, device, mine);
    c.broadcast(x, root).wait();
    expect("broadcast, " + size, x, [&](std::int64_t i) { return value(root, i); });
  }

  // Around the ring, all at once: with sends that wait for their recv this must not deadlock either.
  const int next = (me + 1) % n, before = (me + n - 1) % n;
  x = make(count, dtype, device, mine);
  Tensor y({count}, dtype, device);
  const std::vector<Transfer> ring = {{Transfer::Kind::send, x, next}, {Transfer::Kind::recv, y, before}};
  c.exchange(ring).wait();
  expect("exchange, " + size, y, [&](std::int64_t i) { return value(before, i); });
  c.barrier();
}

/// Several operations under way at the same time, waited for in another order on every rank.
inline void overlap(Communicator& c) {
  const int n = c.size(), me = c.rank();
  std::vector<Tensor> xs;
  std::vector<Work> works;
  for (int k = 0; k < 6; ++k) {
    xs.push_back(make(1000 + k, DType::f32, Device::cpu, [&](std::int64_t i) { return value(me, i + k); }));
    works.push_back(k % 2 == 0 ? c.all_reduce(xs.back()) : c.broadcast(xs.back(), k % n));
  }
  for (int k = 0; k < 6; ++k) works[static_cast<std::size_t>((k * 5 + me) % 6)].wait();
  for (int k = 0; k < 6; ++k)
    expect(fmt::format("operation {} of 6 at once, rank {}", k, me), xs[static_cast<std::size_t>(k)],
           [&](std::int64_t i) {
             if (k % 2 == 1) return value(k % n, i + k);
             float s = 0;
             for (int r = 0; r < n; ++r) s += value(r, i + k);
             return s;
           });
  // Without waiting: done() alone must bring it to its end.
  Tensor x = make(100, DType::f32, Device::cpu, [&](std::int64_t) { return 1; });
  Work work = c.all_reduce(x);
  while (!work.done()) {
  }
  work.wait();
  expect("an operation that is asked whether it is done", x, [&](std::int64_t) { return n; });
}

/// Messages keep their order; a rank may send to another without a third taking part.
inline void messages(Communicator& c) {
  const int n = c.size(), me = c.rank();
  if (n == 1) return;
  if (me == 0) {
    for (int k = 0; k < 3; ++k)
      c.send(make(k * 10, DType::i32, Device::cpu, [&](std::int64_t i) { return k * 100.0f + i; }), n - 1)
          .wait();
  } else if (me == n - 1) {
    for (int k = 0; k < 3; ++k) {
      Tensor x({k * 10}, DType::i32);
      c.recv(x, 0).wait();
      expect(fmt::format("message {}", k), x, [&](std::int64_t i) { return k * 100.0f + i; });
    }
  }
}

/// A grid of two columns, and the columns reversed.
inline void splits(Communicator& c) {
  const int n = c.size(), me = c.rank();
  const auto column = c.split(me % 2, me, "column");
  const auto row = c.split(me / 2, -me, "row");  // the larger rank first
  check(column->rank() == me / 2 && column->size() == (n + 1 - me % 2) / 2, "rank {} of {} in the column", me,
        n);
  check(row->size() == std::min(2, n - me / 2 * 2) && row->rank() == row->size() - 1 - me % 2,
        "rank {} of {} is {} of {} in the row", me, n, row->rank(), row->size());
  check(column->name() == "column", "the name of a split is '{}'", column->name());
  operations(*column, 5, DType::f32, Device::cpu);
  operations(*row, 5, DType::f32, Device::cpu);
  Tensor x = make(3, DType::f32, Device::cpu, [&](std::int64_t) { return static_cast<float>(me); });
  Work first = column->all_reduce(x);
  operations(c, 3, DType::f32, Device::cpu);  // the whole meanwhile
  first.wait();
  expect("the sum in a column", x, [&](std::int64_t) {
    float s = 0;
    for (int r = me % 2; r < n; r += 2) s += static_cast<float>(r);
    return s;
  });
}

/// Everything. `most` is the largest number of elements.
inline void run(Communicator& c, std::int64_t most, Device device = Device::cpu) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i32})
    for (const std::int64_t count : {0, 1, 7, 1001, 40'000})
      if (count <= most) operations(c, count, dtype, device);
  if (most > 40'000) operations(c, most, DType::f32, device);
  overlap(c);
  messages(c);
  splits(c);
}

}  // namespace conformance
