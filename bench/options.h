#pragma once
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "report.h"

namespace parley::bench {

// --json FILE, --quick, and what `more` adds; exits on --help, on usage errors and in a build that
// is not optimised.
inline Options ParseOptions(int argc, char** argv,
                            const std::function<void(CLI::App&)>& more = {}) {
#ifndef __OPTIMIZE__
  std::fputs("this build is not optimised: benchmarks run in release builds only\n", stderr);
  std::exit(2);
#endif
  Options options;
  CLI::App app("A benchmark of Parley; run it through scripts/bench");
  app.add_option("--json", options.json_path, "Also write the result here");
  app.add_flag("--quick", options.quick, "A smoke run: marked in the result, never quoted");
  if (more) more(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error));
  }
  return options;
}

}  // namespace parley::bench
