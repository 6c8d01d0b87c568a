#pragma once

// The devices that tests run on: those of the host everywhere, and the cards that the machine has.

#include <algorithm>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "tests/support/sanitized.h"

namespace volley::test {

// For tests of what stands above the operations. Sanitized, without the reference: it is many times slower
// there, and the tests of operations and the golden cases run it.
inline std::vector<std::string> devices_for_methods() {
  std::vector<std::string> names = devices();
  if (kSanitized) std::erase(names, "cpu-reference");
  return names;
}

// A test's parameter as part of its name: "cpu-reference" becomes CpuReference, "cuda:0" Cuda0.
inline std::string device_name(const std::string& device) {
  std::string name;
  bool begins = true;
  for (const char c : device) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (is_letter) name.push_back(begins && c >= 'a' ? static_cast<char>(c - 'a' + 'A') : c);
    begins = !is_letter;
  }
  return name;
}

}  // namespace volley::test
