// What `serve` does in a build without cpp-httplib.
#include "ch07_finetuning/talking.h"
#include "common/core/error.h"

namespace llm::ch07 {

void serve(const ServeCommand&) {
  fail_usage(
      "this program was built without its server; install libcpp-httplib-dev and configure with "
      "LLM_SERVING=ON");
}

}  // namespace llm::ch07
