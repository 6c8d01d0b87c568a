#pragma once

#include <cstdint>
#include <memory>

#include "image/arpg.h"
#include "speech/diff_llama.h"
#include "tests/support/toy_models.h"

namespace volley::test {

// A random-order model over a `side` x `side` grid with random weights, 16 codes and 3 classes.
std::unique_ptr<image::Arpg> make_toy_arpg(const Backend& backend, uint64_t seed, int64_t side);

// A masked model of 16 tokens (mask id 16); `memory_width` > 0 adds cross-attention.
std::unique_ptr<speech::DiffLlama> make_toy_masked(const Backend& backend, uint64_t seed,
                                                   int64_t memory_width);

}  // namespace volley::test
