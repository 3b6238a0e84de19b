#include "common/ops/checks.h"

namespace llm {

void Checks::wrong_first(const Tensor& first) const {
  check(first.defined(), "{}: {} is not defined", function, first_name);
  fail("{}: {} must be {}, but it is {}", function, first_name, on_cuda() ? "f32 or bf16" : "f32",
       name(first.dtype()));
}
void Checks::wrong_tensor(std::string_view name, const Tensor& t, DType expected) const {
  check(t.defined(), "{}: {} is not defined", function, name);
  check(t.device() == device, "{}: {} is on {}, but {} is on {}", function, first_name, llm::name(device),
        name, llm::name(t.device()));
  fail("{}: {} must be {}{}, but it is {}", function, name, llm::name(expected),
       expected == DType::bf16 && dtype == DType::bf16 ? fmt::format(", as {} is", first_name) : "",
       llm::name(t.dtype()));
}
void Checks::wrong_shape(std::string_view name, const Tensor& t, const Shape& expected) const {
  fail("{}: {} must have shape {}, but it has {}", function, name, to_string(expected), to_string(t.shape()));
}
void Checks::differs(std::string_view name, const Tensor& t, std::string_view other_name,
                     const Tensor& other) const {
  fail("{}: {} has shape {}, but {} has {}", function, name, to_string(t.shape()), other_name,
       to_string(other.shape()));
}
void Checks::wrong_count(std::string_view name, const Tensor& t, std::int64_t expected) const {
  fail("{}: {} must have {} elements, but its shape is {}", function, name, expected, to_string(t.shape()));
}
void Checks::wrong_columns(std::string_view name, const Tensor& t, std::int64_t columns) const {
  check(columns != 0, "{}: the rows of {} are empty", function, name);
  fail("{}: the last dimension of {} must be {}, but its shape is {}", function, name, columns,
       to_string(t.shape()));
}
void Checks::wrong_rows(std::string_view name, const Tensor& t, std::int64_t expected) const {
  fail("{}: {} must have {} rows, but its shape is {}", function, name, expected, to_string(t.shape()));
}
void Checks::wrong_rank(std::string_view name, const Tensor& t, int expected) const {
  fail("{}: {} must have {} dimensions, but its shape is {}", function, name, expected, to_string(t.shape()));
}

VocabularyShard check_shard(const Checks& check, VocabularyShard shard, std::int64_t rows) {
  if (shard.whole == 0) shard.whole = rows;
  llm::check(shard.first >= 0 && shard.first + rows <= shard.whole,
             "{}: {} rows from row {} on are no part of a vocabulary of {}", check.function, rows,
             shard.first, shard.whole);
  return shard;
}

}  // namespace llm
