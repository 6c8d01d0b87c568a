// golden_check [--backend cpu|cpu-reference] DIR...
// Runs golden cases: folders with inputs and outputs of the authors' own code. A DIR without config.json is
// searched for cases of the known families.
#include <cstdio>
#include <exception>

#include "core/base/error.h"
#include "tests/goldens/golden_runner.h"

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    return volley::goldens::run_golden_check({argv + 1, argv + argc});
  } catch (const volley::Error& error) {
    std::fprintf(stderr, "golden_check: %s\n", error.what());
    return error.kind() == volley::ErrorKind::kUsage ? 2 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "golden_check: %s\n", error.what());
    return 1;
  }
}
