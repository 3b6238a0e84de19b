#include "common/cli/program.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <system_error>

#include "common/core/device_memory.h"
#include "common/core/error.h"
#include "common/core/threads.h"

namespace llm {
namespace {

// "ch01_data: the sentence", on stderr, on one line whatever the sentence holds.
int report(const std::string& program, std::string sentence, int exit_code) {
  for (char& c : sentence)
    if (c == '\n' || c == '\r') c = ' ';
  while (!sentence.empty() && sentence.back() == ' ') sentence.pop_back();
  std::fflush(stdout);
  fmt::print(stderr, "{}: {}\n", program, sentence);
  return exit_code;
}

// A number as a person writes it: 4096 and 0.5, not 4096.000000.
std::string plain(double x) {
  if (x == std::floor(x) && std::abs(x) < 1e15) return fmt::format("{}", static_cast<std::int64_t>(x));
  return fmt::format("{:g}", x);
}

bool parse_number(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);
  return !text.empty() && *end == '\0' && !std::isnan(value);
}

std::string program_name(const char* path) {
  const std::string name = std::filesystem::path(path ? path : "program").filename();
  return name.empty() ? "program" : name;
}

// Runs the body; every exception becomes a sentence and an exit code.
int guarded(const std::string& program, const std::function<void()>& body) {
  try {
    body();
  } catch (const UsageError& error) {
    return report(program, fmt::format("{}; see {} --help", error.what(), program), 2);
  } catch (const Error& error) {
    return report(program, error.what(), 1);
  } catch (const std::bad_alloc&) {
    return report(program, "not enough memory; use smaller sizes (model, batch, context)", 1);
  } catch (const std::length_error&) {
    return report(program, "a size asked for is larger than this machine can address", 1);
  } catch (const std::system_error& error) {  // fmt::print, when stdout takes no more
    if (error.code() == std::errc::broken_pipe)
      return 1;  // the reader left (`| head`); there is nobody to tell
    return report(program, error.what(), 1);
  } catch (const std::exception& error) {
    return report(program, error.what(), 1);
  }
  // What was printed has arrived, or that is an error too (a full disk behind `> file`).
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    if (errno == EPIPE) return 1;
    return report(program,
                  fmt::format("cannot write to the standard output: {}", std::strerror(errno ? errno : EIO)),
                  1);
  }
  return 0;
}

}  // namespace

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--seed", options.seed, "of all random numbers")
      ->check(CLI::Validator(
          [](std::string& text) {
            std::uint64_t value = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (error == std::errc() && end == text.data() + text.size()) return std::string();
            return fmt::format("it must be a whole number from 0 to 18446744073709551615, not '{}'", text);
          },
          ""))
      ->capture_default_str()
      ->group("Everywhere");
  app.add_option("--threads", options.threads, "threads to compute with; 0: one per core")
      ->check(between(0, 1024))
      ->capture_default_str()
      ->group("Everywhere");
  app.add_option_function<std::string>(
         "--device", [&options](const std::string& text) { options.device = parse_device(text); },
         "cpu or cuda")
      ->default_str("cpu")
      ->group("Everywhere");
  app.add_option("--work", options.work, "folder in which the chapters leave their results for one another")
      ->capture_default_str()
      ->group("Everywhere");
  app.add_option("--metrics", options.metrics, "also write the results as JSON lines to this file")
      ->group("Everywhere");
}

CLI::Validator between(double low, double high) {
  const std::string range = fmt::format("{} to {}", plain(low), plain(high));
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        if (parse_number(text, value) && value >= low && value <= high) return std::string();
        return fmt::format("it must be a number from {}, not '{}'", range, text);
      },
      "from " + range);
}

CLI::Validator above(double low, double high) {
  const std::string range = fmt::format("above {}, at most {}", plain(low), plain(high));
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        if (parse_number(text, value) && value > low && value <= high) return std::string();
        return fmt::format("it must be a number {}, not '{}'", range, text);
      },
      range);
}

int run_program(int argc, char** argv, CLI::App& app, CommonOptions& options,
                const std::function<void()>& body) {
  const std::string program = program_name(argc > 0 ? argv[0] : nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  // Whole lines also reach a pipe or a log file at once.
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 16);

  app.name(program);
  if (app.get_require_subcommand_max() == 0) app.require_subcommand(0, 1);
  for (CLI::App* command : app.get_subcommands({})) {
    command->fallthrough();  // `ch01_data generate --seed 7`: a common option behind the subcommand
    command->footer(fmt::format("and --seed --threads --device --work --metrics: see {} --help", program));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {  // --help
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return report(program, fmt::format("{}; see {} --help", error.what(), program), 2);
  } catch (const UsageError& error) {
    return report(program, fmt::format("{}; see {} --help", error.what(), program), 2);
  } catch (const std::exception& error) {
    return report(program, error.what(), 2);
  }

  return guarded(program, [&] {
    set_thread_count(options.threads);
    if (options.device == Device::cuda && !options.uses_device)
      fail_usage("this program has nothing for a GPU to do: leave out --device cuda");
    if (options.says_where) {
      std::string first_line = options.device == Device::cuda ? describe_device() : describe_cpu();
      if (options.computes_with != nullptr) first_line += ", " + options.computes_with(options.device);
      fmt::print(stderr, "{} on {}\n", program, first_line);
    }
    body();
  });
}

}  // namespace llm
