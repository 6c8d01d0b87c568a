// Sequential decoding: one token a forward. The method every same-tokens method is measured against.
#include "core/decode/lane.h"
#include "core/decode/methods.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

class NoProposer : public Proposer {
 public:
  std::string_view source() const override { return "model"; }
  DraftTree propose(const ProposalContext&) override { return {}; }
};

class Sequential : public Decoder {
 public:
  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    NoProposer proposer;
    return VerifyLoop{.proposer = proposer}.run(session, generations, control);
  }
  int64_t entries(const Generation& generation) const override { return fed_entries(generation); }
};

}  // namespace

std::unique_ptr<Decoder> make_sequential(const OptionReader&) {
  return std::make_unique<Sequential>();
}

}  // namespace volley
