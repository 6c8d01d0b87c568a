#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "text/text_model.h"

namespace volley::text {

// What a small fixed generation gave.
struct SelftestReport {
  int64_t tokens = 0;
  std::string token_hash;
  // Empty: tokens are in range and repeat (sequential decoding and lookup; of a masked model, alone and in
  // company). Else the first thing that is wrong.
  std::string fault;
};

// Decodes a few tokens of a fixed prompt with seed 0. Throws Error.
SelftestReport run_selftest(const TextModel& model, const std::stop_token& stop);

}  // namespace volley::text
