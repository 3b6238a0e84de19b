#include "common/core/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "common/core/device_memory.h"
#include "common/core/memory_meter.h"
#include "common/core/threads.h"

namespace llm {

namespace {

// Blocks of at least this size come straight from the kernel, zeroed, and ask for 2 MB pages.
constexpr std::size_t kMapFrom = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::shared_ptr<std::byte[]> allocate_block(std::size_t bytes, Device device, bool zeroed) {
  if (device == Device::cuda) {
    std::shared_ptr<std::byte[]> memory(static_cast<std::byte*>(device_allocate(bytes)), device_free);
    if (zeroed) device_zero(memory.get(), bytes);
    return memory;
  }
  if (bytes >= kMapFrom) {
    const std::size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* memory = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "there is not enough memory for {} more bytes", bytes);
    madvise(memory, rounded, MADV_HUGEPAGE);
    return {static_cast<std::byte*>(memory), [rounded](std::byte* p) { munmap(p, rounded); }};
  }
  const std::size_t rounded = std::max<std::size_t>(64, (bytes + 63) / 64 * 64);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
  check(memory != nullptr, "there is not enough memory for {} more bytes", bytes);
  if (zeroed) std::memset(memory, 0, rounded);
  return {memory, [](std::byte* p) { std::free(p); }};
}

/// The same, counted where somebody counts.
std::shared_ptr<std::byte[]> allocate(std::size_t bytes, Device device, bool zeroed) {
  std::shared_ptr<std::byte[]> block = allocate_block(bytes, device, zeroed);
  const std::shared_ptr<MemoryMeter>& meter = current_memory_meter();
  if (!meter) return block;
  std::byte* const address = block.get();
  const auto counted = static_cast<std::int64_t>(bytes);
  meter->add(counted);
  return {address, [block = std::move(block), meter = meter, counted](std::byte*) mutable {
            block.reset();
            meter->add(-counted);
          }};
}

}  // namespace

std::int64_t element_count(const Shape& shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    // No `check`, here and below: its text would be made whether it is needed or not, for every view.
    if (size < 0) [[unlikely]]
      fail("a shape cannot have a negative size: {}", to_string(shape));
    if (__builtin_mul_overflow(count, size, &count) || count >= (std::int64_t{1} << 46)) [[unlikely]]
      fail("a tensor of shape {} is too large", to_string(shape));
  }
  return count;
}

std::string to_string(const Shape& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

Tensor::Tensor(Shape shape, DType dtype, Device device) {
  numel_ = element_count(shape);
  shape_ = std::move(shape);
  dtype_ = dtype;
  device_ = device;
  storage_ = allocate(bytes(), device, /*zeroed=*/true);
}

Tensor Tensor::uninitialized(Shape shape, DType dtype, Device device) {
  Tensor t;
  t.numel_ = element_count(shape);
  t.shape_ = std::move(shape);
  t.dtype_ = dtype;
  t.device_ = device;
  t.storage_ = allocate(t.bytes(), device, /*zeroed=*/false);
  return t;
}

Tensor Tensor::from(std::span<const float> values, Shape shape) {
  Tensor t = uninitialized(std::move(shape), DType::f32);
  check(values.size() == static_cast<std::size_t>(t.numel()), "{} values do not fill shape {}", values.size(),
        to_string(t.shape()));
  std::copy(values.begin(), values.end(), t.data<float>());
  return t;
}

Tensor Tensor::from(std::span<const std::int32_t> values, Shape shape) {
  Tensor t = uninitialized(std::move(shape), DType::i32);
  check(values.size() == static_cast<std::size_t>(t.numel()), "{} values do not fill shape {}", values.size(),
        to_string(t.shape()));
  std::copy(values.begin(), values.end(), t.data<std::int32_t>());
  return t;
}

std::int64_t Tensor::dim(int i) const {
  const int index = i < 0 ? i + rank() : i;
  if (index < 0 || index >= rank()) [[unlikely]]
    fail("a tensor of shape {} has no dimension {}", to_string(shape_), i);
  return shape_[static_cast<std::size_t>(index)];
}

void Tensor::wrong_dtype(DType asked) const {
  fail("a tensor of dtype {} was read as {}", name(dtype_), name(asked));
}

Tensor Tensor::view(Shape shape) const {
  if (element_count(shape) != numel_) [[unlikely]]
    fail("a tensor of shape {} cannot be viewed as {}", to_string(shape_), to_string(shape));
  Tensor t = *this;
  t.shape_ = std::move(shape);
  return t;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  if (rank() < 1 || begin < 0 || begin > end || end > shape_[0]) [[unlikely]]
    fail("rows {} to {} are not within shape {}", begin, end, to_string(shape_));
  const std::int64_t row = shape_[0] == 0 ? 0 : numel_ / shape_[0];
  Shape shape = shape_;
  shape[0] = end - begin;
  return range(begin * row, std::move(shape));
}

Tensor Tensor::range(std::int64_t begin, Shape shape) const {
  const std::int64_t count = element_count(shape);
  check(begin >= 0 && begin + count <= numel_, "elements {} to {} are not within a tensor of {}", begin,
        begin + count, numel_);
  Tensor t = *this;
  t.shape_ = std::move(shape);
  t.numel_ = count;
  t.offset_ = offset_ + static_cast<std::size_t>(begin) * size_of(dtype_);
  return t;
}

Tensor Tensor::clone() const {
  Tensor t = uninitialized(shape_, dtype_, device_);
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device device) const {
  if (device == device_) return *this;
  Tensor t = uninitialized(shape_, dtype_, device);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& source) const {
  if (source.numel() != numel_ || source.dtype() != dtype_) [[unlikely]]
    fail("cannot copy {} {} into {} {}", name(source.dtype()), to_string(source.shape()), name(dtype_),
         to_string(shape_));
  if (numel_ == 0) return;
  if (device_ == Device::cpu && source.device_ == Device::cpu)
    std::memcpy(raw(), source.raw(), bytes());
  else if (device_ == Device::cpu)
    copy_to_host(raw(), source.raw(), bytes());
  else if (source.device_ == Device::cpu)
    copy_to_device(raw(), source.raw(), bytes());
  else
    copy_on_device(raw(), source.raw(), bytes());
}

void Tensor::fill(float value) const {
  if (device_ == Device::cuda) {
    (void)data<float>();  // says so if the dtype is another
    const std::vector<float> values(static_cast<std::size_t>(numel_), value);
    copy_to_device(raw(), values.data(), bytes());
    return;
  }
  auto all = span<float>();
  std::fill(all.begin(), all.end(), value);
}

void Tensor::zero() const {
  if (numel_ == 0) return;
  if (device_ == Device::cuda) return device_zero(raw(), bytes());
  auto* const memory = static_cast<std::byte*>(raw());
  parallel_for(static_cast<std::int64_t>(bytes()), std::int64_t{1} << 16,
               [=](std::int64_t begin, std::int64_t end) {
                 std::memset(memory + begin, 0, static_cast<std::size_t>(end - begin));
               });
}

}  // namespace llm
