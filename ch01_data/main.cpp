// Chapter 1: from text to documents. The program's options; what it does stands in walk_chapter.cpp (the
// walk) and walk_commands.cpp (generate, prepare, judge).
#include <CLI/CLI.hpp>
#include <map>
#include <string>

#include "ch01_data/walk.h"
#include "common/cli/program.h"

int main(int argc, char** argv) {
  using namespace llm;
  using ch01::PrepareOptions;

  CLI::App app{
      "Chapter 1: from text to documents. Without a command: the chapter's walk on the story world."};
  CommonOptions common;
  add_common_options(app, common);
  std::filesystem::path out;
  const auto add_out = [&](CLI::App* command) {
    command->add_option("--out", out, "documents folder to write (default: ch01_data in the --work folder)");
  };

  StoryCorpusOptions stories;
  const auto add_val_fraction = [](CLI::App* command, double& fraction) {
    command->add_option("--val-fraction", fraction, "share of the text held out for validation")
        ->check(between(0, 0.9))
        ->capture_default_str();
  };
  CLI::App* generate = app.add_subcommand("generate", "Write the story world as a documents folder");
  generate->add_option("--bytes", stories.bytes, "of all stories together")
      ->check(between(1000, 1e12))
      ->capture_default_str();
  add_val_fraction(generate, stories.val_fraction);
  for (const auto& [name, count] :
       {std::pair("--labels", &stories.labels), std::pair("--questions", &stories.questions),
        std::pair("--preferences", &stories.preferences)})
    generate->add_option(name, *count, "number of them")->check(between(0, 1e9))->capture_default_str();
  add_out(generate);

  PrepareOptions text;
  std::string invalid = "fail", copies = "exact";
  bool keep_trailing_spaces = false, keep_form = false, no_cleaning = false;
  CLI::App* prepare =
      app.add_subcommand("prepare", "Clean and split any text, and write it as a documents folder");
  prepare->add_option("inputs", text.inputs, ".txt and .jsonl files, plain, .gz or .zst, or folders of them")
      ->required();
  add_out(prepare);
  add_val_fraction(prepare, text.val_fraction);
  prepare->add_option("--invalid", invalid, "bytes that are not UTF-8: fail, or replace with U+FFFD")
      ->check(CLI::IsMember({"fail", "replace"}))
      ->capture_default_str();
  prepare
      ->add_option("--copies", copies,
                   "of documents: keep, or remove the exact ones, or the near ones as well")
      ->check(CLI::IsMember({"keep", "exact", "near"}))
      ->capture_default_str();
  prepare->add_flag("--collapse-lines", text.normalise.collapse_lines, "at most one empty line in a row");
  prepare->add_flag("--keep-trailing-spaces", keep_trailing_spaces, "at the ends of lines");
  prepare->add_flag("--keep-form", keep_form, "do not bring characters to Unicode normal form C");
  prepare->add_flag("--no-cleaning", no_cleaning, "take the text as it is, byte for byte");

  std::filesystem::path judged;
  CLI::App* judge = app.add_subcommand(
      "judge",
      "Say of each story in a file whether it is well-formed, and how probable; exit code 0 either way");
  judge->add_option("file", judged, "stories: .jsonl, or .txt with an empty line between two")->required();

  return run_program(argc, argv, app, common, [&] {
    if (out.empty()) out = common.work / "ch01_data";
    stories.seed = text.seed = common.seed;
    MetricsWriter metrics(common.metrics);
    if (generate->parsed()) {
      ch01::generate(out, stories, metrics);
    } else if (prepare->parsed()) {
      text.invalid = parse_invalid_text(invalid);
      text.copies =
          std::map<std::string, PrepareOptions::Copies>{{"keep", PrepareOptions::Copies::keep},
                                                        {"exact", PrepareOptions::Copies::exact},
                                                        {"near", PrepareOptions::Copies::near}}[copies];
      text.clean = !no_cleaning;
      text.normalise.trim_lines = !keep_trailing_spaces;
      text.normalise.compose = !keep_form;
      ch01::prepare(out, text, metrics);
    } else if (judge->parsed()) {
      ch01::judge(judged, metrics);
    } else {
      ch01::walk(out, common.seed, metrics);
    }
  });
}
