#pragma once

#include <cstdint>
#include <string>

#include "apps/bench_result.h"
#include "apps/verbs.h"
#include "text/text_request.h"

namespace volley::apps {

// Verbs of `volley bench`, one file each.
Verb add_bench_text(CLI::App& bench);
Verb add_bench_diff(CLI::App& bench);

// What `volley bench text` takes.
struct BenchFlags {
  BenchFlags();

  SharedFlags shared;
  int64_t prompt_tokens = 512;
  int64_t tokens = 128;
  std::string decoders;  // names with their options, commas between them; empty: not said
  int64_t repeat = 5;
  int64_t warmup = 1;
  std::string prompt_file;
  bool raw = false;
  std::string chat_format;
  std::string save;
  std::string svg;
};

// A decoder and how it samples: what one group of rows is of.
struct BenchMethod {
  std::string name;  // of its rows: "lookup greedy"
  text::TextRequest request;
  // Index of the method whose tokens it must give, and whose speed it is compared with; -1: there is none.
  int64_t baseline = -1;
};

struct BenchPlan {
  std::string model_path;
  std::string draft_path;     // empty: no method drafts by a model
  std::string heads_path;     // empty: no method drafts by heads
  text::TextRequest prefill;  // one prompt and one token; no prompt: the model has no prefill of its own
  std::vector<BenchMethod> methods;
  BenchResult result;  // all that is known before anything runs
};

// Names of decoders with their options: a comma before "key=value" belongs to the decoder in front of it.
std::vector<std::string> split_decoders(const std::string& list);

// Opens the model and its prompts and hashes its files. Throws Error for whatever does not fit.
BenchPlan plan_bench(const BenchFlags& flags);

// Runs the repetitions. A stopped run returns the measurements that were finished.
BenchResult run_bench(const BenchFlags& flags, const BenchPlan& plan, Program& program);

}  // namespace volley::apps
