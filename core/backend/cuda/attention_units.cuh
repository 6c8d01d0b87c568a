#pragma once

// Units of products whose results are queries, keys and values.

#include "core/backend/cuda/cache_rows.cuh"
#include "core/backend/cuda/product_units.cuh"

namespace volley::cuda {

// Queries, keys and values: the two panels of a unit are half a head apart, so that both elements of a pair
// that turns together are here in either layout.
class AttentionUnits {
 public:
  static constexpr int kSlots = 2;
  enum class Turns : int8_t { kNot, kSplitHalf, kAdjacent };
  struct Before {
    std::byte* at;  // of slot 0's element; null: nowhere
    float biases[kSlots];
    Turn turns[kSlots];
    Turns how;
    CacheType type;
  };

  explicit AttentionUnits(const AttentionInputsArgs& args)
      : targets_(args.projections.linears, kSlots * kTileOut),
        has_queries_(args.turned.queries.x.data != nullptr),
        half_(static_cast<int>(head_width(args) / 2)),
        queries_(args.turned.queries),
        keys_(args.turned.keys),
        write_(args.turned.write) {}
  int count() const { return static_cast<int>(targets_.tiles()); }
  __device__ int64_t rows(int64_t count, int64_t) const { return count; }
  const CacheRows& write() const { return write_; }
  const float* queries() const { return has_queries_ ? targets_.target(0).out : nullptr; }
  int64_t query_features() const { return targets_.target(0).out_features; }
  // Which row of the step is the first.
  __host__ __device__ int64_t first_row() const { return write_.tables.first_row; }
  // Whether what is known of a row can be of queries and keys.
  bool may_know_rows() const {
    const bool has_both = has_queries_ && targets_.count() > 1;
    return turned().positions != nullptr && (!has_both || keys_ == queries_);
  }
  // Whether the same is looked for of rows of the same step.
  bool asks_as(const AttentionUnits& other) const {
    return step_tables() == other.step_tables() && step_turns() == other.step_turns() &&
           half_ == other.half_ && write_.layout == other.write_.layout;
  }
  // Pairs of a vector that turn.
  __host__ __device__ int pairs() const { return half_; }
  // Of rows of the step.
  __device__ int64_t place_of(int row) const { return write_.place_of(written_entry(step_tables(), row)); }
  __device__ Turn turn_of(int row, int pair) const { return step_turns().turn_of(row, pair); }

  static int64_t head_width(const AttentionInputsArgs& args) {
    const RotateAndWriteArgs& turned = args.turned;
    return (turned.queries.x.data != nullptr ? turned.queries : turned.keys).x.shape[2];
  }

  class Unit {
   public:
    __device__ Unit(const AttentionUnits& all, int index)
        : all_(all), place_(all.targets_.find(static_cast<unsigned>(index))) {
      const int target = place_.index + (all.has_queries_ ? 0 : 1);
      kind_ = target == 0 ? kQueries : target == 1 ? kKeys : kValues;
      const int head = static_cast<int>(place_.tile) * kTileOut / all.half_;
      first_ = static_cast<int>(place_.tile) * kTileOut % all.half_;
      out_ = head * 2 * all.half_ + first_;
      const CacheElements elements =
          kind_ == kQueries ? CacheElements{reinterpret_cast<std::byte*>(place_.target.out), CacheType::kF32}
          : kind_ == kKeys  ? all.write_.keys
                            : all.write_.values;
      type_ = elements.type;
      at_ = elements.at(kind_ == kQueries ? out_ : head * all.write_.layout.group_stride() + first_);
    }
    __device__ const uint4* weight(int slot, int steps) const {
      return panel_of(place_.target, (out_ + slot * all_.half_) / kTileOut, steps);
    }
    // `known`: KnownRows, or NothingKnown.
    template <typename Known>
    __device__ Before before(int64_t row, int n, bool exists, const Known& known) const {
      const Rotation& rotation = kind_ == kQueries ? all_.queries_ : all_.keys_;
      Before before{.at = nullptr,
                    .biases = {kNoTerm, kNoTerm},
                    .turns = {},
                    .how = kind_ == kValues    ? Turns::kNot
                           : rotation.adjacent ? Turns::kAdjacent
                                               : Turns::kSplitHalf,
                    .type = type_};
      if (!exists) return before;
      const int64_t place =
          kind_ == kQueries ? row * place_.target.out_features : known.place(all_.write_, row);
      if (place >= 0) before.at = CacheElements{at_, type_}.at(place + n);
      const float* const bias = place_.target.bias;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        if (bias != nullptr) before.biases[s] = bias[out_ + s * all_.half_ + n];
        if (before.how == Turns::kNot || (s > 0 && before.how == Turns::kSplitHalf)) continue;
        const int pair = before.how == Turns::kAdjacent ? (first_ + n + s * all_.half_) / 2 : first_ + n;
        before.turns[s] = known.turn(all_.write_, row, rotation, pair);
      }
      return before;
    }

   private:
    enum Kind { kQueries, kKeys, kValues };

    const AttentionUnits& all_;
    ProductTargets::Place place_;
    Kind kind_;
    CacheType type_;
    std::byte* at_;  // where element 0 of slot 0 goes of a row at place 0
    int first_;      // element of the head where slot 0 begins
    int out_;        // output where it begins
  };

  __device__ void read_results(Before&) const {}
  __device__ void store(int n, const float (&sums)[kSlots], const Before& before) const {
    float values[kSlots] = {sums[0] + before.biases[0], sums[1] + before.biases[1]};
    turn(n, before, values);
    if (before.at == nullptr) return;
    const CacheElements elements{before.at, before.type};
#pragma unroll
    for (int s = 0; s < kSlots; ++s) elements.put(s * half_, values[s]);
  }

 private:
  // Of what there is, queries or keys.
  __host__ __device__ const Rotation& turned() const {
    return has_queries_ ? queries_ : keys_;
  }
  // Of the step's rows from the first on.
  __host__ __device__ RowTables step_tables() const {
    RowTables tables = write_.tables;
    tables.first_row = 0;
    return tables;
  }
  __host__ __device__ Rotation step_turns() const {
    Rotation turns = turned();
    turns.positions -= first_row() * turns.components;
    return turns;
  }

  // Pairs lie in the two slots of a lane, or in the same slot of two lanes. All lanes take part.
  __device__ static void turn(int n, const Before& before, float (&values)[kSlots]) {
    if (before.how == Turns::kNot) return;
    if (before.how == Turns::kSplitHalf) return before.turns[0].apply(values[0], values[1]);
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const float other = __shfl_xor_sync(kAllLanes, values[s], 1);
      float a = n % 2 == 0 ? values[s] : other, b = n % 2 == 0 ? other : values[s];
      before.turns[s].apply(a, b);
      values[s] = n % 2 == 0 ? a : b;
    }
  }

  ProductTargets targets_;
  bool has_queries_;
  int half_;
  Rotation queries_;
  Rotation keys_;
  CacheRows write_;
};

}  // namespace volley::cuda
