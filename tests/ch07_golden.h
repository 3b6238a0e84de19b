// Golden values of tests/golden/finetuning.py: tensors "CASE.NAME".
#pragma once

#include <string>
#include <vector>

#include "tests/ops_helpers.h"

namespace llm::testing {

class FinetuningGolden {
 public:
  FinetuningGolden() : file_(std::string(LLM_GOLDEN_DIR) + "/finetuning.safetensors") {}
  Tensor tensor(const std::string& name, int number, const std::string& part) const {
    const std::string key = name + std::to_string(number) + "." + part;
    const SafetensorsEntry* entry = file_.find(key);
    check(entry != nullptr, "the golden file has no tensor {}", key);
    Tensor t(entry->shape);
    file_.read(*entry, t.span());
    return t;
  }
  Tensor ids(const std::string& name, int number, const std::string& part) const {
    const Tensor numbers = tensor(name, number, part);
    Tensor t(numbers.shape(), DType::i32);
    for (std::int64_t i = 0; i < t.numel(); ++i)
      t.data<std::int32_t>()[i] = static_cast<std::int32_t>(numbers.data()[i]);
    return t;
  }
  std::vector<double> doubles(const std::string& name, int number, const std::string& part) const {
    const Tensor t = tensor(name, number, part);
    return {t.span().begin(), t.span().end()};
  }
  double number(const std::string& name, int number, const std::string& part) const {
    return static_cast<double>(tensor(name, number, part).data()[0]);
  }

 private:
  SafetensorsFile file_;
};

}  // namespace llm::testing
