#include "core/nn/step_tables.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace volley {
namespace {

std::string_view name(RowKind kind) {
  switch (kind) {
    case RowKind::kToken:
      return "token";
    case RowKind::kEmbedding:
      return "embedding";
    case RowKind::kQuery:
      return "query";
  }
  return "?";
}

std::string_view name(MaskKind kind) {
  switch (kind) {
    case MaskKind::kCausal:
      return "causal";
    case MaskKind::kFull:
      return "full";
    case MaskKind::kBlockCausal:
      return "block-causal";
    case MaskKind::kTree:
      return "tree";
    case MaskKind::kBits:
      return "bits";
  }
  return "?";
}

class StepCheck {
 public:
  StepCheck(const ModelTraits& traits, size_t index) : traits_(traits), index_(index) {}

  // `fault()` says what is wrong; it is asked only then.
  template <typename Fault>
  void require(bool condition, std::string_view field, const Fault& fault) const {
    if (condition) return;
    throw Error("step: sequence " + std::to_string(index_) + ": " + std::string(field) + ": " +
                std::string(fault()) + " (model " + traits_.family + ")");
  }

  void rows(const SequenceStep& step) const {
    require(!step.rows.empty(), "rows", [&] { return "there are none"; });
    int64_t embeddings = 0;
    for (const StepRow& row : step.rows) {
      require(std::ranges::count(traits_.row_kinds, row.kind) > 0, "rows",
              [&] { return "the model takes no " + std::string(name(row.kind)) + " rows"; });
      if (row.kind == RowKind::kToken) {
        require(row.token >= 0 && row.token < traits_.token_rows, "rows", [&] {
          return "token " + std::to_string(row.token) + " is not in 0 .. " +
                 std::to_string(traits_.token_rows - 1);
        });
      }
      embeddings += row.kind == RowKind::kEmbedding;
      for (int64_t c = 0; c < traits_.position_components; ++c) {
        require(row.position[c] >= 0 && row.position[c] < traits_.max_position, "rows", [&] {
          return "position " + std::to_string(row.position[c]) + " is not in 0 .. " +
                 std::to_string(traits_.max_position - 1);
        });
      }
    }
    require(static_cast<int64_t>(step.embeddings.size()) == embeddings * traits_.dim, "embeddings", [&] {
      return std::to_string(step.embeddings.size()) + " values for " + std::to_string(embeddings) +
             " rows of " + std::to_string(traits_.dim);
    });
  }

  void visibility(const SequenceStep& step) const {
    const Visibility& v = step.visibility;
    const auto rows = static_cast<int64_t>(step.rows.size());
    require(std::ranges::count(traits_.masks, v.kind) > 0, "visibility",
            [&] { return "the model cannot run a " + std::string(name(v.kind)) + " mask"; });
    require(v.context >= 0, "visibility",
            [&] { return "context " + std::to_string(v.context) + " is negative"; });
    if (v.kind == MaskKind::kBlockCausal) {
      require(v.block >= 1, "visibility", [&] { return "a block of " + std::to_string(v.block) + " rows"; });
    }
    if (v.kind == MaskKind::kTree) {
      require(static_cast<int64_t>(v.parents.size()) == rows, "visibility", [&] {
        return std::to_string(v.parents.size()) + " parents for " + std::to_string(rows) + " rows";
      });
      for (int64_t i = 0; i < rows; ++i) {
        require(v.parents[i] >= -1 && v.parents[i] < i, "visibility", [&] {
          return "parent " + std::to_string(v.parents[i]) + " of row " + std::to_string(i) +
                 " does not precede it";
        });
      }
    }
    if (v.kind == MaskKind::kBits) {
      require(static_cast<int64_t>(v.bits.size()) == rows * rows, "visibility",
              [&] { return std::to_string(v.bits.size()) + " bits for " + std::to_string(rows) + " rows"; });
    }
  }

  void write(const SequenceStep& step, const KvCache& cache) const {
    require(step.sequence != SequenceId::kNone, "sequence", [&] { return "there is none"; });
    if (step.write != CacheWrite::kReplace) {
      require(step.replaced.empty(), "replaced", [&] { return "only a replacing step replaces entries"; });
      return;
    }
    const int64_t length = cache.length(step.sequence);
    require(static_cast<int64_t>(step.replaced.size()) == content_rows(step), "replaced", [&] {
      return std::to_string(step.replaced.size()) + " entries for " + std::to_string(content_rows(step)) +
             " rows";
    });
    for (size_t i = 0; i < step.replaced.size(); ++i) {
      require(step.replaced[i] >= 0 && step.replaced[i] < length, "replaced",
              [&] { return "entry " + std::to_string(step.replaced[i]) + " of " + std::to_string(length); });
      for (size_t j = 0; j < i; ++j) {
        require(step.replaced[i] != step.replaced[j], "replaced",
                [&] { return "entry " + std::to_string(step.replaced[i]) + " twice"; });
      }
    }
  }

  void outputs(const SequenceStep& step) const {
    for (int32_t row : step.wanted.logits) {
      require(row >= 0 && row < static_cast<int64_t>(step.rows.size()), "wanted", [&] {
        return "logits of row " + std::to_string(row) + " of " + std::to_string(step.rows.size());
      });
      const RowKind kind = step.rows[row].kind;
      require(traits_.logit_kinds.empty() || std::ranges::count(traits_.logit_kinds, kind) > 0, "wanted",
              [&] {
                return "logits of row " + std::to_string(row) + ": a " + std::string(name(kind)) +
                       " row has none";
              });
    }
    for (int32_t layer : step.wanted.hidden_layers) {
      if (layer != kLastNorm) layer_index(layer, "wanted");
    }
    for (const auto* taps : {&step.wanted.attention, &step.wanted.cross_attention}) {
      for (const AttentionTap& tap : *taps) {
        layer_index(tap.layer, "wanted");
        require(tap.head >= 0 && tap.head < traits_.heads, "wanted", [&] {
          return "attention head " + std::to_string(tap.head) + " of " + std::to_string(traits_.heads);
        });
      }
    }
    require(step.wanted.cross_attention.empty() || traits_.memory_layers > 0, "wanted",
            [&] { return "attention on a memory that the model does not have"; });
  }

  void layers(const SequenceStep& step) const {
    for (size_t i = 0; i < step.layers.size(); ++i) {
      layer_index(step.layers[i], "layers");
      require(i == 0 || step.layers[i] > step.layers[i - 1], "layers", [&] { return "not increasing"; });
    }
  }

  void memory(const SequenceStep& step, const KvCache* memory) const {
    if (traits_.memory_layers > 0) {
      require(step.memory != SequenceId::kNone && memory != nullptr, "memory",
              [&] { return "the model needs one"; });
    } else {
      require(step.memory == SequenceId::kNone, "memory", [&] { return "the model takes none"; });
    }
  }

  void guidance(std::span<const SequenceStep> steps) const {
    const SequenceStep& step = steps[index_];
    if (step.guidance < 0) return;
    require(
        step.guidance < static_cast<int64_t>(steps.size()) && step.guidance != static_cast<int64_t>(index_),
        "guidance",
        [&] { return "partner " + std::to_string(step.guidance) + " of " + std::to_string(steps.size()); });
    require(steps[step.guidance].wanted.logits == step.wanted.logits, "guidance",
            [&] { return "the partner's wanted rows differ"; });
  }

 private:
  void layer_index(int32_t layer, std::string_view field) const {
    require(layer >= 0 && layer < traits_.layers, field,
            [&] { return "layer " + std::to_string(layer) + " of " + std::to_string(traits_.layers); });
  }

  const ModelTraits& traits_;
  size_t index_;
};

// Visible new rows of row i as the mask states them, before query rows are taken out.
bool sees(const SequenceStep& step, const std::vector<std::vector<int32_t>>& ancestors, int64_t i,
          int64_t j) {
  const Visibility& v = step.visibility;
  switch (v.kind) {
    case MaskKind::kCausal:
      return j <= i;
    case MaskKind::kFull:
      return true;
    case MaskKind::kBlockCausal:
      return j / v.block <= i / v.block;
    case MaskKind::kTree:
      return j == i || std::ranges::binary_search(ancestors[i], static_cast<int32_t>(j));
    case MaskKind::kBits:
      return v.bits[i * static_cast<int64_t>(step.rows.size()) + j] != 0;
  }
  return false;
}

void append_row(HostTables& tables, const ModelTraits& traits, const SequenceStep& step, int32_t sequence,
                const StepRow& row, int32_t entry) {
  tables.tokens.push_back(row.kind == RowKind::kToken   ? row.token
                          : row.kind == RowKind::kQuery ? traits.query_token
                                                        : -1);
  for (int64_t c = 0; c < traits.position_components; ++c) tables.positions.push_back(row.position[c]);
  tables.row_sequence.push_back(sequence);
  tables.row_entry.push_back(entry);
  tables.row_context.push_back(step.visibility.context);
  ++tables.rows;
}

void reserve_rows(HostTables& tables, int64_t rows, int64_t position_components) {
  for (std::vector<int32_t>* table :
       {&tables.tokens, &tables.row_sequence, &tables.row_entry, &tables.row_context, &tables.row_prefix,
        &tables.row_tail_begin, &tables.row_tail_count}) {
    table->reserve(static_cast<size_t>(rows));
  }
  tables.positions.reserve(static_cast<size_t>(rows * position_components));
}

// A leading run 0, 1, 2, ... of visible rows is stored as a count; what follows, as a list.
void append_visible(HostTables& tables, std::span<const int32_t> visible) {
  size_t prefix = 0;
  while (prefix < visible.size() && visible[prefix] == static_cast<int32_t>(prefix)) ++prefix;
  tables.row_prefix.push_back(static_cast<int32_t>(prefix));
  tables.row_tail_begin.push_back(static_cast<int32_t>(tables.tail.size()));
  tables.row_tail_count.push_back(static_cast<int32_t>(visible.size() - prefix));
  tables.tail.insert(tables.tail.end(), visible.begin() + static_cast<int64_t>(prefix), visible.end());
}

}  // namespace

int64_t content_rows(const SequenceStep& step) {
  return std::ranges::count_if(step.rows, [](const StepRow& row) { return row.kind != RowKind::kQuery; });
}

void check_step(const ModelTraits& traits, std::span<const SequenceStep> steps, const KvCache& cache,
                const KvCache* memory) {
  std::vector<SequenceId> sequences;
  for (const SequenceStep& step : steps) sequences.push_back(step.sequence);
  std::ranges::sort(sequences);
  const auto twice = std::ranges::adjacent_find(sequences);
  bool is_second = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    const StepCheck check(traits, i);
    if (twice != sequences.end() && *twice == steps[i].sequence) {
      check.require(!std::exchange(is_second, true), "sequence", [] { return "it is in the step twice"; });
    }
    check.rows(steps[i]);
    check.visibility(steps[i]);
    check.write(steps[i], cache);
    check.outputs(steps[i]);
    check.layers(steps[i]);
    check.memory(steps[i], memory);
    check.guidance(steps);
  }
}

HostTables build_tables(const ModelTraits& traits, std::span<const SequenceStep> steps,
                        std::span<const int32_t> indices, int64_t padding) {
  HostTables tables;
  bool has_embeddings = false;
  int64_t all_rows = padding;
  for (int32_t index : indices) {
    all_rows += std::ssize(steps[index].rows);
    tables.sequence_slot.push_back(static_cast<int32_t>(steps[index].sequence));
    tables.sequence_memory.push_back(static_cast<int32_t>(steps[index].memory));
    tables.first_packed.push_back(tables.packed_rows.size());
    tables.packed_rows.resize(tables.packed_rows.size() + steps[index].rows.size(), -1);
    has_embeddings |= !steps[index].embeddings.empty();
  }
  reserve_rows(tables, all_rows, traits.position_components);
  // Of one sequence after the other.
  std::vector<int32_t> scratch;  // scratch row of each content row
  std::vector<std::vector<int32_t>> ancestors;
  std::vector<int32_t> visible;
  for (const bool queries : {false, true}) {
    for (size_t s = 0; s < indices.size(); ++s) {
      const SequenceStep& step = steps[indices[s]];
      const auto count = static_cast<int64_t>(step.rows.size());
      scratch.assign(step.rows.size(), -1);
      int32_t content = 0;
      for (int64_t i = 0; i < count; ++i) {
        if (step.rows[i].kind != RowKind::kQuery) scratch[i] = content++;
      }
      if (queries && content == count) continue;
      if (step.visibility.kind == MaskKind::kTree) {
        ancestors.assign(step.rows.size(), {});
        for (int64_t i = 0; i < count; ++i) {
          const int32_t parent = step.visibility.parents[i];
          if (parent < 0) continue;
          ancestors[i] = ancestors[parent];
          ancestors[i].push_back(parent);
        }
      }
      const float* embedding = step.embeddings.data();
      for (int64_t i = 0; i < count; ++i) {
        const StepRow& row = step.rows[i];
        const bool is_query = row.kind == RowKind::kQuery;
        if (is_query != queries) continue;
        tables.packed_rows[tables.first_packed[s] + static_cast<size_t>(i)] =
            static_cast<int32_t>(tables.rows);
        int32_t entry = is_query ? kNoEntry : scratch[i];
        if (!is_query && step.write == CacheWrite::kReplace)
          entry = replaced_entry(step.replaced[scratch[i]]);
        append_row(tables, traits, step, static_cast<int32_t>(s), row, entry);
        tables.query_rows += is_query;
        visible.clear();
        // Replacing rows are seen in their places among the committed entries.
        if (step.write != CacheWrite::kReplace) {
          for (int64_t j = 0; j < count; ++j) {
            if (scratch[j] >= 0 && sees(step, ancestors, i, j)) visible.push_back(scratch[j]);
          }
        }
        append_visible(tables, visible);
        if (!has_embeddings) continue;
        tables.embeddings.resize(static_cast<size_t>(tables.rows * traits.dim), 0.0f);
        if (row.kind == RowKind::kEmbedding) {
          std::copy(embedding, embedding + traits.dim, tables.embeddings.end() - traits.dim);
          embedding += traits.dim;
        }
      }
    }
  }
  for (int64_t i = 0; i < padding; ++i) {
    append_row(tables, traits, {}, -1, {.token = 0}, kNoEntry);
    append_visible(tables, {});
    if (tables.query_rows > 0) ++tables.query_rows;
  }
  if (has_embeddings) tables.embeddings.resize(static_cast<size_t>(tables.rows * traits.dim), 0.0f);
  for (size_t s = 0; s < indices.size(); ++s) {
    for (int32_t row : steps[indices[s]].wanted.logits)
      tables.logits_rows.push_back(tables.packed_rows[tables.first_packed[s] + static_cast<size_t>(row)]);
  }
  return tables;
}

}  // namespace volley
