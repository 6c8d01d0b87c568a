// What batch invariance costs: products as the cpu backend computes them (fixed panels and slices, own
// threads) against oneDNN's free choice (one call for all rows, weights packed as that call likes them, its
// own threads). Calls go round among copies of the weight that no cache holds together, as a model's layers
// do. `fastest_us` is the fastest single call: on a machine with other work it says more than the mean,
// because a thread that waits for a processor makes the other wait with it.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "dnnl.hpp"

// From libgomp, which oneDNN runs on.
extern "C" void omp_set_num_threads(int threads);

namespace volley {
namespace {

struct Case {
  int64_t in = 0, out = 0, rows = 0, threads = 1;
  WeightType type = WeightType::kF32;
};

Case case_of(const benchmark::State& state) {
  return {.in = state.range(0),
          .out = state.range(1),
          .rows = state.range(2),
          .threads = state.range(4),
          .type = static_cast<WeightType>(state.range(3))};
}

constexpr std::array<const char*, 4> kTypeNames{"f32", "bf16", "q8_0", "q4_1"};
constexpr std::array<double, 4> kWeightBytes{4.0, 2.0, 1.0625, 0.625};  // of an element

// Copies of the weight that together fill 256 MiB.
int64_t copies_of(const Case& c) {
  const double bytes = static_cast<double>(c.in * c.out) * kWeightBytes[static_cast<size_t>(c.type)];
  return 1 + static_cast<int64_t>(256.0 * 1024 * 1024 / bytes);
}

std::vector<float> numbers(int64_t count) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

// Times every call on its own.
template <typename Call>
void measure(benchmark::State& state, const Case& c, const Call& call) {
  double fastest = 1e30;
  call();
  for (auto _ : state) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    fastest = std::min(fastest, time.count());
    benchmark::ClobberMemory();
  }
  state.counters["fastest_us"] = fastest;
  state.SetLabel(kTypeNames[static_cast<size_t>(c.type)]);
  state.counters["weight_bytes"] =
      benchmark::Counter(static_cast<double>(c.in * c.out) * kWeightBytes[static_cast<size_t>(c.type)],
                         benchmark::Counter::kIsIterationInvariantRate);
  state.counters["flops"] = benchmark::Counter(2.0 * static_cast<double>(c.in * c.out * c.rows),
                                               benchmark::Counter::kIsIterationInvariantRate);
}

void invariant(benchmark::State& state, ProductKernels kernels) {
  const Case c = case_of(state);
  const auto backend = make_cpu_backend(c.threads, kernels);
  const std::vector<float> w = numbers(c.in * c.out), values = numbers(c.rows * c.in);
  std::vector<LinearWeight> weights;
  for (int64_t i = 0; i < copies_of(c); ++i) {
    weights.push_back(backend->pack_linear(
        {.data = reinterpret_cast<const std::byte*>(w.data()), .shape = {c.out, c.in}}, c.type));
  }
  const Buffer x = backend->allocate(c.rows * c.in * 4), out = backend->allocate(c.rows * c.out * 4);
  auto queue = backend->make_queue();
  queue->upload(values.data(), x.data(), c.rows * c.in * 4);
  size_t next = 0;
  measure(state, c, [&] {
    const LinearWeight& weight = weights[next++ % weights.size()];
    queue->linear({.x = x.view<const float>({c.rows, c.in}),
                   .weight = weight,
                   .bias = {},
                   .out = out.view<float>({c.rows, c.out})});
    queue->finish();
  });
}

void row_invariant(benchmark::State& state) {
  invariant(state, ProductKernels::kBest);
}
void avx512_kernels(benchmark::State& state) {
  invariant(state, ProductKernels::kAvx512);
}
void vector_kernels(benchmark::State& state) {
  invariant(state, ProductKernels::kVector);
}

// bf16: the sources are converted in the timed loop, as the backend's are.
void free_choice(benchmark::State& state) {
  using Tag = dnnl::memory::format_tag;
  const Case c = case_of(state);
  omp_set_num_threads(static_cast<int>(c.threads));
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const auto f32 = dnnl::memory::data_type::f32;
  const auto type = c.type == WeightType::kF32 ? f32 : dnnl::memory::data_type::bf16;
  const dnnl::matmul::primitive_desc description(
      {{{c.rows, c.in}, type, Tag::ab}, {{c.in, c.out}, type, Tag::any}, {{c.rows, c.out}, f32, Tag::ab}},
      engine);
  std::vector<float> w = numbers(c.in * c.out), values = numbers(c.rows * c.in);
  dnnl::memory plain({{c.in, c.out}, f32, Tag::ba}, engine, w.data());
  std::vector<dnnl::memory> weights;
  for (int64_t i = 0; i < copies_of(c); ++i) {
    weights.emplace_back(description.weights_desc(), engine);
    dnnl::reorder(plain, weights.back()).execute(stream, plain, weights.back());
  }
  dnnl::memory source({{c.rows, c.in}, f32, Tag::ab}, engine, values.data());
  dnnl::memory x(description.src_desc(), engine), out(description.dst_desc(), engine);
  dnnl::reorder convert(source, x);
  convert.execute(stream, source, x);
  const dnnl::matmul matmul(description);
  stream.wait();
  size_t next = 0;
  measure(state, c, [&] {
    const dnnl::memory& packed = weights[next++ % weights.size()];
    if (c.type == WeightType::kBF16) convert.execute(stream, source, x);
    matmul.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, out}});
    stream.wait();
  });
}

template <size_t kTypes>
void cases(benchmark::internal::Benchmark* bench, const std::array<int64_t, kTypes>& types) {
  constexpr std::array<std::array<int64_t, 2>, 5> kShapes{
      {{1024, 1024}, {1024, 2816}, {256, 768}, {576, 1536}, {1536, 576}}};
  for (const int64_t threads : {1, 2}) {
    for (const int64_t type : types) {
      for (const auto& [in, out] : kShapes) {
        for (const int64_t rows : {1, 2, 4, 8, 15, 16, 64, 256, 1024}) {
          bench->Args({in, out, rows, type, threads});
        }
      }
    }
  }
  bench->ArgNames({"in", "out", "rows", "type", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
}
void float_cases(benchmark::internal::Benchmark* bench) {
  cases(bench, std::to_array<int64_t>({0, 1}));
}
void all_cases(benchmark::internal::Benchmark* bench) {
  cases(bench, std::to_array<int64_t>({0, 1, 2, 3}));
}

BENCHMARK(row_invariant)->Apply(all_cases);
BENCHMARK(free_choice)->Apply(float_cases);
BENCHMARK(avx512_kernels)->Apply(all_cases);
BENCHMARK(vector_kernels)->Apply(all_cases);

}  // namespace
}  // namespace volley

BENCHMARK_MAIN();
