#pragma once

// Products of few rows with bf16 weights, whoever runs them: what is multiplied, how a warp adds up a slice
// of the inputs, and what becomes of the sums.

#include "core/backend/cuda/cache_rows.cuh"
#include "core/backend/cuda/posted.cuh"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {

// ---- What is multiplied, in units, and what becomes of the sums. A unit has kSlots panels, whose weights it
// finds by `weight`. A result is what becomes of the sums, by slot, of output `n` of 8 of each panel and a
// row; all lanes of a warp have results of one unit. `Before` is all that a result needs but its sums: a unit
// finds it by `before`, from weights and tables only, so that it can be there before the rows are, with what
// is known of rows (or null); `read_results` adds what earlier operations have made. It is for all lanes, of
// rows that exist and others.

// What changes nothing where it is added, not even the sign of a zero.
inline constexpr float kNoTerm = -0.0f;

class LinearUnits {
 public:
  static constexpr int kSlots = 1;
  struct Before {
    float* at;  // null: nowhere
    float bias;
    float term;
  };
  // In a program: where the results of one target are posted, or null, and whether they are stored, too; the
  // posted results that they are added to, or null.
  struct Posts {
    float* results = nullptr;
    bool stores = true;
    const float* terms = nullptr;
  };

  LinearUnits(const LinearsArgs& args, Accumulate accumulate)
      : targets_(args, kTileOut), accumulate_(accumulate) {}
  int count() const { return static_cast<int>(targets_.tiles()); }
  __device__ int64_t rows(int64_t count, int64_t) const { return count; }

  class Unit {
   public:
    __device__ Unit(const LinearUnits& all, int index)
        : place_(all.targets_.find(static_cast<unsigned>(index))) {}
    __device__ const uint4* weight(int, int steps) const {
      return panel_of(place_.target, place_.tile, steps);
    }
    __device__ Before before(int64_t row, int n, bool exists, const KnownRows*) const {
      const ProductTarget& target = place_.target;
      const int64_t out = int64_t{place_.tile} * kTileOut + n;
      if (!exists || out >= target.out_features) return {nullptr, kNoTerm, kNoTerm};
      return {.at = target.out + row * target.out_features + out,
              .bias = target.bias != nullptr ? target.bias[out] : kNoTerm,
              .term = kNoTerm};
    }

   private:
    ProductTargets::Place place_;
  };

  __device__ void read_results(Before& before) const {
    if (accumulate_ != Accumulate::kAdd || before.at == nullptr) return;
    before.term = posts_.terms != nullptr ? read_posted(place_in(posts_.terms, before)) : *before.at;
  }
  __device__ void store(int, const float (&sums)[kSlots], const Before& before) const {
    if (before.at == nullptr) return;
    float term = before.term;
    if (posts_.terms != nullptr) {
      while (is_missing(term)) term = read_posted(place_in(posts_.terms, before));
    }
    const float result = term + (sums[0] + before.bias);
    if (posts_.results != nullptr) post(place_in(posts_.results, before), result);
    if (posts_.stores) *before.at = result;
  }

  int targets() const { return targets_.count(); }
  const ProductTarget& target(int index) const { return targets_.target(index); }
  bool adds() const { return accumulate_ == Accumulate::kAdd; }
  void set(const Posts& posts) { posts_ = posts; }

 private:
  template <typename T>
  __device__ T* place_in(T* memory, const Before& before) const {
    return memory + (before.at - targets_.target(0).out);
  }

  ProductTargets targets_;
  Accumulate accumulate_;
  Posts posts_;
};

class GatedUnits {
 public:
  static constexpr int kSlots = 2;
  struct Before {
    void* at;  // null: nowhere
    float biases[kSlots];
  };

  GatedUnits(const GatedLinearsArgs& args, const PackedRows* packed)
      : targets_(args), packed_(packed != nullptr ? *packed : PackedRows{}) {}
  int count() const { return static_cast<int>(panels_of(targets_.gate.out_features)); }
  __device__ int64_t rows(int64_t count, int64_t held) const {
    return packed_.data != nullptr ? held : count;
  }
  // Where results go: packed if that has data, else as floats [rows, out_features] to the next.
  const PackedRows& packed() const { return packed_; }
  const float* out() const { return targets_.out; }
  int64_t out_features() const { return targets_.gate.out_features; }
  void pack_to(uint4* memory) { packed_.data = memory; }

  class Unit {
   public:
    __device__ Unit(const GatedUnits& all, int index) : all_(all), panel_(index) {}
    __device__ const uint4* weight(int slot, int steps) const {
      return panel_of(slot == 0 ? all_.targets_.gate : all_.targets_.up, panel_, steps);
    }
    __device__ Before before(int64_t row, int n, bool exists, const KnownRows*) const {
      const GatedTargets& targets = all_.targets_;
      const int64_t out = int64_t{panel_} * kTileOut + n, outs = targets.gate.out_features;
      if (!exists || out >= outs) return {nullptr, {kNoTerm, kNoTerm}};
      const auto bias = [&](const ProductTarget& target) {
        return target.bias != nullptr ? target.bias[out] : kNoTerm;
      };
      void* const at = all_.packed_.data != nullptr ? static_cast<void*>(all_.packed_.at(row, out))
                                                    : targets.out + row * outs + out;
      return {at, {bias(targets.gate), bias(targets.up)}};
    }

   private:
    const GatedUnits& all_;
    int panel_;
  };

  __device__ void read_results(Before&) const {}
  __device__ void store(int, const float (&sums)[kSlots], const Before& before) const {
    if (before.at == nullptr) return;
    const float value = silu(sums[0] + before.biases[0]) * (sums[1] + before.biases[1]);
    if (packed_.data != nullptr) {
      post(static_cast<__nv_bfloat16*>(before.at), __float2bfloat16_rn(value));
    } else {
      *static_cast<float*>(before.at) = value;
    }
  }

 private:
  GatedTargets targets_;
  PackedRows packed_;
};

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
  // Whether KnownRows can be what `find_row` finds.
  bool may_know_rows() const {
    const bool has_both = has_queries_ && targets_.count() > 1;
    return turned().positions != nullptr && turned().components <= KnownRows::kMostComponents &&
           (!has_both || (keys_.positions == queries_.positions && keys_.components == queries_.components));
  }
  // Whether rows of the same step are looked for.
  bool asks_as(const AttentionUnits& other) const {
    return step_tables() == other.step_tables() && step_positions() == other.step_positions() &&
           turned().components == other.turned().components;
  }
  // `row`: of the step.
  __device__ void find_row(int row, KnownRows& known) const {
    known.entries[row] = written_entry(step_tables(), row);
    const int components = turned().components;
    for (int c = 0; c < components; ++c) known.positions[row][c] = step_positions()[row * components + c];
  }

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
      head_ = static_cast<int>(place_.tile) * kTileOut / all.half_;
      first_ = static_cast<int>(place_.tile) * kTileOut % all.half_;
    }
    __device__ const uint4* weight(int slot, int steps) const {
      return panel_of(place_.target, out(slot, 0) / kTileOut, steps);
    }
    __device__ Before before(int64_t row, int n, bool exists, const KnownRows* known) const {
      Before before{.at = exists ? at(row, n, known) : nullptr,
                    .biases = {kNoTerm, kNoTerm},
                    .turns = {},
                    .how = kind_ == kValues      ? Turns::kNot
                           : rotation().adjacent ? Turns::kAdjacent
                                                 : Turns::kSplitHalf,
                    .type = kind_ == kQueries ? CacheType::kF32 : all_.write_.keys.type};
      if (!exists) return before;
#pragma unroll
      for (int s = 0; s < kSlots; ++s) {
        if (place_.target.bias != nullptr) before.biases[s] = place_.target.bias[out(s, n)];
        if (before.how == Turns::kNot || (s > 0 && before.how == Turns::kSplitHalf)) continue;
        before.turns[s] = known != nullptr ? rotation().turn_at(known->positions[step_row(row)], pair(s, n))
                                           : rotation().turn_of(row, pair(s, n));
      }
      return before;
    }

   private:
    enum Kind { kQueries, kKeys, kValues };

    __device__ int64_t step_row(int64_t row) const {
      return all_.first_row() + row;
    }
    __device__ int64_t out(int slot, int n) const {
      return int64_t{head_} * 2 * all_.half_ + first_ + slot * all_.half_ + n;
    }
    __device__ std::byte* at(int64_t row, int n, const KnownRows* known) const {
      if (kind_ == kQueries)
        return reinterpret_cast<std::byte*>(place_.target.out + row * place_.target.out_features + out(0, n));
      const int64_t place =
          known != nullptr ? all_.write_.place_of(known->entries[step_row(row)]) : all_.write_.place(row);
      if (place < 0) return nullptr;
      const CacheElements& elements = kind_ == kKeys ? all_.write_.keys : all_.write_.values;
      return elements.at(place + head_ * all_.write_.layout.group_stride() + first_ + n);
    }
    __device__ const Rotation& rotation() const {
      return kind_ == kQueries ? all_.queries_ : all_.keys_;
    }
    __device__ int pair(int slot, int n) const {
      return rotation().adjacent ? (first_ + n + slot * all_.half_) / 2 : first_ + n;
    }

    const AttentionUnits& all_;
    ProductTargets::Place place_;
    Kind kind_;
    int head_;
    int first_;  // element of the head where slot 0 begins
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
  __host__ __device__ const int32_t* step_positions() const {
    return turned().positions - first_row() * turned().components;
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

// ---- Sums

// What the rows are before they are multiplied.
enum class Input { kRows, kNormed, kPacked };

struct FewRows {
  explicit FewRows(const BF16Products& products)
      : input(products.norm != nullptr     ? Input::kNormed
              : products.packed != nullptr ? Input::kPacked
                                           : Input::kRows),
        rows(products.rows),
        norm(products.norm != nullptr ? *products.norm : NormWeights{}),
        packed(products.packed != nullptr ? *products.packed : PackedRows{}) {}

  Input input;
  InputRows rows;
  NormWeights norm;     // if kNormed
  PackedRows packed;    // if kPacked
  PickedRows picked;    // in a program, if kNormed: of `rows.x`, if it has ids
  bool posted = false;  // in a program: whether the rows, or what is packed, are
};

// kGroups of eight rows, as multiply-accumulates take them.
template <int kGroups>
struct FewTiles {
  static constexpr int kTiles = (kGroups + 1) / 2;
  static constexpr int kValues = kGroups * 8 * kTileOut;  // of a panel
};

// Sums of a warp: of kSlots panels and a slice of the inputs.
template <int kGroups, int kSlots>
class SliceSums {
  static constexpr int kTiles = FewTiles<kGroups>::kTiles;

 public:
  // One step, of which the blocks of a panel and those of the rows, group by group, are in shared memory.
  __device__ void add(const uint4* const (&panels)[kSlots], const uint4* rows) {
    const int place = load_place(static_cast<int>(threadIdx.x) % kWarp);
    uint4 weights[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) weights[s] = load_block(panels[s] + place);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4* row = rows + 2 * t * kWarp + place;
      multiply_step(sums_[t], load_block(row),
                    2 * t + 1 < kGroups ? load_block(row + kWarp) : make_uint4(0, 0, 0, 0), weights);
    }
  }
  // Whether the lane has a NaN, or different infinities, among those of the first so many rows.
  __device__ bool may_have_nan(int rows) const {
    const int row = static_cast<int>(threadIdx.x) % kWarp / 4;
    bool any = false;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float all = 0.0f;
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        all += sums_[g / 2][s].values[g % 2 * 2] + sums_[g / 2][s].values[g % 2 * 2 + 1];
      any = any || (isnan(all) && row + g * 8 < rows);
    }
    return any;
  }
  // Leaves them where those of other slices join them: [rows, outputs] of a panel.
  __device__ void put(int slot, float* part) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const auto& sums = sums_[t][slot].values;
      float* to = part + (t * kTileRows + lane / 4) * kTileOut + lane % 4 * 2;
      to[0] = sums[0];
      to[1] = sums[1];
      if (2 * t + 1 >= kGroups) continue;
      to[8 * kTileOut] = sums[2];
      to[8 * kTileOut + 1] = sums[3];
    }
  }

 private:
  Tile sums_[kTiles][kSlots];
};

// The sums of all slices at one place of a panel.
template <int kValues>
__device__ float joined(const float (&parts)[kSlices][kValues], int at) {
  return join_slices(parts[0][at], parts[1][at], parts[2][at], parts[3][at]);
}

}  // namespace volley::cuda
