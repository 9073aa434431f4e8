// The main program of dbos-bench and dbos-bench-native.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <exception>

#include "tools/standard_output.h"

namespace dbos::bench {

constexpr int kNotMet = 1;
constexpr int kUsage = 2;

// Result: the exit status.
template <typename Options>
int bench_main(int argc, char** argv, const char* name, const char* description,
               void (*declare)(CLI::App&, Options&), int (*run)(const Options&)) {
  try {
    Options options;
    CLI::App app(description, name);
    declare(app, options);
    int status = 0;
    try {
      app.parse(argc, argv);
      status = run(options);
    } catch (const CLI::CallForHelp& help) {
      status = app.exit(help);
    }
    finish_output();
    return status;
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "{0}: {1}; '{0} --help' says how to write it\n", name, error.what());
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
  }
  return kUsage;
}

}  // namespace dbos::bench
