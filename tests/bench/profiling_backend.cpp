#include "tests/bench/profiling_backend.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "core/backend/visible_keys.h"
#include "core/decode/statistics.h"

namespace volley {

void OperationCost::add(const OperationCost& other) {
  calls += other.calls;
  seconds += other.seconds;
  rows += other.rows;
  weight_bytes += other.weight_bytes;
  cache_bytes += other.cache_bytes;
  is_quantized = is_quantized || other.is_quantized;
  operations += other.operations;
}

OperationCost OperationProfile::total() const {
  OperationCost total;
  for (const auto& [kind, cost] : costs) total.add(cost);
  return total;
}

namespace {

std::string extents(const std::string& operation, const Shape& shape) {
  return std::string(operation) + " " + shape.to_string();
}

// A table in host memory: where it is, or a copy of it.
template <typename T>
std::vector<T> on_host(Queue& queue, const View<const T>& table) {
  std::vector<T> host(static_cast<size_t>(table.size()));
  queue.download(table.data, host.data(), table.size() * static_cast<int64_t>(sizeof(T)));
  return host;
}

OperationCost attention_cost(Queue& queue, const AttentionArgs& args) {
  const int64_t rows = args.q.shape[0], heads = args.q.shape[1], width = args.q.shape[2];
  const auto sequence = on_host(queue, args.step.row_sequence),
             context = on_host(queue, args.step.row_context), prefix = on_host(queue, args.step.row_prefix),
             tail_count = on_host(queue, args.step.row_tail_count),
             slot = on_host(queue, args.step.sequence_slot),
             memory = on_host(queue, args.step.sequence_memory),
             lengths = on_host(queue, View<const int32_t>(args.cache.lengths));
  RowTables tables(args.step, args.cache, args.first_row);
  tables.row_sequence = sequence.data();
  tables.row_context = context.data();
  tables.row_prefix = prefix.data();
  tables.row_tail_count = tail_count.data();
  tables.sequence_slot = slot.data();
  tables.sequence_memory = memory.data();
  tables.lengths = lengths.data();
  const std::vector<int32_t> no_tail(sequence.size(), 0);  // only counted here
  tables.row_tail_begin = no_tail.data();
  std::map<int32_t, int64_t> longest;  // visible keys of a sequence's rows, at most
  OperationCost cost{.rows = rows};
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t keys = VisibleKeys(tables, args.source, r).size();
    int64_t& most = longest[sequence[static_cast<size_t>(args.first_row + r)]];
    most = std::max(most, keys);
    cost.operations += 4.0 * static_cast<double>(keys * heads * width);
  }
  for (const auto& [id, keys] : longest)
    cost.cache_bytes += 2 * keys * args.plane.shape[1] * width * cache_element_bytes(args.plane.type);
  return cost;
}

class ProfilingQueue : public Queue {
 public:
  ProfilingQueue(std::unique_ptr<Queue> inner, std::shared_ptr<OperationProfile> profile)
      : inner_(std::move(inner)), profile_(std::move(profile)) {}

  void gather_rows(const GatherRowsArgs& args) override {
    timed("gather rows", {}, [&] { inner_->gather_rows(args); });
  }
  void gather_weight_rows(const GatherWeightRowsArgs& args) override {
    timed("gather weight rows", {}, [&] { inner_->gather_weight_rows(args); });
  }
  void copy(const CopyArgs& args) override {
    timed("copy", {}, [&] { inner_->copy(args); });
  }
  void add_rows(const AddRowsArgs& args) override {
    timed("add rows", {}, [&] { inner_->add_rows(args); });
  }
  void rms_norm(const RmsNormArgs& args) override {
    timed("norm", {}, [&] { inner_->rms_norm(args); });
  }
  void layer_norm(const LayerNormArgs& args) override {
    timed("norm", {}, [&] { inner_->layer_norm(args); });
  }
  void linear(const LinearArgs& args) override {
    const LinearWeight& weight = args.weight;
    const int64_t rows = args.out.size() / weight.out_features;
    timed(extents("linear", {weight.out_features, weight.in_features}),
          {.rows = rows,
           .weight_bytes = weight.data.bytes() + weight.scales.bytes(),
           .operations = 2.0 * static_cast<double>(rows * weight.out_features * weight.in_features),
           .is_quantized = volley::is_quantized(weight.type)},
          [&] { inner_->linear(args); });
  }
  void linears(const LinearsArgs& args) override {
    OperationCost cost{.rows = args.x.size() / args.targets.front().weight->in_features};
    std::vector<int64_t> sizes;
    for (const LinearTarget& target : args.targets) {
      const LinearWeight& weight = *target.weight;
      sizes.push_back(weight.out_features);
      cost.is_quantized = volley::is_quantized(weight.type);
      cost.weight_bytes += weight.data.bytes() + weight.scales.bytes();
      cost.operations += 2.0 * static_cast<double>(cost.rows * weight.out_features * weight.in_features);
    }
    sizes.push_back(args.targets.front().weight->in_features);
    timed(extents(std::to_string(args.targets.size()) + " linears", Shape(std::span<const int64_t>(sizes))),
          cost, [&] { inner_->linears(args); });
  }
  void activate(const ActivateArgs& args) override {
    timed("activation", {}, [&] { inner_->activate(args); });
  }
  void silu_mul(const SiluMulArgs& args) override {
    timed("silu mul", {}, [&] { inner_->silu_mul(args); });
  }
  void add(const AddArgs& args) override {
    timed("add", {}, [&] { inner_->add(args); });
  }
  void rope(const RopeArgs& args) override {
    timed("rope", {}, [&] { inner_->rope(args); });
  }
  void write_cache(const WriteCacheArgs& args) override {
    timed("cache write", {}, [&] { inner_->write_cache(args); });
  }
  void attention(const AttentionArgs& args) override {
    timed("attention", attention_cost(*inner_, args), [&] { inner_->attention(args); });
  }
  void attention_weights(const AttentionWeightsArgs& args) override {
    timed("attention weights", {}, [&] { inner_->attention_weights(args); });
  }
  void dense_attention(const DenseAttentionArgs& args) override {
    timed("dense attention", {.rows = args.q.shape[0] * args.q.shape[1]},
          [&] { inner_->dense_attention(args); });
  }
  void move_entries(const MoveEntriesArgs& args) override {
    timed("cache commit", {}, [&] { inner_->move_entries(args); });
  }
  void copy_page(const CopyPageArgs& args) override {
    timed("cache page copy", {}, [&] { inner_->copy_page(args); });
  }
  void conv2d(const Conv2dArgs& args) override {
    timed_conv("conv", args, [&] { inner_->conv2d(args); });
  }
  // As one operation, where a backend may do it at once.
  void normed_convs(const NormedConvsArgs& args) override {
    if (args.convs.size() > 1) return Queue::normed_convs(args);
    timed_conv("norm, conv", args.convs.front(), [&] { inner_->normed_convs(args); });
  }
  void upsampled_conv(const UpsampledConvArgs& args) override {
    timed_conv("upsample, conv", args.conv, [&] { inner_->upsampled_conv(args); });
  }
  void group_norm(const GroupNormArgs& args) override {
    timed("group norm", {}, [&] { inner_->group_norm(args); });
  }
  void upsample2x(const Upsample2xArgs& args) override {
    timed("upsample", {}, [&] { inner_->upsample2x(args); });
  }
  void channel_bytes(const ChannelBytesArgs& args) override {
    timed("channel bytes", {}, [&] { inner_->channel_bytes(args); });
  }
  void transpose(const TransposeArgs& args) override {
    timed("transpose", {}, [&] { inner_->transpose(args); });
  }
  void l2_normalize(const L2NormalizeArgs& args) override {
    timed("l2 normalize", {}, [&] { inner_->l2_normalize(args); });
  }
  void nearest_rows(const NearestRowsArgs& args) override {
    timed("nearest rows", {}, [&] { inner_->nearest_rows(args); });
  }
  void sample(const SampleArgs& args) override {
    timed("sampling", {.rows = args.rows.size()}, [&] { inner_->sample(args); });
  }
  void upload(const void* host, void* device, int64_t bytes) override {
    timed("upload and download", {}, [&] { inner_->upload(host, device, bytes); });
  }
  void download(const void* device, void* host, int64_t bytes) override {
    timed("upload and download", {}, [&] { inner_->download(device, host, bytes); });
  }
  void finish() override { inner_->finish(); }

 private:
  template <typename Call>
  void timed_conv(const std::string& kind, const Conv2dArgs& args, const Call& call) {
    const ConvWeight& weight = args.weight;
    const Shape shape{weight.out_channels, weight.in_channels, weight.kernel_h, weight.kernel_w};
    const int64_t pixels = args.out.size() / weight.out_channels;
    timed(extents(kind, shape) + " at " + std::to_string(args.out.shape[-1]),
          {.rows = pixels,
           .weight_bytes = weight.data.bytes(),
           .operations = 2.0 * static_cast<double>(pixels) * static_cast<double>(shape.size())},
          call);
  }

  template <typename Call>
  void timed(const std::string& kind, OperationCost cost, const Call& call) {
    inner_->finish();
    {
      const StopWatch watch(cost.seconds);
      call();
      inner_->finish();
    }
    cost.calls = 1;
    profile_->costs[kind].add(cost);
  }

  std::unique_ptr<Queue> inner_;
  std::shared_ptr<OperationProfile> profile_;
};

}  // namespace

std::unique_ptr<Queue> ProfilingBackend::make_queue() const {
  return std::make_unique<ProfilingQueue>(inner().make_queue(), profile_);
}

}  // namespace volley
