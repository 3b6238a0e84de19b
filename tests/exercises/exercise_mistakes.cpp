// The proof that the tests of exercises cannot be fooled: with the stubs every exercise is not started, and
// with each typical mistake of a chNN.mistakes file (README.md beside this file) exactly its exercise is
// wrong.
//
//   exercise_mistakes edit FILE.mistakes INDEX SOLUTIONS.cpp OUT.cpp      solutions with mistake INDEX (from
//   1) made exercise_mistakes judge SOLUTIONS_EXE STUBS_EXE MUTANT_EXE_PREFIX FILE.mistakes...   mutants are
//   numbered on through
//                                                                                       the files
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"

namespace llm::exercises {
namespace {

struct Mistake {
  std::string exercise;  // "3.2"
  std::string name;
  std::string find, replace;
  std::string says;  // what the message must contain, if not empty
  int line = 0;      // of its header
};

// The text without empty lines around it and without the last line break.
std::string trimmed(const std::string& text) {
  std::size_t begin = 0, end = text.size();
  while (begin < end) {  // leading lines of white space
    const std::size_t line_end = text.find('\n', begin);
    if (line_end == std::string::npos || text.find_first_not_of(" \t", begin) < line_end) break;
    begin = line_end + 1;
  }
  while (end > begin && (text[end - 1] == '\n' || text[end - 1] == '\r')) --end;
  return text.substr(begin, end - begin);
}

std::vector<Mistake> parse_mistakes(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<Mistake> mistakes;
  std::string* part = nullptr;
  int number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.rfind("=== ", 0) == 0) {
      const std::size_t space = line.find(' ', 4);
      check(space != std::string::npos, "{}:{}: expected '=== NUMBER NAME', found '{}'", path, number, line);
      mistakes.push_back({line.substr(4, space - 4), line.substr(space + 1), "", "", "", number});
      part = nullptr;
    } else if (line == "--- find" || line == "--- replace" || line == "--- says") {
      check(!mistakes.empty(), "{}:{}: '{}' before the first '=== NUMBER NAME'", path, number, line);
      Mistake& mistake = mistakes.back();
      part = line == "--- find" ? &mistake.find : line == "--- replace" ? &mistake.replace : &mistake.says;
    } else if (part) {
      *part += line + "\n";
    } else {
      check(line.empty() || line[0] == '#',
            "{}:{}: expected a comment, '=== NUMBER NAME' or '--- find', found '{}'", path, number, line);
    }
  }
  for (Mistake& mistake : mistakes) {
    mistake.find = trimmed(mistake.find);
    mistake.replace = trimmed(mistake.replace);
    mistake.says = trimmed(mistake.says);
    check(!mistake.find.empty(), "{}:{}: mistake '{}' has no text to find", path, mistake.line, mistake.name);
    check(mistake.find != mistake.replace, "{}:{}: mistake '{}' changes nothing", path, mistake.line,
          mistake.name);
  }
  return mistakes;
}

void edit(const std::string& mistakes_file, std::size_t index, const std::string& solutions,
          const std::string& out) {
  const std::vector<Mistake> mistakes = parse_mistakes(mistakes_file);
  check(index >= 1 && index <= mistakes.size(), "{} has {} mistakes, there is no number {}", mistakes_file,
        mistakes.size(), index);
  const Mistake& mistake = mistakes[index - 1];
  std::string text = read_file(solutions);
  const std::size_t at = text.find(mistake.find);
  check(at != std::string::npos, "{}:{}: the text to find is not in {}", mistakes_file, mistake.line,
        solutions);
  check(text.find(mistake.find, at + 1) == std::string::npos,
        "{}:{}: the text to find stands in {} more than once", mistakes_file, mistake.line, solutions);
  text.replace(at, mistake.find.size(), mistake.replace);
  write_file(out, text);
}

struct Verdict {
  std::string state, message;
};

// Runs an exercise program with --report: number -> verdict.
std::map<std::string, Verdict> verdicts_of(const std::string& program, double seconds) {
  std::FILE* output = popen(fmt::format("'{}' --report --seconds {} 2>&1", program, seconds).c_str(), "r");
  check(output != nullptr, "cannot run {}", program);
  std::map<std::string, Verdict> verdicts;
  std::string line;
  for (int c = std::fgetc(output); c != EOF; c = std::fgetc(output)) {
    if (c != '\n') {
      line += static_cast<char>(c);
      continue;
    }
    std::vector<std::string> fields(1);
    for (const char d : line)
      if (d == '\t')
        fields.emplace_back();
      else
        fields.back() += d;
    if (fields.size() == 4) verdicts[fields[0]] = {fields[1], fields[3]};
    line.clear();
  }
  const int status = pclose(output);
  check(!verdicts.empty(), "{} reported nothing (exit code {})", program,
        WIFEXITED(status) ? WEXITSTATUS(status) : -1);
  return verdicts;
}

int judge(const std::string& solutions, const std::string& stubs, const std::string& mutant_prefix,
          const std::vector<std::string>& mistakes_files) {
  std::vector<Mistake> mistakes;
  for (const std::string& file : mistakes_files)
    for (const Mistake& mistake : parse_mistakes(file)) mistakes.push_back(mistake);
  int passed = 0, failed = 0;
  const auto verdict = [&](bool good, const std::string& sentence) {
    fmt::print("{} {}\n", good ? "ok    " : "FAILED", sentence);
    std::fflush(stdout);
    ++(good ? passed : failed);
  };

  const auto solved = verdicts_of(solutions, 60);
  for (const auto& [number, v] : solved)
    verdict(v.state == "done",
            fmt::format("{} solution: {}{}", number, v.state, v.state == "done" ? "" : " – " + v.message));

  // Where a learner works, exercises.cpp holds answers, or does not even compile: that is no failure, except
  // in CI.
  const bool learning = std::getenv("CI") == nullptr;
  if (!std::filesystem::exists(stubs)) {
    if (!learning)
      verdict(false, fmt::format("the stubs' program {} has not been built; its target is `learner`", stubs));
  } else {
    for (const auto& [number, v] : verdicts_of(stubs, 60)) {
      if (v.state != "not started" && learning)
        fmt::print("note   {} has been worked on: {}\n", number, v.state);
      else
        verdict(v.state == "not started", fmt::format("{} stub: {}", number, v.state));
    }
  }

  std::set<std::string> covered;
  for (std::size_t i = 0; i < mistakes.size(); ++i) {
    const Mistake& mistake = mistakes[i];
    covered.insert(mistake.exercise);
    const auto found = verdicts_of(fmt::format("{}{}", mutant_prefix, i + 1), 5);
    std::string trouble;
    if (!solved.contains(mistake.exercise)) trouble = "there is no such exercise";
    for (const auto& [number, v] : found)
      if ((v.state == "wrong") != (number == mistake.exercise))
        trouble = number == mistake.exercise ? "the tests accept it"
                                             : fmt::format("the tests find {} wrong: {}", number, v.message);
    const std::string message = found.contains(mistake.exercise) ? found.at(mistake.exercise).message : "";
    if (trouble.empty() && message.find(mistake.says) == std::string::npos)
      trouble = fmt::format("the message should contain '{}', but it is: {}", mistake.says, message);
    verdict(trouble.empty(), fmt::format("{} mistake '{}': {}", mistake.exercise, mistake.name,
                                         trouble.empty() ? message : trouble));
  }
  for (const auto& [number, v] : solved)
    if (!covered.contains(number))
      verdict(false, fmt::format("{} has no mistake in {}", number, fmt::join(mistakes_files, ", ")));

  fmt::print("{} passed, {} failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace llm::exercises

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    if (words.size() == 5 && words[0] == "edit") {
      llm::exercises::edit(words[1], std::strtoul(words[2].c_str(), nullptr, 10), words[3], words[4]);
      return 0;
    }
    if (words.size() >= 5 && words[0] == "judge")
      return llm::exercises::judge(words[1], words[2], words[3], {words.begin() + 4, words.end()});
    fmt::print(stderr,
               "usage: exercise_mistakes edit MISTAKES INDEX SOLUTIONS.cpp OUT.cpp\n"
               "       exercise_mistakes judge SOLUTIONS_EXE STUBS_EXE MUTANT_EXE_PREFIX MISTAKES...\n");
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
