// volley bench: how fast models are here, and what a change did to that.
#include "apps/bench.h"

namespace volley::apps {

std::vector<Verb> add_bench(CLI::App& program) {
  CLI::App& bench = add_verb_group(program, "bench", "measure models on this machine, compare measurements");
  return {add_bench_diff(bench), add_bench_text(bench)};
}

}  // namespace volley::apps
