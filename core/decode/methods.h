#pragma once

// The decoding methods, one file each. make_decoder builds them from a spec.

#include <memory>

#include "core/decode/decoder.h"
#include "core/decode/options.h"

namespace volley {

std::unique_ptr<Decoder> make_sequential(const OptionReader& options);
std::unique_ptr<Decoder> make_lookup(const OptionReader& options);
std::unique_ptr<Decoder> make_tree(const OptionReader& options);
std::unique_ptr<Decoder> make_jacobi(const OptionReader& options);
std::unique_ptr<Decoder> make_lookahead(const OptionReader& options);
std::unique_ptr<Decoder> make_draft(const OptionReader& options, const Drafters& drafters);
std::unique_ptr<Decoder> make_draft_rejection(const OptionReader& options, const Drafters& drafters);
std::unique_ptr<Decoder> make_heads(const OptionReader& options, const Drafters& drafters);
std::unique_ptr<Decoder> make_parallel(const OptionReader& options);
std::unique_ptr<Decoder> make_masked(const OptionReader& options);
std::unique_ptr<Decoder> make_diffusion(const OptionReader& options);
std::unique_ptr<Decoder> make_block_diffusion(const OptionReader& options);
std::unique_ptr<Decoder> make_sequential_diffusion(const OptionReader& options);

}  // namespace volley
