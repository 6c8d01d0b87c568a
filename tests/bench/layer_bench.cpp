// What the operations of a transformer's layer take where a device replays them: chains of one operation,
// over as many copies of the weights as a model has layers, recorded and replayed. Microseconds of one
// operation, and what the bytes of its weights would take at the bandwidth given.
//
// usage: layer_bench --device cuda:0 --dtype bf16 --rows 8 --rows 512
#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/error.h"
#include "tests/bench/storage_name.h"

namespace volley {
namespace {

// Sizes of LlamaGen-L and ARPG-L.
constexpr int64_t kDim = 1024, kFeedForward = 2816, kLayers = 24;
constexpr float kEps = 1e-5f;
constexpr int kReplays = 20;

struct LayerWeights {
  LinearWeight qkv;  // as one weight
  LinearWeight out;
  LinearWeight gate;
  LinearWeight up;
  LinearWeight down;
};

class Layers {
 public:
  Layers(const Backend& backend, WeightType type) : backend_(backend) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0.0f, 0.02f);
    const auto weight = [&](int64_t out, int64_t in) {
      std::vector<float> values(static_cast<size_t>(out * in));
      for (size_t i = 0; i < values.size(); ++i) values[i] = i < 4096 ? normal(generator) : values[i % 4096];
      return backend.pack_linear(
          {.data = reinterpret_cast<const std::byte*>(values.data()), .shape = {out, in}}, type);
    };
    for (int64_t l = 0; l < kLayers; ++l) {
      layers_.push_back({.qkv = weight(3 * kDim, kDim),
                         .out = weight(kDim, kDim),
                         .gate = weight(kFeedForward, kDim),
                         .up = weight(kFeedForward, kDim),
                         .down = weight(kDim, kFeedForward)});
    }
  }

  // Tensors of a chain, zeros.
  struct Rows {
    Tensor x;          // [R, dim]
    Tensor normed;     // [R, dim]
    Tensor wide;       // [R, 3 dim]
    Tensor gated;      // [R, F]
    Tensor raised;     // [R, F]
    ConstTensor ones;  // [dim], a norm's weights
  };
  using Operation = std::function<void(Queue&, const LayerWeights&, const Rows&)>;

  // Microseconds of one operation in a chain over all layers.
  double time(int64_t rows, const Operation& operation) const {
    std::vector<Buffer> memory;
    auto queue = backend_.make_queue();
    const auto tensor = [&](Shape shape, float value) {
      memory.push_back(backend_.allocate(shape.size() * 4));
      const std::vector<float> values(static_cast<size_t>(shape.size()), value);
      queue->upload(values.data(), memory.back().data(), shape.size() * 4);
      return memory.back().view<float>(shape);
    };
    const Rows tensors{.x = tensor({rows, kDim}, 0.5f),
                       .normed = tensor({rows, kDim}, 0.0f),
                       .wide = tensor({rows, 3 * kDim}, 0.0f),
                       .gated = tensor({rows, kFeedForward}, 0.0f),
                       .raised = tensor({rows, kFeedForward}, 0.0f),
                       .ones = tensor({kDim}, 1.0f)};
    const std::array<int64_t, 1> key{rows};
    const auto run = [&] {
      queue->run_recorded(key, [&] {
        for (const LayerWeights& layer : layers_) operation(*queue, layer, tensors);
      });
    };
    for (int i = 0; i < 3; ++i) run();  // set up, record, replay
    queue->finish();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kReplays; ++i) run();
    queue->finish();
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - begin;
    return took.count() / (kReplays * kLayers);
  }

 private:
  const Backend& backend_;
  std::vector<LayerWeights> layers_;
};

RmsNormArgs norm_of(const Layers::Rows& rows) {
  return {.x = rows.x, .weight = rows.ones, .eps = kEps, .out = rows.normed};
}

void project(Queue& queue, const LayerWeights& layer, const Layers::Rows& rows) {
  const std::array targets{LinearTarget{.weight = &layer.qkv, .bias = {}, .out = rows.wide}};
  queue.normed_linears({.norm = norm_of(rows), .linears = {.x = rows.normed, .targets = targets}});
}
void join(Queue& queue, const LayerWeights& layer, const Layers::Rows& rows) {
  queue.linear(
      {.x = rows.normed, .weight = layer.out, .bias = {}, .accumulate = Accumulate::kAdd, .out = rows.x});
}
void feed_forward(Queue& queue, const LayerWeights& layer, const Layers::Rows& rows) {
  queue.feed_forward({.gates = {.norm = norm_of(rows),
                                .linears = {.x = rows.normed,
                                            .gate = {.weight = &layer.gate, .bias = {}, .out = rows.gated},
                                            .up = {.weight = &layer.up, .bias = {}, .out = rows.raised},
                                            .out = rows.gated}},
                      .down = {.x = rows.gated,
                               .weight = layer.down,
                               .bias = {},
                               .accumulate = Accumulate::kAdd,
                               .out = rows.x}});
}

struct Timed {
  const char* name;
  int64_t weights;  // elements
  Layers::Operation operation;
};

int run(int argc, char** argv) {
  std::string device = "auto", dtype = "bf16";
  std::vector<int64_t> rows{2, 8, 16, 32, 128, 512};
  double bandwidth = 0.0;
  CLI::App app("times the operations of a transformer's layer");
  app.add_option("--device", device, "as volley's");
  app.add_option("--dtype", dtype, "f32, bf16 or q8_0")->check(CLI::IsMember({"f32", "bf16", "q8_0"}));
  app.add_option("--rows", rows, "rows of a step");
  app.add_option("--bandwidth", bandwidth, "GB/s that weights can be read at; 0: no floor is given");
  CLI11_PARSE(app, argc, argv);
  const WeightType type = storage_of(dtype);
  const double bytes = dtype == "f32" ? 4.0 : dtype == "bf16" ? 2.0 : 1.0625;  // of an element

  const std::array operations{Timed{"norm, q k v", 3 * kDim * kDim, project},
                              Timed{"attention's output", kDim * kDim, join},
                              Timed{"norm, feed-forward", 3 * kDim * kFeedForward, feed_forward},
                              Timed{"all of these", 4 * kDim * kDim + 3 * kDim * kFeedForward,
                                    [](Queue& queue, const LayerWeights& layer, const Layers::Rows& tensors) {
                                      project(queue, layer, tensors);
                                      join(queue, layer, tensors);
                                      feed_forward(queue, layer, tensors);
                                    }}};
  const auto backend = make_backend(device, 0);
  std::printf("%s, %s; microseconds of one operation\n\n| rows |", backend->info().description.c_str(),
              dtype.c_str());
  for (const Timed& timed : operations) std::printf(" %s |", timed.name);
  std::printf("\n|---|---|---|---|---|\n");
  if (bandwidth > 0.0) {
    std::printf("| weights at %.0f GB/s |", bandwidth);
    for (const Timed& timed : operations) {
      std::printf(" %.2f |", static_cast<double>(timed.weights) * bytes / (bandwidth * 1e3));
    }
    std::printf("\n");
  }
  const Layers layers(*backend, type);
  for (const int64_t count : rows) {
    std::printf("| %lld |", static_cast<long long>(count));
    for (const Timed& timed : operations) std::printf(" %.2f |", layers.time(count, timed.operation));
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace volley

int main(int argc, char** argv) {
  try {
    return volley::run(argc, argv);
  } catch (const volley::Error& error) {
    std::fprintf(stderr, "layer_bench: %s\n", error.what());
    return 1;
  }
}
