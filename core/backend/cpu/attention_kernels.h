#pragma once

// One query head against a chunk of keys, and the join of chunks.

#include <cstdint>

namespace volley {

// What is known of a query head after the chunks so far.
struct AttentionState {
  float maximum = 0.0f;      // of the scores
  float denominator = 0.0f;  // sum of exp(score - maximum)
  float* values = nullptr;   // [width] sum of exp(score - maximum) * value
};

struct AttentionChunkArgs {
  const float* q = nullptr;  // [width]
  int64_t width = 0;
  float scale = 1.0f;
  const float* keys = nullptr;       // key i of the chunk is keys[offsets[i] .. + width)
  const float* values = nullptr;     // likewise
  const int64_t* offsets = nullptr;  // [count]
  int64_t count = 0;                 // at most kKeyChunk
  // What is read next, and asked for meanwhile: the values, and the keys of the next group, so many elements
  // behind these; 0 if there are none or they are in the cache.
  bool asks_for_values = false;
  int64_t next_keys = 0;
};

// Key i's lane depends on i alone: the scores stand in an array by i, sums over it run in vectors from its
// start.
void begin_attention(AttentionState& state, int64_t width);
void attend_chunk(const AttentionChunkArgs& args, AttentionState& state);
void finish_attention(const AttentionState& state, int64_t width, float* out);

// scores[i] = scale * q . key i
void score_chunk(const AttentionChunkArgs& args, float* scores);
// scores = exp(scores - maximum); returns their sum.
float exponentiate(float* scores, int64_t count, float maximum);

}  // namespace volley
