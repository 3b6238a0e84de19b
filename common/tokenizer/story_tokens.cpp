#include "common/tokenizer/story_tokens.h"

#include <fmt/format.h>

#include "common/text/documents_folder.h"
#include "common/tokenizer/token_folder.h"

namespace llm {

std::filesystem::path story_token_folder(const std::filesystem::path& work, std::uint64_t seed,
                                         const std::function<void(std::string_view)>& say) {
  const std::filesystem::path documents = work / "ch01_data";
  const std::filesystem::path tokens = work / "ch02_tokenizer";
  if (std::filesystem::exists(tokens / "val.bin")) return tokens;
  if (!is_documents_folder(documents)) {
    say(fmt::format("{} is not there yet: writing stories, as chapter 1 does", documents.string()));
    StoryCorpusOptions options;
    options.seed = seed;
    write_story_corpus(documents, options);
  }
  say(fmt::format("{} is not there yet: learning a tokenizer, as chapter 2 does", tokens.string()));
  const auto tokenizer = train_tokenizer({documents}, {});
  write_token_folder(documents, *tokenizer, tokens);
  return tokens;
}

}  // namespace llm
