#pragma once

#include "core/backend/cpu/scratch_pool.h"
#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

// Rows and blocks of heads are shared among threads; a head of a row is one thread's work from its first key
// to its last, so the number of threads changes nothing.
void run_attention(const AttentionArgs& args, ThreadPool& threads, ScratchPool& scratch);
void run_attention_weights(const AttentionWeightsArgs& args, ThreadPool& threads);
void run_dense_attention(const DenseAttentionArgs& args, ThreadPool& threads, ScratchPool& scratch);

// Take of `scratch` what these take of it at most on so many threads, and give it back; tables are not read.
void reserve_attention(const AttentionArgs& args, int64_t threads, ScratchPool& scratch);
void reserve_dense_attention(const DenseAttentionArgs& args, int64_t threads, ScratchPool& scratch);

}  // namespace volley
