#pragma once

// What property tests ask of the registry's methods, and how they watch a run.

#include <cstdint>
#include <string>
#include <vector>

#include "core/decode/decoder.h"
#include "core/decode/observer.h"

namespace volley::test {

// The registry's methods that promise sequential tokens.
inline std::vector<std::string> same_tokens_methods() {
  std::vector<std::string> names;
  for (const DecoderInfo& info : decoder_registry()) {
    if (info.kind == DecoderClass::kSameTokens) names.push_back(info.name);
  }
  return names;
}

// Counts drafted tokens.
class DraftCounter : public Observer {
 public:
  void on_step(const StepEvent& event) override {
    proposed += event.proposed;
    accepted += event.accepted;
  }
  int64_t proposed = 0, accepted = 0;
};

}  // namespace volley::test
