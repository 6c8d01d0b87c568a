#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/io/open_weights.h"
#include "tests/goldens/golden_case.h"
#include "tests/goldens/golden_runner.h"

namespace volley::goldens {
namespace {

struct Family {
  std::string_view name;
  void (*check)(const Run& run);
};

constexpr std::array<Family, 14> kFamilies{{{"arpg", check_arpg},
                                            {"fast_dllm_v2", check_fast_dllm_v2},
                                            {"llada", check_llada},
                                            {"llamagen_c2i", check_llamagen},
                                            {"llamagen_t2i", check_llamagen},
                                            {"llamagen_vq", check_vq},
                                            {"sdlm", check_sdlm},
                                            {"smdm", check_smdm},
                                            {"text_llama", check_text_llama},
                                            {"text_llama3", check_text_llama},
                                            {"text_qwen2", check_text_llama},
                                            {"text_qwen3", check_text_llama},
                                            {"whisfusion", check_whisfusion},
                                            {"whisper", check_whisper}}};

const Family* find_family(const std::string& name) {
  const auto found = std::ranges::find(kFamilies, name, &Family::name);
  return found == kFamilies.end() ? nullptr : &*found;
}

// Prints what the case gives, with every file of weights it has.
bool run_case(const std::string& folder, const std::shared_ptr<const Backend>& backend) {
  std::printf("%s\n", folder.c_str());
  try {
    if (!std::filesystem::is_directory(folder)) throw Error(folder + ": there is no such folder");
    const Family* family = find_family(family_of(folder));
    if (family == nullptr) throw Error(folder + ": unknown family " + family_of(folder));
    const Case golden(folder);
    bool passed = true;
    std::vector<Check> checks;
    for (const std::string& file : golden.weight_files()) {
      const std::unique_ptr<WeightSource> weights = open_weights(file);
      checks.emplace_back(golden, checks.empty() ? "" : "model.pt: ");
      family->check({.golden = golden, .weights = *weights, .backend = backend, .check = checks.back()});
      if (checks.back().is_empty()) throw Error(folder + ": io.safetensors holds nothing to check");
      if (checks.size() > 1) checks.back().same_outputs(checks.front());
      passed &= checks.back().passed();
    }
    return passed;
  } catch (const std::exception& error) {
    std::printf("  FAILED: %s\n", error.what());
    return false;
  }
}

// Cases in a folder of cases, by name.
std::vector<std::string> cases_in(const std::string& folder) {
  std::vector<std::string> cases;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!std::filesystem::exists(entry.path() / "config.json")) continue;
    if (find_family(family_of(entry.path().string())) != nullptr) {
      cases.push_back(entry.path().string());
    } else {
      std::printf("%s: not handled\n", entry.path().string().c_str());
    }
  }
  std::ranges::sort(cases);
  return cases;
}

}  // namespace

int run_golden_check(const std::vector<std::string>& arguments) {
  std::string device = "cpu";
  std::vector<std::string> cases;
  int64_t passed = 0, failed = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--backend" && i + 1 < arguments.size()) {
      device = arguments[++i];
      continue;
    }
    if (argument.starts_with("-"))
      throw Error(argument + ": unknown flag; expected --backend", ErrorKind::kUsage);
    // A folder of cases; anything else, missing folders included, is a case.
    if (std::filesystem::is_directory(argument) && !std::filesystem::exists(argument + "/config.json") &&
        find_family(family_of(argument)) == nullptr) {
      const std::vector<std::string> found = cases_in(argument);
      if (found.empty()) {
        std::printf("%s\n  FAILED: neither a case nor a folder of cases\n", argument.c_str());
        ++failed;
      }
      cases.insert(cases.end(), found.begin(), found.end());
    } else {
      cases.push_back(argument);
    }
  }
  if (cases.empty() && failed == 0) {
    throw Error("usage: golden_check [--backend cpu|cpu-reference] DIR...", ErrorKind::kUsage);
  }
  const std::shared_ptr<const Backend> backend = make_backend(device, 0);
  for (const std::string& folder : cases) ++(run_case(folder, backend) ? passed : failed);
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(passed), static_cast<long long>(failed));
  return failed == 0 ? 0 : 1;
}

}  // namespace volley::goldens
