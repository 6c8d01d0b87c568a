// What volley bench text measures: its flags as requests of the text front end.
#include <algorithm>
#include <array>
#include <filesystem>

#include "apps/bench.h"
#include "apps/model_path.h"
#include "apps/text_plan.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/version.h"
#include "core/io/byte_reader.h"
#include "core/io/file_hash.h"
#include "core/io/open_weights.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

using text::TextCheckpoint;
using text::TextRequest;

// Ours. Asks for an answer that is long, and repeats a few names as answers do.
constexpr const char* kBuiltInPrompt =
    "Tell the story of a lighthouse keeper and her lamp in three paragraphs: how the lamp went out in a "
    "storm, "
    "what the keeper did, and what the sailors said to the keeper afterwards.";

// Words without a meaning of their own; which one comes next is a simple rule.
std::string filler_text(size_t bytes) {
  constexpr std::array<std::string_view, 24> kWords{"water", "light",  "over",  "the",   "small",   "house",
                                                    "where", "people", "walk",  "in",    "morning", "and",
                                                    "river", "stone",  "under", "green", "trees",   "long",
                                                    "after", "summer", "wind",  "from",  "north",   "came"};
  std::string text;
  for (uint64_t state = 1; text.size() < bytes;) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    text += (text.empty() ? "" : " ") + std::string(kWords[(state >> 33) % kWords.size()]);
  }
  return text;
}

// A text of `tokens` tokens, or nearly so many where a character more is several tokens more.
std::string text_of_tokens(const text::Tokenizer& tokenizer, int64_t tokens) {
  const std::string filler = filler_text(static_cast<size_t>(tokens) * 16);
  const auto count = [&](size_t length) {
    return std::ssize(tokenizer.encode(filler.substr(0, length), {.frame = text::Frame::kWhole}));
  };
  size_t low = 1, high = filler.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    if (count(middle) < tokens) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  // A prefix may have fewer tokens than a shorter one: the count is looked for around the place, too.
  constexpr size_t kAround = 16;
  for (size_t length = low > kAround ? low - kAround : 1; length <= std::min(low + kAround, filler.size());
       ++length) {
    if (count(length) == tokens) return filler.substr(0, length);
  }
  return filler.substr(0, low);
}

BenchWeights describe_weights(const std::string& role, const std::string& name, const std::string& path) {
  const std::vector<std::string> files = weight_files(path);
  BenchWeights weights{.role = role, .name = printable(name, 200), .hash = FileHash(files).hex()};
  for (const std::string& file : files) {
    std::error_code code;
    weights.bytes += static_cast<int64_t>(std::filesystem::file_size(file, code));
  }
  return weights;
}

std::string hash_prompts(const TextRequest& request) {
  std::string all;
  const auto add = [&](const std::string& text) { all += text + '\0'; };
  for (const text::TextPrompt& prompt : request.prompts) {
    add(prompt.text);
    add(std::to_string(prompt.seed));
    for (const text::ChatMessage& message : prompt.messages) {
      add(message.role);
      add(message.content);
    }
  }
  return sha256_hex(as_bytes(all));
}

// The flags of volley text that answer as this method does.
TextFlags text_flags(const BenchFlags& flags, const std::string& decoder, double temperature) {
  TextFlags of_text;
  of_text.shared = flags.shared;
  of_text.shared.method.decoder = decoder;
  of_text.shared.method.temperature = temperature;
  of_text.max_tokens = flags.tokens;
  of_text.raw = flags.raw;
  of_text.chat_format = flags.chat_format;
  of_text.prompt_file = flags.prompt_file;
  if (flags.prompt_file.empty()) of_text.prompt = {kBuiltInPrompt};
  return of_text;
}

void add_method(const BenchFlags& flags, const TextCheckpoint& checkpoint, BenchMethod method,
                const std::string& decoder, BenchPlan& plan) {
  const bool is_sampled = method.name.ends_with(" sampled");
  TextFlags of_text =
      text_flags(flags, decoder, is_sampled ? flags.shared.method.temperature.value_or(0) : 0.0);
  if (decoder == "sequential") of_text.shared.draft_max.reset();  // it drafts nothing
  refuse_contradictions(of_text);
  TextPlan made = make_plan(of_text, checkpoint);
  // Other prompts would be another benchmark than the one asked for.
  if (!made.failures.empty()) throw Error(made.failures.front().message);
  if (made.draft && plan.draft_path.empty()) {
    plan.draft_path = made.draft->path;
    plan.result.weights.push_back(describe_weights("draft", made.draft->name, made.draft->path));
  }
  if (made.heads && plan.heads_path.empty()) {
    plan.heads_path = made.heads->path;
    plan.result.weights.push_back(
        describe_weights("heads", made.heads->name, text::heads_file(made.heads->path)));
  }
  method.request = std::move(made.request);
  plan.methods.push_back(std::move(method));
}

void plan_prefill(const BenchFlags& flags, const TextCheckpoint& checkpoint, BenchPlan& plan) {
  if (flags.prompt_tokens >= checkpoint.context()) {
    throw Error("--prompt-tokens " + std::to_string(flags.prompt_tokens) + ": the context of model " +
                    checkpoint.name + " is " + std::to_string(checkpoint.context()) + ", answer included",
                ErrorKind::kUsage);
  }
  TextRequest& request = plan.prefill;
  request = {.model = checkpoint.name,
             .prompts = {{.text = text_of_tokens(*checkpoint.tokenizer, flags.prompt_tokens)}},
             .max_tokens = 1,
             .temperature = 0.0};
  choose_decoder("sequential", request);
  plan.result.settings.prompt_tokens =
      std::ssize(encode_prompt(checkpoint, request, request.prompts.front()));
}

void describe(const BenchFlags& flags, const text::TextCheckpoint& checkpoint, const Backend& backend,
              BenchPlan& plan) {
  BenchResult& result = plan.result;
  const TextRequest& request = plan.methods.back().request;
  result.volley = version();
#if defined(__clang__)
  result.compiler = "clang " __clang_version__;
#else
  result.compiler = "g++ " __VERSION__;
#endif
#ifndef __OPTIMIZE__
  result.is_optimized = false;
#endif
  result.machine = describe_machine();
  result.device_description = backend.info().description;
  result.repeat = flags.repeat;
  result.warmup = flags.warmup;
  BenchSettings& settings = result.settings;
  settings.device = backend.info().name;
  settings.threads = threads_for(flags.shared);
  settings.dtype = storage_of(flags.shared.dtype, checkpoint, backend).name();
  settings.max_tokens = flags.tokens;
  settings.temperature = request.temperature;
  if (request.temperature > 0.0) {
    settings.top_k = request.top_k;
    settings.top_p = request.top_p;
  }
  settings.seed = static_cast<uint64_t>(flags.shared.seed);
  if (request.chat_format) settings.chat_format = name_of(*request.chat_format);
  settings.prompts = flags.prompt_file.empty()
                         ? std::string(kBuiltInPrompts)
                         : printable(std::filesystem::path(flags.prompt_file).filename().string(), 200);
  settings.prompt_count = std::ssize(request.prompts);
  settings.prompt_hash = hash_prompts(request);
}

}  // namespace

std::vector<std::string> split_decoders(const std::string& list) {
  std::vector<std::string> decoders;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const std::string word = list.substr(begin, end - begin);
    const size_t equals = word.find('='), colon = word.find(':');
    if (!decoders.empty() && equals != word.npos && (colon == word.npos || colon > equals)) {
      decoders.back() += "," + word;
    } else {
      decoders.push_back(word);
    }
    begin = end + 1;
  }
  return decoders;
}

BenchPlan plan_bench(const BenchFlags& given) {
  BenchFlags flags = given;
  if (flags.prompt_file == "-")
    throw Error("--prompts -: name a file, which the next run can read again", ErrorKind::kUsage);
  flags.shared.seed = static_cast<int64_t>(first_seed(flags.shared));
  BenchPlan plan{.model_path = flags.shared.model.empty() ? default_text_model("bench text")
                                                          : find_model(flags.shared.model)};
  const auto backend = backend_for(flags.shared);
  const TextCheckpoint checkpoint = text::open_text_checkpoint(plan.model_path);
  plan.result.weights.push_back(describe_weights("model", checkpoint.name, checkpoint.path));
  const bool is_causal = checkpoint.kind() == text::ModelKind::kCausal;
  if (is_causal) plan_prefill(flags, checkpoint, plan);
  const bool drafts = is_causal && !flags.shared.draft_model.empty() && flags.shared.heads.empty();
  const bool is_said = !flags.decoders.empty();
  // Not said: as `volley text` chooses.
  std::vector<std::string> decoders = is_said  ? split_decoders(flags.decoders)
                                      : drafts ? std::vector<std::string>{""}
                                               : std::vector<std::string>{"auto"};
  if (is_causal) {
    std::erase(decoders, "sequential");
    decoders.insert(decoders.begin(), "sequential");
  }
  std::vector<std::string> samplings{"greedy"};
  if (flags.shared.method.temperature.value_or(0.0) > 0.0) samplings.emplace_back("sampled");
  for (const std::string& sampling : samplings) {
    const int64_t first = std::ssize(plan.methods);
    for (const std::string& decoder : decoders) {
      if (is_said && decoder.empty())
        throw Error("--decoder " + flags.decoders + ": a decoder has no name", ErrorKind::kUsage);
      const std::string name = (decoder.empty() ? "draft" : decoder) + " " + sampling;
      if (std::ranges::find(plan.methods, name, &BenchMethod::name) != plan.methods.end())
        throw Error("--decoder " + flags.decoders + ": " + decoder + " stands twice", ErrorKind::kUsage);
      const bool is_first = std::ssize(plan.methods) == first;
      add_method(flags, checkpoint, {.name = name, .baseline = is_causal && !is_first ? first : -1}, decoder,
                 plan);
    }
  }
  describe(flags, checkpoint, *backend, plan);
  return plan;
}

}  // namespace volley::apps
