#pragma once

// A few query heads against a chunk of keys, and the join of chunks.

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend/operations.h"

namespace volley {

// What is known of a query head after the chunks so far.
struct AttentionState {
  float maximum = 0.0f;      // of the scores
  float denominator = 0.0f;  // sum of exp(score - maximum)
  float* values = nullptr;   // [width] sum of exp(score - maximum) * value
  float* sums = nullptr;     // [2, width] of a chunk: of even and of odd keys
};

struct AttentionQuery {
  const float* q = nullptr;          // [width]
  const int64_t* offsets = nullptr;  // [count] where the chunk's keys and values lie
  int64_t count = 0;                 // at most kKeyChunk; 0: nothing happens
  AttentionState* state = nullptr;
};

// Query heads that look at one key head. They are computed together as far as they see the same keys.
inline constexpr int64_t kMostQueries = 4;
int64_t most_queries();  // as many as leave the sums in this processor's registers, at most kMostQueries
struct AttentionChunkArgs {
  std::span<const AttentionQuery> queries;  // at most most_queries()
  int64_t shared = 0;                       // first keys that all of them have
  int64_t width = 0;
  float scale = 1.0f;
  CacheType type = CacheType::kF32;   // of keys and values
  const std::byte* keys = nullptr;    // a query's key i is the elements [offsets[i] .. + width)
  const std::byte* values = nullptr;  // likewise
  // Elements from these keys to those of the group that is read next, whose shared keys and values are asked
  // for meanwhile; 0 if there is none or they are in the cache.
  int64_t next_group = 0;
};

// Key i's lane depends on i alone: the scores stand in an array by i, sums over it run in vectors from its
// start. A query's bits do not depend on its company.
void begin_attention(AttentionState& state, int64_t width);
void attend_chunk(const AttentionChunkArgs& args);
void finish_attention(const AttentionState& state, int64_t width, float* out);

struct ScoreArgs {
  const float* q = nullptr;  // [width]
  int64_t width = 0;
  float scale = 1.0f;
  CacheType type = CacheType::kF32;
  const std::byte* keys = nullptr;
  const int64_t* offsets = nullptr;  // [count]
  int64_t count = 0;                 // at most kKeyChunk
};
// scores[i] = scale * q . key i
void score_chunk(const ScoreArgs& args, float* scores);
// scores = exp(scores - maximum); returns their sum.
float exponentiate(float* scores, int64_t count, float maximum);

}  // namespace volley
