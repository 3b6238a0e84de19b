// Sentences with roles in braces, and the Narrator, who draws them.
#include "common/text/story_voice.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cmath>

#include "common/core/error.h"

namespace llm {
namespace {

char upper(char c) {
  return static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
}
char lower(char c) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
}

/// The role and the form that "hero", "Hero" or "hero.he" names.
struct Reference {
  Role role;
  std::size_t column;
  bool capital;
};

Reference parse_reference(std::string_view text) {
  const std::size_t dot = text.find('.');
  std::string name(text.substr(0, dot));
  const std::string_view form = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  const bool capital = !name.empty() && name[0] != lower(name[0]);
  if (capital) name[0] = lower(name[0]);
  for (int role = 0; role < kRoleCount; ++role) {
    const RoleInfo& info = role_info(static_cast<Role>(role));
    if (info.name != name) continue;
    const auto& columns = lexicon(info.kind).columns;
    const auto column = std::find(columns.begin(), columns.end(), form);
    if (column == columns.end()) break;
    return {static_cast<Role>(role), static_cast<std::size_t>(column - columns.begin()), capital};
  }
  fail("a sentence of the story world mentions {{{}}}, and there is no such role or form", text);
}

/// The distinct texts of one form, longest first (so that "ball" does not hide "balloon").
std::vector<std::pair<std::string, Words>> surfaces_of(const Reference& reference) {
  std::vector<std::pair<std::string, Words>> surfaces;
  const auto& rows = lexicon(role_info(reference.role).kind).rows;
  for (std::size_t word = 0; word < rows.size(); ++word) {
    std::string surface(rows[word][reference.column]);
    if (reference.capital) surface[0] = upper(surface[0]);
    const auto same =
        std::find_if(surfaces.begin(), surfaces.end(), [&](auto& s) { return s.first == surface; });
    if (same == surfaces.end())
      surfaces.emplace_back(surface, only(static_cast<int>(word)));
    else
      same->second |= only(static_cast<int>(word));
  }
  std::stable_sort(surfaces.begin(), surfaces.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  return surfaces;
}

/// The n-th of a set of words.
int nth_word(Words words, std::uint64_t n) {
  for (; n > 0; --n) words &= words - 1;
  return std::countr_zero(words);
}

}  // namespace

Pattern::Pattern(const char* pattern) {
  std::string_view text = pattern;
  while (true) {
    const std::size_t open = text.find('{');
    if (open == std::string_view::npos) break;
    const std::size_t close = text.find('}', open);
    check(close != std::string_view::npos, "a sentence of the story world has a brace that never closes: {}",
          text);
    const Reference reference = parse_reference(text.substr(open + 1, close - open - 1));
    slots.push_back(
        {std::string(text.substr(0, open)), reference.role, reference.column, surfaces_of(reference)});
    text.remove_prefix(close + 1);
  }
  after = text;
}

const std::string& Slot::surface_of(int word) const {
  for (const auto& [surface, words] : surfaces)
    if (words & only(word)) return surface;
  fail("word number {} is not in the table of {{{}}}", word, role_info(role).name);
}

int Narrator::tell(const Beat& beat) {
  int total = 0;
  for (const Sentence& sentence : beat.sentences) total += sentence.weight;
  auto drawn = static_cast<int>(random_.below(static_cast<std::uint64_t>(total)));
  auto sentence = beat.sentences.begin();
  while (drawn >= sentence->weight) drawn -= (sentence++)->weight;
  log_probability += std::log(static_cast<double>(sentence->weight) / total);

  if (!text.empty()) text += ' ';
  beats.push_back(text.size());
  const World before = world;
  for (const Slot& slot : sentence->pattern.slots) {
    text += slot.before;
    int word = world[slot.role];
    if (word < 0) {
      const Words possible = world.possible(slot.role);
      const int count = std::popcount(possible);
      word = nth_word(possible, random_.below(static_cast<std::uint64_t>(count)));
      log_probability += std::log(1.0 / count);
      if (role_info(slot.role).bind) world.word[slot.role] = static_cast<std::int8_t>(word);
    }
    if (before.knows(slot.role)) mentions.push_back({text.size(), beats.size() - 1, slot.role, &slot, word});
    text += slot.surface_of(word);
  }
  text += sentence->pattern.after;
  return sentence->turn;
}

std::string explain(std::string_view text, const World& world, std::string_view found,
                    std::string_view found_at) {
  std::string out;
  while (true) {
    const std::size_t open = text.find('{');
    out += text.substr(0, open);
    if (open == std::string_view::npos) return out;
    const std::size_t close = text.find('}', open);
    const std::string_view name = text.substr(open + 1, close - open - 1);
    if (name == "found") {
      out += found;
    } else if (name == "found.at") {
      out += found_at;
    } else {
      const Reference reference = parse_reference(name);
      std::string form(world.form(reference.role, reference.column));
      if (reference.capital) form[0] = upper(form[0]);
      out += form;
    }
    text.remove_prefix(close + 1);
  }
}

}  // namespace llm
