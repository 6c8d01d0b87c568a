#pragma once

#include <cstdint>
#include <vector>

#include "core/decode/session.h"

namespace volley {

// Outputs of one pass that the caller may still read.
struct Session::Pass {
  int64_t columns = 0;               // of attention taps on the own keys
  int64_t memory_columns = 0;        // of taps on the memory
  std::vector<int32_t> packed_rows;  // where the rows of its sequences went, one sequence after the other
  std::vector<HiddenTap> hidden;
  std::vector<AttentionTapOutput> attention;
  std::vector<AttentionTapOutput> cross_attention;
};

}  // namespace volley
