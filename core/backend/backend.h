#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/buffer.h"
#include "core/backend/operations.h"
#include "core/base/error.h"
#include "core/tensor/tensor.h"

namespace volley {

// Executes operations in the order of the calls. One queue belongs to one session; several queues of one
// backend may be used at the same time from different threads. Operations do not allocate and do not wait:
// results may be read by the host after `finish` or `download`.
class Queue {
 public:
  virtual ~Queue() = default;

  virtual void gather_rows(const GatherRowsArgs& args) = 0;
  // Only where DeviceInfo::has_blocks.
  virtual void gather_weight_rows(const GatherWeightRowsArgs& args) {
    static_cast<void>(args);
    VOLLEY_ASSERT(false);
  }
  virtual void copy(const CopyArgs& args) = 0;
  virtual void add_rows(const AddRowsArgs& args) = 0;
  virtual void rms_norm(const RmsNormArgs& args) = 0;
  virtual void layer_norm(const LayerNormArgs& args) = 0;
  virtual void linear(const LinearArgs& args) = 0;
  virtual void linears(const LinearsArgs& args) = 0;
  virtual void activate(const ActivateArgs& args) = 0;
  virtual void silu_mul(const SiluMulArgs& args) = 0;
  virtual void add(const AddArgs& args) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  virtual void write_cache(const WriteCacheArgs& args) = 0;
  virtual void attention(const AttentionArgs& args) = 0;
  virtual void attention_weights(const AttentionWeightsArgs& args) = 0;
  virtual void dense_attention(const DenseAttentionArgs& args) = 0;
  virtual void move_entries(const MoveEntriesArgs& args) = 0;
  virtual void copy_page(const CopyPageArgs& args) = 0;
  virtual void conv2d(const Conv2dArgs& args) = 0;
  virtual void group_norm(const GroupNormArgs& args) = 0;
  virtual void upsample2x(const Upsample2xArgs& args) = 0;
  virtual void channel_bytes(const ChannelBytesArgs& args) = 0;
  virtual void transpose(const TransposeArgs& args) = 0;
  virtual void l2_normalize(const L2NormalizeArgs& args) = 0;
  virtual void nearest_rows(const NearestRowsArgs& args) = 0;
  virtual void sample(const SampleArgs& args) = 0;

  // Several operations in one, with the bits of each by itself: what a device can do in one go. Only products
  // of normed rows may have bits of their own (NormedLinearsArgs).
  virtual void gated_linears(const GatedLinearsArgs& args) {
    const std::array targets{args.gate, args.up};
    linears({.x = args.x, .targets = targets, .phase = args.phase});
    silu_mul({.gate = args.gate.out, .up = args.up.out, .out = args.out});
  }
  virtual void normed_linears(const NormedLinearsArgs& args) {
    rms_norm(args.norm);
    linears(args.linears);
  }
  virtual void normed_rows_linear(const NormedRowsLinearArgs& args) {
    VOLLEY_ASSERT(args.linear.accumulate == Accumulate::kAssign);
    const LinearArgs& linear = args.linear;
    const std::array targets{LinearTarget{.weight = &linear.weight, .bias = linear.bias, .out = linear.out}};
    gather_rows(args.rows);
    normed_linears(
        {.norm = args.norm, .linears = {.x = linear.x, .targets = targets, .phase = linear.phase}});
  }
  virtual void normed_gated_linears(const NormedGatedLinearsArgs& args) {
    rms_norm(args.norm);
    gated_linears(args.linears);
  }
  virtual void feed_forward(const FeedForwardArgs& args) {
    normed_gated_linears(args.gates);
    linear(args.down);
  }
  virtual void activated_feed_forward(const ActivatedFeedForwardArgs& args) {
    layer_norm(args.norm);
    linear(args.up);
    activate({.activation = args.activation, .x = args.up.out});
    linear(args.down);
  }
  virtual void dense_self_attention(const DenseSelfAttentionArgs& args) {
    layer_norm(args.norm);
    linears(args.projections);
    dense_attention(args.attention);
    linear(args.output);
  }
  virtual void rotate_and_write(const RotateAndWriteArgs& args) {
    if (args.queries.x.data != nullptr) rope(args.queries);
    if (args.keys.x.data == nullptr) return;
    rope(args.keys);
    write_cache(args.write);
  }
  virtual void attention_inputs(const AttentionInputsArgs& args) {
    normed_linears(args.projections);
    rotate_and_write(args.turned);
  }
  virtual void normed_convs(const NormedConvsArgs& args) {
    group_norm(args.norm);
    for (const Conv2dArgs& conv : args.convs) conv2d(conv);
  }
  virtual void upsampled_conv(const UpsampledConvArgs& args) {
    upsample2x(args.upsample);
    conv2d(args.conv);
  }
  virtual void attention_output(const AttentionOutputArgs& args) {
    attention(args.attention);
    linear(args.output);
  }

  // Runs `operations`, which call this queue. A queue may record what they call and later replay it in their
  // place: with the same `key` they must call the same operations with the same arguments, addresses
  // included. What changes from run to run stands in memory that the operations read.
  virtual void run_recorded(std::span<const int64_t> key, const std::function<void()>& operations) {
    static_cast<void>(key);
    operations();
  }

  // Copies between host and device memory, in order with the operations. `upload` may return before the copy
  // is done but has read `host` by then; `download` returns when `host` holds the bytes.
  virtual void upload(const void* host, void* device, int64_t bytes) = 0;
  virtual void download(const void* device, void* host, int64_t bytes) = 0;
  virtual void finish() = 0;
};

// What a device is, for people.
struct DeviceInfo {
  std::string name;         // as --device takes it
  std::string description;  // processor or card
  bool has_bf16 = false;    // products on bf16 weights run natively
  bool has_blocks = false;  // products of q4_1 weights, and gather_weight_rows
  std::string arithmetic;   // what bits depend on: devices that agree in it give the same ones
};

// A packed weight's planes in host memory (core/nn/packed_weights.h); `scales` only of quantised weights.
struct PackedPlanes {
  HostView panels;
  HostView scales;
};

// Whether a result has the same bits on both.
inline bool compute_alike(const DeviceInfo& a, const DeviceInfo& b) {
  return a.arithmetic == b.arithmetic;
}

// Bytes that a packed weight takes.
struct PackedBytes {
  int64_t data = 0;
  int64_t beside = 0;   // scales of a product's weight, a convolution's bias
  int64_t packing = 0;  // besides both, while it is packed
};

// A device: its memory, its weight layouts, its queues. Const after construction and shareable between
// threads.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const DeviceInfo& info() const = 0;
  virtual std::unique_ptr<Queue> make_queue() const = 0;

  // Uninitialised memory, aligned to 64 bytes. Throws Error naming the bytes asked for when there is too
  // little.
  virtual Buffer allocate(int64_t bytes) const = 0;
  // Bytes allocated now and at most so far.
  virtual int64_t allocated_bytes() const = 0;
  virtual int64_t peak_bytes() const = 0;

  // Type of the caches of a session on a model with such weights.
  virtual CacheType cache_type(WeightType weights) const {
    return weights == WeightType::kF32 ? CacheType::kF32 : CacheType::kBF16;
  }

  // Packs `weight`, [out_features, in_features] in any float type, for products with storage `type` (q4_1:
  // only where the device has blocks; 4-bit block types are taken as they are). Throws Error if a value is
  // not finite.
  virtual LinearWeight pack_linear(const HostView& weight, WeightType type) const = 0;
  // The same for q8_0 planes as they are: quants i8 [out, in], scales f16 [out, in / 32].
  virtual LinearWeight pack_quantized(const HostView& quants, const HostView& scales) const = 0;
  // Packs a convolution's weight [out, in, kh, kw] and bias [out] (data null: zeros), both of any float type,
  // for storage f32 or bf16. Throws Error if a value is not finite.
  virtual ConvWeight pack_conv(const HostView& weight, const HostView& bias, WeightType type) const = 0;

  // Name and version of the layout in which weights other than f32 lie; empty where none is written to files.
  virtual std::string_view packed_layout() const = 0;
  // Planes of such a packed weight, in its memory.
  virtual PackedPlanes packed_planes(const LinearWeight& weight) const = 0;
  // A weight [out_features, in_features] of planes in that layout. They are used where they lie if `owner`,
  // which keeps them alive, is given and they are aligned, else copied. Throws Error saying what does not
  // fit.
  struct MapLinearArgs {
    PackedPlanes planes;
    WeightType type = WeightType::kBF16;
    int64_t out_features = 0;
    int64_t in_features = 0;
    std::shared_ptr<const void> owner;
  };
  virtual LinearWeight map_linear(const MapLinearArgs& args) const = 0;
  // A bf16 convolution's weight as the product's that it is packed as, and back: `shape` is [out, in, kh,
  // kw].
  virtual LinearWeight conv_as_linear(const ConvWeight& weight) const = 0;
  virtual ConvWeight conv_from_linear(const LinearWeight& weight, const HostView& bias,
                                      const Shape& shape) const = 0;

  // What all that takes of the device's memory, before any is taken (core/backend/plan_backend.h): a weight
  // [out_features, in_features] of such storage, a convolution's [out, in, kh, kw] and what a queue holds for
  // its operations. Throw Error as packing does.
  virtual PackedBytes linear_bytes(const Shape& shape, WeightType type) const = 0;
  virtual PackedBytes conv_bytes(const Shape& shape, WeightType type) const = 0;
  // Carries out nothing and follows no address (PlanQueue); allocates in `memory`, which outlives it, what a
  // queue of make_queue would allocate for itself.
  virtual std::unique_ptr<Queue> make_plan_queue(const Memory& memory) const = 0;
};

// Names of the devices of this machine that make_backend takes.
std::vector<std::string> devices();

// `device`: "cpu", "cpu-reference", "cuda:N" ("auto" picks a CUDA device that is there, else cpu). threads: 0
// = physical cores. Throws Error kUsage for an unknown device, kFailed for one that is missing.
std::shared_ptr<const Backend> make_backend(std::string_view device, int64_t threads);

}  // namespace volley
