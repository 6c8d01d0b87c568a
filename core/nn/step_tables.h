#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/nn/step.h"

namespace volley {

// Throws Error naming the field of a step that the model cannot run ("step: sequence 2: visibility: ...").
void check_step(const ModelTraits& traits, std::span<const SequenceStep> steps, const KvCache& cache,
                const KvCache* memory);

// The host's form of StepTables for some sequences of a step that run together.
struct HostTables {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<float> embeddings;  // [R, dim], or empty
  std::vector<int32_t> row_sequence, row_entry, row_context, row_prefix, row_tail_begin, row_tail_count;
  std::vector<int32_t> tail;
  std::vector<int32_t> sequence_slot, sequence_memory;
  std::vector<int32_t> logits_rows;
  int64_t rows = 0;
  int64_t query_rows = 0;
  // Where rows went: row j of the i-th given sequence to packed_rows[first_packed[i] + j].
  std::vector<int32_t> packed_rows;
  std::vector<size_t> first_packed;
};

// Lays out the sequences with the given indices: content rows of all, then query rows of all, then `padding`
// inert rows.
HostTables build_tables(const ModelTraits& traits, std::span<const SequenceStep> steps,
                        std::span<const int32_t> indices, int64_t padding);

// Rows of a step that take a place in the cache: all but query rows.
int64_t content_rows(const SequenceStep& step);

}  // namespace volley
