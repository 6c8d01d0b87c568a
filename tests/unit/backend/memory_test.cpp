// What weights and operations take of a device's memory, beside what a plan of them says.
#include <functional>
#include <memory>

#include "core/backend/plan_backend.h"
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr int64_t kRounding = 64;  // of a plan's allocations

bool takes_weights(const Backend& backend, WeightType type) {
  return type != WeightType::kQ4_1 || backend.info().has_blocks;
}

std::vector<std::shared_ptr<const Backend>> tested_backends() {
  return {tested_backend(2), make_reference_backend()};
}

TEST(MemoryTest, WeightsTakeWhatTheDeviceSays) {
  for (const auto& backend : tested_backends()) {
    for (const auto& [out, in] :
         std::initializer_list<std::pair<int64_t, int64_t>>{{1, 1}, {100, 129}, {33, 64}, {832, 768}}) {
      for (const WeightType type :
           {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1}) {
        if (!takes_weights(*backend, type)) continue;
        SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)) + " " +
                     std::to_string(out) + " x " + std::to_string(in));
        const PackedBytes said = backend->linear_bytes({out, in}, type);
        const LinearWeight weight =
            backend->pack_linear(host_view(normal_numbers(out * in, 1), {out, in}), type);
        EXPECT_EQ(weight.data.bytes(), said.data);
        EXPECT_EQ(weight.scales.bytes(), said.beside);
      }
    }
    for (const Shape& shape : {Shape{3, 5, 3, 3}, Shape{128, 256, 1, 1}, Shape{128, 256, 3, 3}}) {
      for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
        SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)) + " " +
                     shape.to_string());
        const PackedBytes said = backend->conv_bytes(shape, type);
        const ConvWeight weight =
            backend->pack_conv(host_view(normal_numbers(shape.size(), 1), shape), {}, type);
        EXPECT_EQ(weight.data.bytes(), said.data);
        EXPECT_EQ(weight.bias.bytes(), said.beside);
      }
    }
  }
}

// What operations are called with: memory that holds what it may, and weights.
class Inputs {
 public:
  explicit Inputs(const Backend& backend) : backend_(backend) {}

  Tensor tensor(const Shape& shape) {
    buffers_.push_back(backend_.allocate(shape.size() * 4));
    return buffers_.back().view<float>(shape);
  }
  LinearWeight linear(int64_t out, int64_t in, WeightType type) const {
    const std::vector<float> zeros(static_cast<size_t>(out * in));
    return backend_.pack_linear(host_view(zeros, {out, in}), type);
  }
  ConvWeight conv(const Shape& shape, WeightType type) const {
    const std::vector<float> zeros(static_cast<size_t>(shape.size()));
    return backend_.pack_conv(host_view(zeros, shape), {}, type);
  }

 private:
  const Backend& backend_;
  std::vector<Buffer> buffers_;
};

// Makes inputs and then calls `run` with a function that calls an operation.
using Scene =
    std::function<void(Inputs&, const std::function<void(const std::function<void(Queue&)>&)>& run)>;

// Bytes that a queue holds after the scene's operation.
int64_t held_bytes(const Backend& backend, const Scene& scene) {
  Inputs inputs(backend);
  int64_t held = -1;
  scene(inputs, [&](const std::function<void(Queue&)>& operation) {
    const int64_t before = backend.allocated_bytes();
    const auto queue = backend.make_queue();
    operation(*queue);
    queue->finish();
    held = backend.allocated_bytes() - before;
  });
  return held;
}

struct NamedScene {
  std::string name;
  Scene scene;
};

std::vector<NamedScene> product_scenes(WeightType type, int64_t rows) {
  return {{"linear",
           [=](Inputs& in, const auto& run) {
             const LinearWeight weight = in.linear(129, 100, type);
             const Tensor x = in.tensor({rows, 100}), out = in.tensor({rows, 129});
             run([&](Queue& queue) { queue.linear({.x = x, .weight = weight, .out = out}); });
           }},
          {"linears",
           [=](Inputs& in, const auto& run) {
             const LinearWeight first = in.linear(256, 192, type),
                                second = in.linear(64, 192, WeightType::kF32);
             const std::array targets{LinearTarget{.weight = &first, .out = in.tensor({rows, 256})},
                                      LinearTarget{.weight = &second, .out = in.tensor({rows, 64})}};
             const Tensor x = in.tensor({rows, 192});
             run([&](Queue& queue) { queue.linears({.x = x, .targets = targets}); });
           }},
          {"feed_forward", [=](Inputs& in, const auto& run) {
             const LinearWeight gate = in.linear(512, 256, type), up = in.linear(512, 256, type),
                                down = in.linear(256, 512, type);
             const Tensor x = in.tensor({rows, 256}), normed = in.tensor({rows, 256}),
                          weight = in.tensor({256}), out = in.tensor({rows, 256}),
                          gated = in.tensor({rows, 512}), upped = in.tensor({rows, 512});
             run([&](Queue& queue) {
               queue.feed_forward({.gates = {.norm = {.x = x, .weight = weight, .out = normed},
                                             .linears = {.x = normed,
                                                         .gate = {.weight = &gate, .out = gated},
                                                         .up = {.weight = &up, .out = upped},
                                                         .out = gated}},
                                   .down = {.x = gated, .weight = down, .out = out}});
             });
           }}};
}

std::vector<NamedScene> encoder_scenes(WeightType type, int64_t rows) {
  constexpr int64_t kHeads = 4;
  const auto self_attention = [=](int64_t width) -> Scene {
    return [=](Inputs& in, const auto& run) {
      const int64_t all = kHeads * width;
      const LinearWeight q = in.linear(all, all, type), k = in.linear(all, all, type),
                         v = in.linear(all, all, type), o = in.linear(all, all, type);
      const Shape heads{2, rows, kHeads, width};
      const Tensor x = in.tensor({2 * rows, all}), normed = in.tensor({2 * rows, all}),
                   weight = in.tensor({all}), bias = in.tensor({all}), out = in.tensor({2 * rows, all}),
                   mixed = in.tensor(heads), queries = in.tensor(heads), keys = in.tensor(heads),
                   values = in.tensor(heads);
      const std::array targets{LinearTarget{.weight = &q, .out = queries},
                               LinearTarget{.weight = &k, .out = keys},
                               LinearTarget{.weight = &v, .out = values}};
      run([&](Queue& queue) {
        queue.dense_self_attention(
            {.norm = {.x = x, .weight = weight, .bias = bias, .out = normed},
             .projections = {.x = normed, .targets = targets, .phase = Phase::kEncoder},
             .attention = {.q = queries, .k = keys, .v = values, .operands = operands_of(type), .out = mixed},
             .output = {.x = mixed, .weight = o, .phase = Phase::kEncoder, .out = out}});
      });
    };
  };
  const auto attention = [=](int64_t width) -> Scene {
    return [=](Inputs& in, const auto& run) {
      const Shape heads{2, rows, kHeads, width};
      const Tensor q = in.tensor(heads), k = in.tensor(heads), v = in.tensor(heads), out = in.tensor(heads);
      run([&](Queue& queue) {
        queue.dense_attention({.q = q, .k = k, .v = v, .operands = operands_of(type), .out = out});
      });
    };
  };
  const Scene feed_forward = [=](Inputs& in, const auto& run) {
    const LinearWeight up = in.linear(1024, 256, type), down = in.linear(256, 1024, type);
    const Tensor x = in.tensor({rows, 256}), normed = in.tensor({rows, 256}), weight = in.tensor({256}),
                 bias = in.tensor({256}), between = in.tensor({rows, 1024}), out = in.tensor({rows, 256});
    run([&](Queue& queue) {
      queue.activated_feed_forward(
          {.norm = {.x = x, .weight = weight, .bias = bias, .out = normed},
           .up = {.x = normed, .weight = up, .phase = Phase::kEncoder, .out = between},
           .activation = Activation::kGeluErf,
           .down = {.x = between, .weight = down, .phase = Phase::kEncoder, .out = out}});
    });
  };
  return {{"dense_attention of 64", attention(64)},
          {"dense_attention of 80", attention(80)},
          {"dense_self_attention", self_attention(64)},
          {"activated_feed_forward", feed_forward}};
}

std::vector<NamedScene> picture_scenes(WeightType type, int64_t pictures) {
  const auto convolution = [=](int64_t out, int64_t channels, int64_t side) -> Scene {
    return [=](Inputs& in, const auto& run) {
      const ConvWeight weight = in.conv({out, channels, 3, 3}, type);
      const Tensor x = in.tensor({pictures, channels, side, side}),
                   y = in.tensor({pictures, out, side, side});
      run([&](Queue& queue) {
        queue.conv2d({.x = x,
                      .weight = weight,
                      .pad_top = 1,
                      .pad_left = 1,
                      .pad_bottom = 1,
                      .pad_right = 1,
                      .out = y});
      });
    };
  };
  const Scene normed = [=](Inputs& in, const auto& run) {
    const ConvWeight weight = in.conv({128, 128, 3, 3}, type);
    const Tensor x = in.tensor({pictures, 128, 16, 16}), between = in.tensor({pictures, 128, 16, 16}),
                 out = in.tensor({pictures, 128, 16, 16}), scale = in.tensor({128}), bias = in.tensor({128});
    const std::array convs{Conv2dArgs{.x = between,
                                      .weight = weight,
                                      .pad_top = 1,
                                      .pad_left = 1,
                                      .pad_bottom = 1,
                                      .pad_right = 1,
                                      .out = out}};
    run([&](Queue& queue) {
      queue.normed_convs({.norm = {.x = x, .weight = scale, .bias = bias, .out = between}, .convs = convs});
    });
  };
  const Scene upsampled = [=](Inputs& in, const auto& run) {
    const ConvWeight weight = in.conv({128, 128, 3, 3}, type);
    const Tensor x = in.tensor({pictures, 128, 8, 8}), between = in.tensor({pictures, 128, 16, 16}),
                 out = in.tensor({pictures, 128, 16, 16});
    run([&](Queue& queue) {
      queue.upsampled_conv({.upsample = {.x = x, .out = between},
                            .conv = {.x = between,
                                     .weight = weight,
                                     .pad_top = 1,
                                     .pad_left = 1,
                                     .pad_bottom = 1,
                                     .pad_right = 1,
                                     .out = out}});
    });
  };
  return {{"conv2d of few channels", convolution(3, 5, 16)},
          {"conv2d of many channels", convolution(128, 128, 16)},
          {"conv2d in bands", convolution(64, 64, 96)},
          {"normed_convs", normed},
          {"upsampled_conv", upsampled}};
}

// As many bytes as an operation's queue then holds, if a plan is rounded up.
void expect_planned(const Backend& backend, const Backend& plan, const NamedScene& named) {
  const int64_t held = held_bytes(backend, named.scene), planned = held_bytes(plan, named.scene);
  EXPECT_GE(planned, held) << named.name;
  EXPECT_LE(planned, held + 4 * kRounding) << named.name;
}

TEST(MemoryTest, OperationsTakeWhatIsPlanned) {
  for (const auto& backend : tested_backends()) {
    const auto plan = make_plan_backend(backend);
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0}) {
      for (const int64_t rows : {1, 17, 130}) {
        SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)) + ", " +
                     std::to_string(rows) + " rows");
        if (kSanitized && rows > 17) continue;
        for (const NamedScene& named : product_scenes(type, rows)) expect_planned(*backend, *plan, named);
        for (const NamedScene& named : encoder_scenes(type, rows)) expect_planned(*backend, *plan, named);
      }
      if (is_quantized(type) || (kSanitized && backend->info().name == "cpu-reference")) continue;
      for (const int64_t pictures : {1, 3}) {
        SCOPED_TRACE(backend->info().name + " " + std::string(weight_type_name(type)) + ", " +
                     std::to_string(pictures) + " pictures");
        for (const NamedScene& named : picture_scenes(type, pictures)) expect_planned(*backend, *plan, named);
      }
    }
  }
}

// Packing on a device takes more for a while, which a plan knows.
TEST(MemoryTest, PlansKnowThePeakOfPacking) {
  const auto backend = tests_cpu() ? make_cpu_backend(2) : make_backend(tested_device, 0);
  const auto plan = make_plan_backend(backend);
  for (const Backend* made : {backend.get(), plan.get()}) {
    Inputs inputs(*made);
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0})
      inputs.linear(832, 768, type);
    inputs.conv({128, 256, 3, 3}, WeightType::kBF16);
  }
  EXPECT_GE(plan->peak_bytes(), backend->peak_bytes());
  EXPECT_LE(plan->peak_bytes(), backend->peak_bytes() + 4 * kRounding);
}

}  // namespace
}  // namespace volley::testing
