// LLaDA's shapes with random weights: seconds of a forward of the method `diffusion`, sampling included, with
// and without its caches.
//
//     diffusion_bench --weights llada-8b --dtype bf16
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/decode/decoder.h"
#include "core/decode/session.h"
#include "tests/bench/llada_checkpoint.h"
#include "tests/bench/profiling_backend.h"
#include "tests/bench/storage_name.h"
#include "text/llama_checkpoint.h"

namespace volley {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMiB = 1024.0 * 1024.0;
// Of the tests; the bench itself is of LLaDA-8B.
constexpr LladaSize kTiny{.dim = 64,
                          .heads = 4,
                          .feed_forward = 160,
                          .layers = 2,
                          .vocab = 256,
                          .positions = 512,
                          .mask_token = 255};

struct Flags {
  std::string weights;
  std::string size = "8b";
  std::string dtype = "bf16";
  std::string device = "cpu";
  int64_t threads = 0;
  int64_t prompt = 128;
  int64_t tokens = 128;
  int64_t block = 32;
  int64_t layers = 0;
  int64_t repeats = 3;
  bool profile = false;
  bool make_only = false;
};

struct Forward {
  double seconds = 0.0;
  int64_t rows = 0;
};

// Times the steps of a run, and stops it behind the first `wanted`.
class Timer : public Observer {
 public:
  Timer(Session& session, int64_t wanted) : statistics_(session.statistics()), wanted_(wanted) {}

  void on_step(const StepEvent& event) override {
    const Clock::time_point now = Clock::now();
    forwards_.push_back(
        {.seconds = std::chrono::duration<double>(now - last_).count(), .rows = statistics_.rows - rows_});
    tokens_.assign(event.tokens.begin(), event.tokens.end());
    rows_ = statistics_.rows;
    last_ = now;
    if (std::ssize(forwards_) == wanted_) stop_.request_stop();
  }

  std::stop_token stop() const { return stop_.get_token(); }
  const std::vector<Forward>& forwards() const { return forwards_; }
  const std::vector<int32_t>& tokens() const { return tokens_; }  // of the last step

 private:
  const Statistics& statistics_;
  int64_t wanted_;
  int64_t rows_ = statistics_.rows;
  Clock::time_point last_ = Clock::now();
  std::vector<Forward> forwards_;
  std::vector<int32_t> tokens_;
  std::stop_source stop_;
};

struct Run {
  std::vector<Forward> forwards;
  std::vector<int32_t> tokens;
};

Run run_steps(Session& session, const Generation& generation, const std::string& options, int64_t steps) {
  const auto decoder = make_decoder(parse_decoder_spec("diffusion:" + options));
  Timer timer(session, steps);
  decoder->decode(session, {&generation, 1}, {.observer = &timer, .stop = timer.stop()});
  return {timer.forwards(), timer.tokens()};
}

void print_row(const std::string& name, const std::string& dtype, const std::vector<Forward>& forwards) {
  std::vector<double> seconds;
  for (const Forward& forward : forwards) seconds.push_back(forward.seconds);
  std::ranges::sort(seconds);
  const size_t half = seconds.size() / 2;
  const double median = seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  std::printf("| %s | %s | %lld | %.3f | %.3f |\n", name.c_str(), dtype.c_str(),
              static_cast<long long>(forwards.front().rows), median, seconds.front());
  std::fflush(stdout);
}

// A block's first forward and its second, by the method itself: each run is stopped behind the second.
void time_cache(Session& session, const Generation& generation, const Flags& flags,
                const std::string& cache) {
  const std::string options = "cache=" + cache + ",block_length=" + std::to_string(flags.block);
  std::vector<Forward> first, next;
  for (int64_t i = 0; i <= flags.repeats; ++i) {
    const Run run = run_steps(session, generation, options, 2);
    if (i == 0) continue;
    first.push_back(run.forwards[0]);
    next.push_back(run.forwards[1]);
  }
  print_row(cache + " cache, a block's first", flags.dtype, first);
  print_row(cache + " cache, the next ones", flags.dtype, next);
}

// Prints what the operations of each step took.
class ProfilePrinter : public Observer {
 public:
  explicit ProfilePrinter(OperationProfile& profile) : profile_(profile) {}

  void on_step(const StepEvent& event) override {
    std::printf("\n| operation, step %lld | ms | rows a call | Gflop/s |\n|---|---|---|---|\n",
                static_cast<long long>(event.step));
    for (const auto& [kind, cost] : profile_.costs) {
      if (cost.seconds < 1e-3) continue;
      std::printf("| %s | %.0f | %.0f | %.0f |\n", kind.c_str(), cost.seconds * 1e3,
                  static_cast<double>(cost.rows) / static_cast<double>(cost.calls),
                  cost.operations / cost.seconds / 1e9);
    }
    profile_.costs.clear();
    if (event.step > 0) stop_.request_stop();
  }
  std::stop_token stop() const { return stop_.get_token(); }

 private:
  OperationProfile& profile_;
  std::stop_source stop_;
};

text::LlamaCheckpoint open_checkpoint(const Flags& flags) {
  if (!std::filesystem::exists(flags.weights + "/config.json")) {
    LladaSize size = flags.size == "8b" ? LladaSize() : kTiny;
    if (flags.layers > 0) size.layers = flags.layers;
    write_random_llada(size, DType::kBF16, flags.weights);
  }
  return text::open_llama(flags.weights);
}

void run(const Flags& flags) {
  text::LlamaCheckpoint checkpoint = open_checkpoint(flags);
  if (flags.make_only) return;
  MemoryWatch memory;
  const auto backend = make_backend(flags.device, flags.threads);
  const Clock::time_point opening = Clock::now();
  const text::Llama model(checkpoint.config,
                          WeightLoader(*checkpoint.weights, *backend, storage_of(flags.dtype)));
  checkpoint.weights.reset();
  const std::chrono::duration<double> loading = Clock::now() - opening;
  const int64_t weight_bytes = backend->allocated_bytes(), load_peak = memory.take_peak();

  std::vector<int32_t> prompt;
  const int64_t words = checkpoint.config.vocab_size - 2;
  for (int64_t i = 0; i < flags.prompt; ++i) prompt.push_back(static_cast<int32_t>(i * 7919 % words));
  const Generation generation{.prompt = token_prompt(model, prompt),
                              .chain = {.temperature = 0.0f},
                              .max_tokens = flags.tokens,
                              .mask_token = checkpoint.config.mask_token};
  const Session::Options room{.entries = flags.prompt + flags.tokens};
  Session session(model, backend, room);
  std::printf(
      "LLaDA (R): %lld layers of %lld, %lld tokens; prompt of %lld, answer of %lld in blocks of %lld\n"
      "%s; load average %s; %lld forwards of each kind behind one\n\n",
      static_cast<long long>(checkpoint.config.num_hidden_layers),
      static_cast<long long>(checkpoint.config.hidden_size),
      static_cast<long long>(checkpoint.config.vocab_size), static_cast<long long>(flags.prompt),
      static_cast<long long>(flags.tokens), static_cast<long long>(flags.block),
      backend->info().description.c_str(), load_average().c_str(), static_cast<long long>(flags.repeats));
  std::printf("| forward (R) | weights | rows | median s | fastest s |\n|---|---|---|---|---|\n");
  const std::string length = "block_length=" + std::to_string(flags.block);
  run_steps(session, generation, length, 1);
  const Run plain = run_steps(session, generation, length, flags.repeats);
  print_row("no cache", flags.dtype, plain.forwards);
  time_cache(session, generation, flags, "prefix");
  time_cache(session, generation, flags, "dual");

  // All of a block is filled at once where nothing is asked of a guess.
  const Run guesses = run_steps(session, generation, length + ",threshold=0", 1);
  std::printf("\nlikeliest tokens of the first block:");
  for (const int32_t token : guesses.tokens) std::printf(" %d", token);
  std::printf(
      "\nload %.1f s; weights %.0f MiB, cache and working memory %.0f MiB; anonymous memory at most "
      "%.0f MiB while loading, %.0f MiB behind; load average %s\n",
      loading.count(), static_cast<double>(weight_bytes) / kMiB,
      static_cast<double>(backend->allocated_bytes() - weight_bytes) / kMiB,
      static_cast<double>(load_peak) / kMiB, static_cast<double>(memory.take_peak()) / kMiB,
      load_average().c_str());
  if (!flags.profile) return;
  const auto profile = std::make_shared<OperationProfile>();
  Session profiled(model, std::make_shared<ProfilingBackend>(backend, profile), room);
  run_steps(profiled, generation, "cache=dual," + length, 2);  // its memory is new
  profile->costs.clear();
  ProfilePrinter printer(*profile);
  const auto decoder = make_decoder(parse_decoder_spec("diffusion:cache=dual," + length));
  decoder->decode(profiled, {&generation, 1}, {.observer = &printer, .stop = printer.stop()});
}

int bench_main(int argc, char** argv) {
  Flags flags;
  CLI::App app("times forwards of LLaDA's shapes with random weights");
  app.add_option("--weights", flags.weights, "folder of the weights, made if it is not there")->required();
  app.add_option("--size", flags.size, "of weights that are made: 8b (16 GB) or tiny")
      ->check(CLI::IsMember({"8b", "tiny"}));
  app.add_option("--layers", flags.layers, "of weights that are made [all]")->check(CLI::Range(1, 1024));
  app.add_option("--dtype", flags.dtype, "f32, bf16 or q8_0")->check(CLI::IsMember({"f32", "bf16", "q8_0"}));
  app.add_option("--device", flags.device, "as volley's");
  app.add_option("--threads", flags.threads, "[physical cores]")->check(CLI::Range(0, 1024));
  app.add_option("--prompt", flags.prompt, "tokens")->check(CLI::Range(1, 2048));
  app.add_option("--tokens", flags.tokens, "of the answer")->check(CLI::Range(2, 2048));
  app.add_option("--block", flags.block, "tokens of a block")->check(CLI::Range(2, 2048));
  app.add_option("--repeats", flags.repeats, "timed forwards of each kind, behind one to warm up")
      ->check(CLI::Range(1, 100));
  app.add_flag("--profile", flags.profile, "also the time of each kind of operation");
  app.add_flag("--make-weights", flags.make_only, "make the weights and stop");
  CLI11_PARSE(app, argc, argv);
  if (flags.repeats > flags.tokens) throw Error("--repeats: more than --tokens", ErrorKind::kUsage);
  run(flags);
  return 0;
}

}  // namespace
}  // namespace volley

int main(int argc, char** argv) {
  try {
    return volley::bench_main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "diffusion_bench: %s\n", error.what());
    return 1;
  }
}
