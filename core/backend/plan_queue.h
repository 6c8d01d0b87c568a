#pragma once

#include <cstring>

#include "core/backend/backend.h"

namespace volley {

// Carries out nothing: for finding out what a sequence of operations takes. Addresses are not looked at, but
// for the host's side of a download, which gets zeros.
class PlanQueue : public Queue {
 public:
  void gather_rows(const GatherRowsArgs&) override {}
  void gather_weight_rows(const GatherWeightRowsArgs&) override {}
  void copy(const CopyArgs&) override {}
  void add_rows(const AddRowsArgs&) override {}
  void rms_norm(const RmsNormArgs&) override {}
  void layer_norm(const LayerNormArgs&) override {}
  void linear(const LinearArgs&) override {}
  void linears(const LinearsArgs&) override {}
  void activate(const ActivateArgs&) override {}
  void silu_mul(const SiluMulArgs&) override {}
  void add(const AddArgs&) override {}
  void rope(const RopeArgs&) override {}
  void write_cache(const WriteCacheArgs&) override {}
  void attention(const AttentionArgs&) override {}
  void attention_weights(const AttentionWeightsArgs&) override {}
  void dense_attention(const DenseAttentionArgs&) override {}
  void move_entries(const MoveEntriesArgs&) override {}
  void copy_page(const CopyPageArgs&) override {}
  void conv2d(const Conv2dArgs&) override {}
  void group_norm(const GroupNormArgs&) override {}
  void upsample2x(const Upsample2xArgs&) override {}
  void channel_bytes(const ChannelBytesArgs&) override {}
  void transpose(const TransposeArgs&) override {}
  void l2_normalize(const L2NormalizeArgs&) override {}
  void nearest_rows(const NearestRowsArgs&) override {}
  void sample(const SampleArgs&) override {}
  void upload(const void*, void*, int64_t) override {}
  void download(const void*, void* host, int64_t bytes) override {
    if (bytes > 0) std::memset(host, 0, static_cast<size_t>(bytes));
  }
  void finish() override {}
};

}  // namespace volley
