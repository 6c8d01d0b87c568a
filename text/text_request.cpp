#include "text/text_request.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::text {
namespace {

DecoderModel model_of(ModelKind kind) {
  switch (kind) {
    case ModelKind::kCausal:
      return DecoderModel::kCausal;
    case ModelKind::kMasked:
      return DecoderModel::kMaskedDiffusion;
    case ModelKind::kBlockDiffusion:
      return DecoderModel::kBlockDiffusion;
    case ModelKind::kSequentialDiffusion:
      return DecoderModel::kSequentialDiffusion;
  }
  return DecoderModel::kCausal;
}

bool runs(const DecoderInfo& info, ModelKind kind) {
  return info.model == model_of(kind);
}

// Whether text comes from it, by some model.
bool makes_text(const DecoderInfo& info) {
  using enum ModelKind;
  return std::ranges::any_of(std::array{kCausal, kMasked, kBlockDiffusion, kSequentialDiffusion},
                             [&](ModelKind kind) { return runs(info, kind); });
}

// Without a kind: a method of any.
void check_decoder(const DecoderSpec& decoder, std::optional<ModelKind> kind) {
  make_decoder(decoder);  // throws for unknown names, options and values
  const auto fits = [kind](const DecoderInfo& info) { return kind ? runs(info, *kind) : makes_text(info); };
  std::string known;
  for (const DecoderInfo& info : decoder_registry()) {
    if (fits(info)) known += (known.empty() ? "" : ", ") + info.name;
  }
  for (const DecoderInfo& info : decoder_registry()) {
    if (info.name != decoder.name || fits(info)) continue;
    throw Error("--decoder " + decoder.name + ": needs a " + info.needs + "; " +
                    (kind && is_diffusion(*kind) ? "this model's text comes from " : "text comes from ") +
                    known,
                ErrorKind::kUsage);
  }
}

// Lengths that adapt find out what pays; this is only as far as they may go.
constexpr int64_t kLongestDraft = 16;
// 2 MiB of memory.
constexpr int64_t kPooledTokens = int64_t{1} << 16;

// Never a draft model's: its run over the prompt may cost more than its drafts bring, so that it has to be
// asked for.
DecoderSpec automatic_decoder(ModelKind kind, const TextRequest& request) {
  if (is_diffusion(kind)) {
    const auto& registry = decoder_registry();
    return {.name =
                std::ranges::find_if(registry, [kind](const auto& info) { return runs(info, kind); })->name};
  }
  DecoderSpec decoder{.name = request.heads.empty() ? "lookup" : "heads",
                      .options = {{"length", "adaptive"}}};
  if (decoder.name == "lookup") decoder.options["pool"] = std::to_string(kPooledTokens);
  return decoder;
}

// Of the methods that fill hidden places: "diffusion has", "diffusion and block-diffusion have".
std::string decoders_with(const std::string& option) {
  std::string names;
  bool is_one = true;
  for (const DecoderInfo& info : decoder_registry()) {
    if (!fills_hidden_places(info.model)) continue;
    if (std::ranges::count(info.options, option, &DecoderOption::name) == 0) continue;
    is_one = names.empty();
    names += (is_one ? "" : " and ") + info.name;
  }
  return names + (is_one ? " has" : " have");
}

// Takes options over that have flags of their own.
void add_options(const std::map<std::string, std::string>& options, DecoderSpec& decoder) {
  for (const auto& [option, value] : options) {
    std::string flag = "--" + option;
    std::ranges::replace(flag, '_', '-');
    for (const DecoderInfo& info : decoder_registry()) {
      if (info.name != decoder.name || std::ranges::count(info.options, option, &DecoderOption::name) > 0)
        continue;
      throw Error(
          flag + " " + value + ": decoder " + decoder.name + " has no such option; " + decoders_with(option),
          ErrorKind::kUsage);
    }
    if (!decoder.options.emplace(option, value).second) {
      throw Error(flag + " " + value + ": --decoder " + decoder_text(decoder) + " says it, too",
                  ErrorKind::kUsage);
    }
  }
}

std::vector<int32_t> encode_chat(const TextCheckpoint& checkpoint, ChatFormat format,
                                 const std::vector<ChatMessage>& messages) {
  const Tokenizer& tokenizer = *checkpoint.tokenizer;
  const SpecialIds& ids = tokenizer.special_ids();
  const auto piece = [&](int32_t id) { return id >= 0 ? tokenizer.piece(id) : std::string(); };
  const ChatRendering rendering{.bos = piece(ids.bos), .eos = piece(ids.eos)};
  return tokenizer.encode(render_chat(format, messages, rendering));
}

// Tokens of a prompt before the first words that someone says: those that it has in common with conversations
// that say something else there.
int64_t beginning_of(const TextCheckpoint& checkpoint, const TextRequest& request, const TextPrompt& prompt,
                     const std::vector<int32_t>& tokens) {
  if (!request.chat_format) return tokens.front() == checkpoint.tokenizer->special_ids().bos ? 1 : 0;
  int64_t common = std::ssize(tokens);
  for (const char* words : {"a", "1"}) {
    std::vector<ChatMessage> other = prompt.messages;
    const auto first = std::ranges::find(other, "user", &ChatMessage::role);
    if (first == other.end()) return 0;
    first->content = words;
    other.erase(first + 1, other.end());
    const std::vector<int32_t> others = encode_chat(checkpoint, *request.chat_format, other);
    common = std::min<int64_t>(common, std::ranges::mismatch(tokens, others).in1 - tokens.begin());
  }
  return common;
}

// A prompt as messages name it.
std::string subject_of(const TextPrompt& prompt) {
  return "prompt " + quote(last_words(prompt));
}

}  // namespace

const std::string& last_words(const TextPrompt& prompt) {
  return prompt.messages.empty() ? prompt.text : prompt.messages.back().content;
}

void choose_decoder(const std::string& decoder, TextRequest& request, std::optional<int64_t> draft_max,
                    const MethodNeeds& needs) {
  const bool drafts = decoder.empty() && needs.kind == ModelKind::kCausal && request.heads.empty() &&
                      !request.draft_model.empty();
  const bool is_automatic = !drafts && (decoder.empty() || decoder == "auto");
  request.decoder = drafts         ? DecoderSpec{.name = "draft", .options = {{"length", "adaptive"}}}
                    : is_automatic ? automatic_decoder(needs.kind, request)
                                   : parse_decoder_spec(decoder);
  add_options(needs.options, request.decoder);
  check_decoder(request.decoder, needs.kind);
  if (request.context_shift && is_diffusion(needs.kind)) {
    throw Error("--context-shift: model " + request.model +
                    " is a diffusion model, whose answers end where its context does",
                ErrorKind::kUsage);
  }
  if (!needs_draft_model(request.decoder)) request.draft_model.clear();
  if (needs_draft_model(request.decoder) && request.draft_model.empty()) {
    throw Error("--decoder " + request.decoder.name + ": needs a draft model; --draft-model names one",
                ErrorKind::kUsage);
  }
  if (!needs_heads(request.decoder)) request.heads.clear();
  if (needs_heads(request.decoder) && request.heads.empty()) {
    throw Error("--decoder " + request.decoder.name + ": needs draft heads; --heads names them",
                ErrorKind::kUsage);
  }
  const bool is_adaptive = request.decoder.options.contains("length");
  if (draft_max) {
    limit_drafts(request.decoder, *draft_max);
  } else if ((drafts || is_automatic) && is_adaptive) {
    limit_drafts(request.decoder, kLongestDraft);
  }
  state_options(request.decoder);
  if (request.check == Check::kYes && decoder_class(request.decoder) != DecoderClass::kSameTokens) {
    throw Error("--check: decoder " + request.decoder.name + " is of class '" +
                    std::string(decoder_class_name(decoder_class(request.decoder))) +
                    "' and promises no sequential tokens",
                ErrorKind::kUsage);
  }
}

std::optional<ChatFormat> choose_chat_format(const TextCheckpoint& checkpoint, const std::string& name) {
  if (!name.empty()) return chat_format_by_name(name);
  if (!checkpoint.chat_fault.empty()) throw Error(checkpoint.chat_fault, ErrorKind::kUsage);
  return checkpoint.chat_format;
}

std::vector<int32_t> encode_prompt(const TextCheckpoint& checkpoint, const TextRequest& request,
                                   const TextPrompt& prompt) {
  const Tokenizer& tokenizer = *checkpoint.tokenizer;
  const auto check = [&](const std::string& subject, const std::string& text) {
    if (!is_valid_utf8(text)) throw Error(subject + " " + quote(text) + ": is not UTF-8", ErrorKind::kUsage);
  };
  check("prompt", prompt.text);
  for (const ChatMessage& message : prompt.messages)
    check(message.role == "system" ? "--system" : "prompt", message.content);
  if (last_words(prompt).empty()) throw Error("prompt: is empty", ErrorKind::kUsage);
  std::vector<int32_t> tokens;
  if (request.chat_format) {
    tokens = encode_chat(checkpoint, *request.chat_format, prompt.messages);
  } else {
    tokens = tokenizer.encode(prompt.text, {.frame = Frame::kWhole});
    // What is to be continued has not ended.
    if (tokens.size() > 1 && tokens.back() == tokenizer.special_ids().eos &&
        !prompt.text.ends_with(tokenizer.piece(tokens.back()))) {
      tokens.pop_back();
    }
  }
  if (tokens.empty()) throw Error(subject_of(prompt) + ": gives no tokens", ErrorKind::kUsage);
  if (is_diffusion(checkpoint.kind()) && std::ranges::count(tokens, checkpoint.llama.config.mask_token) > 0) {
    throw Error(subject_of(prompt) + ": holds the model's mask token, " +
                    quote(tokenizer.piece(checkpoint.llama.config.mask_token)),
                ErrorKind::kUsage);
  }
  const auto count = std::ssize(tokens);
  if (count >= checkpoint.context() && !request.context_shift) {
    throw Error(subject_of(prompt) + ": has " + std::to_string(count) + " tokens; the context of model " +
                    checkpoint.name + " is " + std::to_string(checkpoint.context()) + ", answer included",
                ErrorKind::kUsage);
  }
  return tokens;
}

std::optional<ContextShift> shift_of(const TextCheckpoint& checkpoint, const TextRequest& request,
                                     const TextPrompt& prompt, const std::vector<int32_t>& tokens) {
  if (!request.context_shift) return std::nullopt;
  constexpr int64_t kLeastRoom = 4;
  const auto size = std::ssize(tokens);
  int64_t keep = size;
  if (!request.context_shift->keep) {
    keep = beginning_of(checkpoint, request, prompt, tokens);
  } else if (*request.context_shift->keep != ShiftRule::kWholePrompt) {
    keep = std::min(*request.context_shift->keep, size);
  }
  if (keep > checkpoint.context() - kLeastRoom) {
    throw Error(subject_of(prompt) + ": --context-shift would keep its first " + std::to_string(keep) +
                    " tokens, of a context of " + std::to_string(checkpoint.context()) + " of model " +
                    checkpoint.name + "; --keep of at most " +
                    std::to_string(checkpoint.context() - kLeastRoom) + " leaves room for an answer",
                ErrorKind::kUsage);
  }
  return ContextShift{.context = checkpoint.context(), .keep = keep};
}

int64_t answer_limit(const TextCheckpoint& checkpoint, const TextRequest& request, int64_t prompt_tokens) {
  if (request.context_shift) return request.max_tokens;
  return std::min(request.max_tokens, checkpoint.context() - prompt_tokens);
}

nlohmann::json to_json(const TextRequest& request) {
  nlohmann::json json{{"model", request.model},
                      {"prompts", nlohmann::json::array()},
                      {"max_tokens", request.max_tokens},
                      {"decoder", decoder_text(request.decoder)},
                      {"decoder_class", decoder_class_name(decoder_class(request.decoder))},
                      {"temperature", request.temperature},
                      {"top_k", request.top_k},
                      {"top_p", request.top_p}};
  for (const TextPrompt& prompt : request.prompts) {
    nlohmann::json entry{{"seed", prompt.seed}};
    if (request.chat_format) {
      entry["messages"] = nlohmann::json::array();
      for (const ChatMessage& message : prompt.messages)
        entry["messages"].push_back({{"role", message.role}, {"content", message.content}});
    } else {
      entry["text"] = prompt.text;
    }
    json["prompts"].push_back(std::move(entry));
  }
  if (!request.draft_model.empty()) json["draft_model"] = request.draft_model;
  if (!request.heads.empty()) json["heads"] = request.heads;
  if (request.chat_format) json["chat_format"] = name_of(*request.chat_format);
  if (request.context_shift) {
    json["context_shift"] = nlohmann::json::object();
    if (request.context_shift->keep) json["context_shift"]["keep"] = *request.context_shift->keep;
  }
  if (!request.stops.empty()) json["stops"] = request.stops;
  if (request.constraint)
    json[request.constraint->kind == ConstraintKind::kRegex ? "regex" : "json_schema"] =
        request.constraint->source;
  if (request.cfg_scale != 0.0) json["cfg_scale"] = request.cfg_scale;
  if (request.check == Check::kYes) json["check"] = true;
  return json;
}

namespace {

// What is wrong with a value that a flag may give, too, is said of the key.
template <typename Read>
auto read_named(const std::string& subject, const char* key, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw Error(subject + ": key '" + key + "': " + error.what());
  }
}

TextPrompt read_prompt(const JsonFields& fields, const std::string& subject, bool is_chat) {
  TextPrompt prompt{.seed = fields.natural("seed")};
  if (!is_chat) {
    prompt.text = fields.text("text");
    return prompt;
  }
  const auto messages = fields.value().find("messages");
  if (messages == fields.value().end() || !messages->is_array() || messages->empty())
    throw Error(subject + ": key 'messages': expected a list of at least one");
  for (const nlohmann::json& entry : *messages) {
    const JsonFields message(entry, subject + ": messages");
    prompt.messages.push_back({.role = message.text("role"), .content = message.text("content")});
  }
  return prompt;
}

}  // namespace

namespace {

std::optional<TextConstraint> read_constraint(const JsonFields& fields, const std::string& subject) {
  std::optional<TextConstraint> constraint;
  for (const ConstraintKind kind : {ConstraintKind::kRegex, ConstraintKind::kJsonSchema}) {
    const char* key = kind == ConstraintKind::kRegex ? "regex" : "json_schema";
    if (!fields.has(key)) continue;
    const std::string place = subject + ": key '" + key + "'";
    if (constraint) throw Error(place + ": does not go with key 'regex'");
    constraint = make_text_constraint(kind, fields.text(key), place);
  }
  return constraint;
}

}  // namespace

TextRequest read_text_request(const JsonFields& fields, const std::string& subject) {
  TextRequest request{.model = fields.text("model"),
                      .draft_model = fields.text_or("draft_model", ""),
                      .heads = fields.text_or("heads", ""),
                      .max_tokens = fields.integer("max_tokens", {1, kMaxTokens}),
                      .temperature = fields.number("temperature", {0.0, 1000.0}),
                      .top_k = fields.integer("top_k", {0, 1 << 24}),
                      .top_p = fields.number("top_p", {0.0, 1.0}),
                      .cfg_scale = fields.number_or("cfg_scale", 0.0, {0.0, kMaxCfgScale}),
                      .check = fields.boolean_or("check", false) ? Check::kYes : Check::kNo};
  if (fields.has("chat_format")) {
    request.chat_format =
        read_named(subject, "chat_format", [&] { return chat_format_by_name(fields.text("chat_format")); });
  }
  request.decoder = read_named(subject, "decoder", [&] {
    DecoderSpec spec = parse_decoder_spec(fields.text("decoder"));
    check_decoder(spec, std::nullopt);
    if (needs_draft_model(spec) == request.draft_model.empty()) {
      throw Error("--decoder " + spec.name +
                  (request.draft_model.empty() ? ": has no draft model" : ": uses no draft model"));
    }
    if (needs_heads(spec) == request.heads.empty()) {
      throw Error("--decoder " + spec.name + (request.heads.empty() ? ": has no heads" : ": uses no heads"));
    }
    return spec;
  });
  if (fields.has("context_shift")) {
    const JsonFields shift = fields.object("context_shift");
    request.context_shift.emplace();
    if (shift.has("keep"))
      request.context_shift->keep = shift.integer("keep", {ShiftRule::kWholePrompt, kMaxTokens});
  }
  if (fields.has("stops")) request.stops = fields.texts("stops");
  if (std::ranges::count(request.stops, std::string()) > 0)
    throw Error(subject + ": key 'stops': one is empty");
  request.constraint = read_constraint(fields, subject);
  if (request.constraint && !request.stops.empty())
    throw Error(subject + ": key 'stops': does not go with a regex or schema");
  const auto prompts = fields.value().find("prompts");
  if (prompts == fields.value().end() || !prompts->is_array() || prompts->empty())
    throw Error(subject + ": key 'prompts': expected a list of at least one");
  for (const nlohmann::json& entry : *prompts) {
    request.prompts.push_back(read_prompt(JsonFields(entry, subject + ": prompts"), subject + ": prompts",
                                          request.chat_format.has_value()));
  }
  return request;
}

}  // namespace volley::text
