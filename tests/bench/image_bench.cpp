// Whole image models at published sizes with random weights: time, forwards, first token, memory, and what
// reading the weights alone would take. Each case runs in a process of its own.
//
//     image_bench --make-weights arpg-l --dtype f32 --out arpg-l.safetensors
//     image_bench --weights arpg-l.safetensors,llamagen-l.safetensors --dtype f32,bf16
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/linear.h"
#include "core/base/error.h"
#include "core/base/machine.h"
#include "core/base/thread_pool.h"
#include "tests/bench/arithmetic_rate.h"
#include "tests/bench/child_process.h"
#include "tests/bench/image_case.h"
#include "tests/bench/image_table.h"
#include "tests/bench/random_weights.h"
#include "tests/bench/read_bandwidth.h"

namespace volley {
namespace {

using nlohmann::json;

struct Flags {
  std::string make_weights;  // a published model: write its file and stop
  std::string out;
  std::vector<std::string> weights;
  std::vector<std::string> cases;
  std::vector<std::string> dtypes{"bf16"};
  std::string device = "cpu";
  std::string max_isa;
  int64_t threads = 0;
  int64_t repeats = 5;
  bool profile = false;
  bool as_json = false;
  bool one = false;     // run the one case given here, in this process
  int64_t started = 0;  // nanoseconds of the steady clock when the process was started
};

void make_weights(const Flags& flags) {
  if (flags.out.empty()) throw Error("--make-weights: name the file with --out", ErrorKind::kUsage);
  const std::string& dtype = flags.dtypes.front();
  if (dtype != "f32" && dtype != "bf16") throw Error("--dtype " + dtype + ": files are f32 or bf16");
  write_random_weights(published_tensors(flags.make_weights), dtype == "f32" ? DType::kF32 : DType::kBF16,
                       flags.out);
}

std::vector<std::string> cases_of(ImageFamily family) {
  switch (family) {
    case ImageFamily::kArpg:
      return {"arpg-b1", "arpg-b4"};
    case ImageFamily::kLlamaGen:
      return {"llamagen-b1", "llamagen-b4"};
    case ImageFamily::kVq:
      return {"vq-b1", "vq-b4"};
  }
  return {};
}

void run_here(const Flags& flags) {
  if (flags.max_isa == "avx2") limit_to_avx2();
  const json report = run_image_case(
      {.wanted = parse_image_case(flags.cases.front()),
       .weights = flags.weights.front(),
       .dtype = flags.dtypes.front(),
       .device = flags.device,
       .threads = flags.threads,
       .repeats = flags.repeats,
       .profiling = flags.profile ? Profiling::kYes : Profiling::kNo,
       .started = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(flags.started))});
  std::printf("%s\n", report.dump().c_str());
}

json run_in_child(const Flags& flags, const std::string& name, const std::string& dtype,
                  const std::string& file) {
  std::vector<std::string> arguments{"--one",
                                     "--case",
                                     name,
                                     "--dtype",
                                     dtype,
                                     "--device",
                                     flags.device,
                                     "--weights",
                                     file,
                                     "--threads",
                                     std::to_string(flags.threads),
                                     "--repeats",
                                     std::to_string(flags.repeats)};
  if (!flags.max_isa.empty()) arguments.insert(arguments.end(), {"--max-isa", flags.max_isa});
  if (flags.profile) arguments.emplace_back("--profile");
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  arguments.insert(arguments.end(), {"--started", std::to_string(std::chrono::nanoseconds(now).count())});
  return json::parse(run_self(arguments));
}

void run(const Flags& flags) {
  std::map<ImageFamily, std::string> files;
  std::vector<std::string> names = flags.cases;
  for (const std::string& file : flags.weights) {
    const ImageFamily family = family_of_checkpoint(file);
    files[family] = file;
    read_whole_file(file);
    if (!flags.cases.empty()) continue;
    for (const std::string& name : cases_of(family)) names.push_back(name);
  }
  const BandwidthOptions reading{.threads = flags.threads > 0 ? flags.threads : physical_cores()};
  if (flags.max_isa == "avx2") limit_to_avx2();  // the ceilings are those of the children
  json reports = json::array();
  double bandwidth = read_bandwidth(reading);
  const std::string load_before = load_average();
  for (const std::string& name : names) {
    const auto file = files.find(parse_image_case(name).family);
    if (file == files.end()) throw Error("--case " + name + ": no --weights for it", ErrorKind::kUsage);
    for (const std::string& dtype : flags.dtypes) {
      reports.push_back(run_in_child(flags, name, dtype, file->second));
      if (!flags.as_json) std::fprintf(stderr, "%s %s done\n", name.c_str(), dtype.c_str());
    }
  }
  bandwidth = std::max(bandwidth, read_bandwidth(reading));
  // Processors with instructions for dot products multiply faster than their plain vector units.
  const bool has_plain_vectors = LinearProducts(ProductKernels::kBest).grouped().name() == "vector";
  const auto rate = [&](Arithmetic arithmetic) {
    return has_plain_vectors ? arithmetic_rate(arithmetic, reading.threads) : 0.0;
  };
  const json result{{"schema", "volley.image_bench/1"},
                    {"weights", "random"},
                    {"max_isa", flags.max_isa.empty() ? "none" : flags.max_isa},
                    {"threads", reading.threads},
                    {"read_bytes_per_second", bandwidth},
                    {"operations_per_second", rate(Arithmetic::kF32)},
                    {"quantized_operations_per_second", rate(Arithmetic::kInt16)},
                    {"load_average", {load_before, load_average()}},
                    {"cases", reports}};
  std::printf("%s\n", flags.as_json ? result.dump(1).c_str() : image_table(result).c_str());
}

int bench_main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"Time and memory of whole image models with random weights"};
  app.add_option("--make-weights", flags.make_weights, "write random weights of this model to --out")
      ->check(CLI::IsMember(published_models()));
  app.add_option("-o,--out", flags.out, "file that --make-weights writes");
  app.add_option("--weights", flags.weights, "checkpoints, told apart by their tensors")->delimiter(',');
  app.add_option("--case", flags.cases, "arpg-bN, llamagen-bN, vq-bN [N 1 and 4 of each checkpoint]")
      ->delimiter(',');
  app.add_option("--dtype", flags.dtypes, "storages of weights in products [bf16]")->delimiter(',');
  app.add_option("--device", flags.device, "cpu or cpu-reference [cpu]");
  app.add_option("--max-isa", flags.max_isa, "cap the vector instructions")->check(CLI::IsMember({"avx2"}));
  app.add_option("--threads", flags.threads, "[physical cores]")->check(CLI::Range(0, 1024));
  app.add_option("--repeats", flags.repeats, "timed runs behind one to warm up [5]")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--profile", flags.profile, "also the time of each kind of operation");
  app.add_flag("--json", flags.as_json, "print JSON");
  app.add_flag("--one", flags.one)->group("");
  app.add_option("--started", flags.started)->group("");
  CLI11_PARSE(app, argc, argv);
  if (!flags.make_weights.empty()) {
    make_weights(flags);
  } else if (flags.weights.empty()) {
    throw Error("--weights: name a checkpoint; --make-weights makes one", ErrorKind::kUsage);
  } else if (flags.one) {
    run_here(flags);
  } else {
    run(flags);
  }
  return 0;
}

}  // namespace
}  // namespace volley

int main(int argc, char** argv) {
  try {
    return volley::bench_main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "image_bench: %s\n", error.what());
    return 1;
  }
}
