// What volley text is asked to do: its flags and prompts as a request.
#include "apps/text_plan.h"

#include <memory>
#include <random>
#include <set>

#include "apps/event_file.h"
#include "apps/model_path.h"
#include "apps/prompt_file.h"
#include "apps/text_prompts.h"
#include "core/base/error.h"
#include "core/decode/constrained_guess.h"
#include "core/io/byte_reader.h"
#include "core/io/mapped_file.h"
#include "core/io/untrusted_text.h"
#include "text/constraint/token_constraint.h"

namespace volley::apps {
namespace {

using text::TextPrompt;
using text::TextRequest;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

TextPrompt make_prompt(const TextRequest& request, const std::string& words, const std::string& system) {
  TextPrompt prompt;
  if (!request.chat_format) {
    if (!system.empty()) {
      throw Error("--system: model " + request.model + " has no chat format; --chat-format names one",
                  ErrorKind::kUsage);
    }
    prompt.text = words;
    return prompt;
  }
  if (!system.empty()) prompt.messages.push_back({.role = "system", .content = system});
  prompt.messages.push_back({.role = "user", .content = words});
  return prompt;
}

std::optional<text::TextConstraint> make_constraint(const TextFlags& flags) {
  using text::ConstraintKind;
  if (flags.has_regex) return make_text_constraint(ConstraintKind::kRegex, flags.regex, "--regex");
  if (!flags.has_json_schema) return std::nullopt;
  const std::string& given = flags.json_schema;
  if (given.empty()) throw Error("--json-schema: is empty", ErrorKind::kUsage);
  // No file is called like that.
  if (given.find('{') != given.npos || given == "true" || given == "false")
    return make_text_constraint(ConstraintKind::kJsonSchema, given, "--json-schema");
  const MappedFile file = MappedFile::open(given).value_or_throw("--json-schema " + given);
  return make_text_constraint(ConstraintKind::kJsonSchema, std::string(as_text(file.bytes())),
                              "--json-schema " + given);
}

TextRequest common_request(const TextFlags& flags, const text::TextCheckpoint& checkpoint) {
  const image::MethodChoices& method = flags.shared.method;
  TextRequest request{.model = checkpoint.name,
                      .max_tokens = flags.max_tokens,
                      .stops = flags.stops,
                      .check = flags.shared.check ? text::Check::kYes : text::Check::kNo};
  if (!flags.raw) {
    try {
      request.chat_format = choose_chat_format(checkpoint, flags.chat_format);
    } catch (const Error& error) {
      const bool is_template = flags.chat_format.empty();
      throw Error((is_template ? "" : "--chat-format: ") + std::string(error.what()) +
                      (is_template ? " by --chat-format, or continue plain text by --raw" : ""),
                  ErrorKind::kUsage);
    }
  }
  if (flags.chat && !request.chat_format) {
    throw Error("--chat: model " + checkpoint.name + " has no chat template; --chat-format names a format",
                ErrorKind::kUsage);
  }
  // Diffusion models are told apart from noise by how sure they are: their authors' default is greedy.
  const bool is_diffusion = text::is_diffusion(checkpoint.kind());
  request.temperature = method.temperature.value_or(is_diffusion ? 0.0 : request.temperature);
  request.top_k = method.top_k.value_or(request.top_k);
  request.top_p = method.top_p.value_or(request.top_p);
  request.constraint = make_constraint(flags);
  if (flags.cfg_scale > 0.0 && checkpoint.kind() != text::ModelKind::kMasked) {
    throw Error("--cfg-scale " + shortest(flags.cfg_scale) + ": model " + checkpoint.name +
                    (is_diffusion ? " was trained without hidden prompts" : " is no diffusion model"),
                ErrorKind::kUsage);
  }
  request.cfg_scale = flags.cfg_scale;
  if (flags.context_shift) request.context_shift = text::ShiftRule{.keep = flags.keep};
  request.draft_model = flags.shared.draft_model;
  request.heads = flags.shared.heads;
  choose_decoder(method.decoder, request, flags.shared.draft_max,
                 {.kind = checkpoint.kind(), .options = flags.method_options});
  return request;
}

// Whether answers of so many tokens can have the request's form at all, where a method decides all of their
// places at once: the others find the way as they go.
class FormCheck {
 public:
  FormCheck(const text::TextCheckpoint& checkpoint, const TextRequest& request)
      : decoder_(request.decoder.name),
        stop_tokens_(checkpoint.end_tokens),
        config_(checkpoint.llama.config) {
    if (request.constraint && fills_hidden_places(decoder_model(request.decoder))) {
      constraint_ =
          std::make_shared<const text::TokenConstraint>(request.constraint->automaton, checkpoint.tokenizer);
    }
  }
  // Throws Error.
  void operator()(int64_t tokens) {
    if (!constraint_ || !possible_.insert(tokens).second) return;
    const Generation answer{.max_tokens = tokens,
                            .stop_tokens = stop_tokens_,
                            .constraint = constraint_,
                            .mask_token = config_.mask_token};
    try {
      constrained_blocks({&answer, 1}, config_.vocab_size, decoder_);
    } catch (const Error&) {
      possible_.erase(tokens);
      throw;
    }
  }

 private:
  std::string decoder_;
  const std::vector<int32_t>& stop_tokens_;
  const text::LlamaConfig& config_;
  std::shared_ptr<const Constraint> constraint_;
  std::set<int64_t> possible_;
};

// Opens the draft model, if the decoder has one.
void open_draft(const TextFlags& flags, const text::TextCheckpoint& checkpoint, TextPlan& plan) {
  const std::string& name = flags.shared.draft_model;
  if (name.empty()) return;
  if (plan.request.draft_model.empty()) {
    plan.notes.push_back("--draft-model " + name + ": decoder " + plan.request.decoder.name +
                         " does not use it; draft and draft-rejection do");
    return;
  }
  plan.draft = text::open_text_checkpoint(find_model(name, "--draft-model"));
  text::check_draft_vocabulary(checkpoint, *plan.draft);
  plan.request.draft_model = plan.draft->name;
}

// Opens the draft heads, if the decoder has them.
void open_heads(const TextFlags& flags, const text::TextCheckpoint& checkpoint, TextPlan& plan) {
  const std::string& name = flags.shared.heads;
  if (name.empty()) return;
  if (plan.request.heads.empty()) {
    plan.notes.push_back("--heads " + name + ": decoder " + plan.request.decoder.name +
                         " does not use them; heads does");
    return;
  }
  plan.heads = text::open_heads(find_model(name, "--heads"), checkpoint);
  plan.request.heads = plan.heads->name;
}

}  // namespace

uint64_t first_seed(const SharedFlags& shared) {
  if (shared.seed >= 0) return static_cast<uint64_t>(shared.seed);
  std::random_device source;
  return (uint64_t{source()} << 31) ^ source();
}

void refuse_contradictions(const TextFlags& flags) {
  const auto refuse = [](const std::string& message) { throw Error(message, ErrorKind::kUsage); };
  if (flags.keep && !flags.context_shift)
    refuse("--keep " + std::to_string(*flags.keep) + ": goes with --context-shift only");
  if (flags.has_regex && flags.has_json_schema) refuse("--regex: does not go with --json-schema");
  if ((flags.has_regex || flags.has_json_schema) && !flags.stops.empty()) {
    refuse(std::string("--stop: does not go with ") + (flags.has_regex ? "--regex" : "--json-schema") +
           ", which says where an answer ends");
  }
  if (flags.raw && flags.chat) refuse("--raw: does not go with --chat");
  if (flags.raw && !flags.system.empty()) refuse("--raw: does not go with --system");
  if (flags.raw && !flags.chat_format.empty()) refuse("--raw: does not go with --chat-format");
  if (flags.chat && !flags.prompt_file.empty()) refuse("--chat: does not go with --prompt-file");
  if (!flags.prompt_file.empty() && !flags.prompt.empty())
    refuse("--prompt-file " + flags.prompt_file + ": does not go with a prompt");
  if (flags.prompt_file.empty() && flags.prompt.empty() && !flags.chat)
    refuse("text: say something: a prompt, --prompt-file or --chat");
  refuse_taken_events(flags.shared);
  if (flags.shared.events == "-" && (flags.shared.out.empty() || flags.shared.out == "-"))
    refuse("--events -: standard output is taken by the text; --out FILE puts that elsewhere");
}

int64_t check_prompt(const text::TextCheckpoint& checkpoint, const TextRequest& request,
                     const TextPrompt& prompt) {
  const std::vector<int32_t> tokens = encode_prompt(checkpoint, request, prompt);
  shift_of(checkpoint, request, prompt, tokens);
  return answer_limit(checkpoint, request, std::ssize(tokens));
}

TextPlan make_plan(const TextFlags& flags, const text::TextCheckpoint& checkpoint) {
  TextPlan plan{.request = common_request(flags, checkpoint)};
  open_draft(flags, checkpoint, plan);
  open_heads(flags, checkpoint, plan);
  TextRequest& request = plan.request;
  const auto decoder = make_decoder(request.decoder);
  const auto check = [&](const TextPrompt& prompt) {
    const int64_t limit = check_prompt(checkpoint, request, prompt);
    decoder->check_length(limit);
    return limit;
  };
  const uint64_t seed = first_seed(flags.shared);
  if (flags.prompt_file.empty()) {
    TextPrompt prompt = make_prompt(request, joined(flags.prompt), flags.system);
    prompt.seed = seed;
    if (flags.chat) {
      decoder->check_length(answer_limit(checkpoint, request, 1));  // what is said will tell more
    } else {
      check(prompt);
    }
    request.prompts.push_back(std::move(prompt));
    return plan;
  }
  const std::string input = read_prompt_text(flags.prompt_file);
  FormCheck check_form(checkpoint, request);  // a line that cannot be answered is not to end the others
  uint64_t index = 0;
  for (const TextLine& line : parse_text_lines(input)) {
    const std::string source = flags.prompt_file + ":" + std::to_string(line.line);
    const uint64_t usual_seed = seed + index++;  // lines that cannot be answered count, too
    try {
      if (!line.fault.empty()) throw Error(line.fault);
      TextPrompt prompt = make_prompt(request, line.prompt, line.system.empty() ? flags.system : line.system);
      prompt.seed = line.seed.value_or(usual_seed);
      check_form(check(prompt));
      if (std::ssize(request.prompts) == text::kMaxPrompts)
        throw Error("more than " + std::to_string(text::kMaxPrompts) + " prompts");
      request.prompts.push_back(std::move(prompt));
      plan.sources.push_back(source);
      plan.lines.push_back(line.line);
    } catch (const Error& error) {
      plan.failures.push_back({.line = line.line, .message = source + ": " + error.what()});
    }
  }
  const std::string name = prompt_source(flags.prompt_file);
  if (request.prompts.empty())
    throw Error(plan.failures.empty() ? name + ": holds no prompt" : plan.failures.front().message);
  return plan;
}

WeightStorage storage_of(const std::string& dtype, const text::TextCheckpoint& checkpoint,
                         const Backend& backend) {
  const WeightType type = weight_type_of(dtype, backend);
  const bool keeps = dtype == "auto" && backend.info().has_blocks && checkpoint.has_blocks();
  return keeps ? WeightStorage::keeping_blocks(type) : WeightStorage(type);
}

std::string method_line(const TextRequest& request) {
  const std::string seed = "seed " + std::to_string(request.prompts.front().seed);
  const std::string sampling = request.temperature == 0.0
                                   ? "greedy"
                                   : "temperature " + shortest(request.temperature) + ", top-k " +
                                         std::to_string(request.top_k) + ", top-p " +
                                         shortest(request.top_p) + ", " + seed;
  return decoder_text(request.decoder) + " (" +
         std::string(decoder_class_name(decoder_class(request.decoder))) + ")" +
         (request.draft_model.empty() ? "" : " by " + request.draft_model) +
         (request.heads.empty() ? "" : " by " + request.heads) + ", " + sampling + ", " +
         (request.chat_format ? "chat format " + std::string(name_of(*request.chat_format))
                              : std::string("plain completion")) +
         (request.cfg_scale > 0.0 ? ", guidance " + shortest(request.cfg_scale) : "") +
         (request.constraint ? ", by " + std::string(flag_of(request.constraint->kind)) : std::string()) +
         (request.context_shift ? ", context shift" : "") + ", at most " +
         plural(request.max_tokens, "token");
}

}  // namespace volley::apps
