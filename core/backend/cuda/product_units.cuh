#pragma once

// What products of few rows multiply, and what becomes of their sums.

#include "core/backend/cuda/posted.cuh"
#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {

// A product is units. A unit has kSlots panels, whose weights it finds by `weight`. A result is what becomes
// of the sums, by slot, of output `n` of 8 of each panel and a row; all lanes of a warp have results of one
// unit. `Before` is all that a result needs but its sums: a unit finds it by `before`, from weights and
// tables only, so that it can be there before the rows are, with what is known of rows (KnownRows,
// NothingKnown); `read_results` adds what earlier operations have made. It is for all lanes, of rows that
// exist and others.

// What changes nothing where it is added, not even the sign of a zero.
inline constexpr float kNoTerm = -0.0f;

// Rows of results as a later product of a program takes them: weighted by its norm, rounded and packed, with
// the sum of squares of each eight of a row.
struct HandedRows {
  PackedRows packed;
  float* squares = nullptr;  // [rows, steps, 4]
  const float* norm_weight = nullptr;

  __host__ __device__ static int64_t squares_of_row(int steps) {
    return int64_t{steps} * (kStep / kLaneInputs);
  }
};

class LinearUnits {
 public:
  static constexpr int kSlots = 1;
  struct Before {
    float* at;  // null: nowhere
    float bias;
    float term;
    __nv_bfloat16* handed;  // if rows are handed on
    float weight;           // of the norm
  };
  // In a program: where the results of one target are posted, or null, and whether they are stored, too; the
  // posted results that they are added to, or null; where they are handed on, if that is packed.
  struct Posts {
    float* results = nullptr;
    bool stores = true;
    const float* terms = nullptr;
    HandedRows handed;
  };

  LinearUnits(const LinearsArgs& args, Accumulate accumulate)
      : targets_(args, kTileOut), accumulate_(accumulate) {}
  int count() const { return static_cast<int>(targets_.tiles()); }
  __device__ int64_t rows(int64_t count, int64_t) const { return count; }

  class Unit {
   public:
    __device__ Unit(const LinearUnits& all, int index)
        : place_(all.targets_.find(static_cast<unsigned>(index))), handed_(all.posts_.handed) {}
    __device__ const uint4* weight(int, int steps) const {
      return panel_of(place_.target, place_.tile, steps);
    }
    template <typename Known>
    __device__ Before before(int64_t row, int n, bool exists, const Known&) const {
      const ProductTarget& target = place_.target;
      const int64_t out = int64_t{place_.tile} * kTileOut + n;
      if (!exists || out >= target.out_features) return {nullptr, kNoTerm, kNoTerm, nullptr, 0.0f};
      const bool is_handed = handed_.packed.data != nullptr;
      return {.at = target.out + row * target.out_features + out,
              .bias = target.bias != nullptr ? target.bias[out] : kNoTerm,
              .term = kNoTerm,
              .handed = is_handed ? handed_.packed.at(row, out) : nullptr,
              .weight = is_handed ? handed_.norm_weight[out] : 0.0f};
    }

   private:
    ProductTargets::Place place_;
    const HandedRows& handed_;
  };

  __device__ void read_results(Before& before) const {
    if (accumulate_ != Accumulate::kAdd || before.at == nullptr) return;
    before.term = posts_.terms != nullptr ? read_posted(place_in(posts_.terms, before)) : *before.at;
  }
  __device__ void store(int n, const float (&sums)[kSlots], const Before& before) const {
    float term = before.term;
    if (posts_.terms != nullptr && before.at != nullptr) {
      while (is_missing(term)) term = read_posted(place_in(posts_.terms, before));
    }
    const float result = term + (sums[0] + before.bias);
    if (posts_.handed.packed.data != nullptr) hand_on(n, result, before);
    if (before.at == nullptr) return;
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
  // By all lanes: eight have the results of a row.
  __device__ void hand_on(int n, float result, const Before& before) const {
    const float square = squares_of_eight(result);
    if (before.at == nullptr) return;
    post(before.handed, __float2bfloat16_rn(result * before.weight));
    if (n == 0) post(posts_.handed.squares + (before.at - targets_.target(0).out) / kLaneInputs, square);
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
    template <typename Known>
    __device__ Before before(int64_t row, int n, bool exists, const Known&) const {
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

}  // namespace volley::cuda
