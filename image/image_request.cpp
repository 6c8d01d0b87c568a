#include "image/image_request.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::image {

std::vector<int64_t> ImageRequest::items() const {
  if (!only.empty()) return only;
  std::vector<int64_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

std::string ImageRequest::subject() const {
  if (!features_hash.empty()) return "a caption";
  return is_text() ? quote(prompt) : class_name;
}

uint64_t ImageRequest::seed_of(int64_t item) const {
  return seeds.empty() ? seed + static_cast<uint64_t>(item) : seeds[static_cast<size_t>(item)];
}

Canvas canvas_of(const ImageCard& card, const ImageRequest& request) {
  Canvas canvas{.columns = card.grid, .rows = card.grid, .cell = card.image_size / card.grid};
  if (request.edit) {
    canvas.columns += request.edit->outpaint.left + request.edit->outpaint.right;
    canvas.rows += request.edit->outpaint.up + request.edit->outpaint.down;
  }
  return canvas;
}

namespace {

bool makes_pictures(DecoderModel model) {
  return model == DecoderModel::kCausal || model == DecoderModel::kRandomOrder;
}

}  // namespace

Transformer transformer_for(const DecoderSpec& decoder) {
  const DecoderModel model = decoder_model(decoder);  // throws for unknown names
  if (needs_draft_model(decoder) || needs_heads(decoder) || !makes_pictures(model)) {
    std::string known;
    for (const DecoderInfo& info : decoder_registry()) {
      if (!info.needs_draft_model && !info.needs_heads && makes_pictures(info.model))
        known += (known.empty() ? "" : ", ") + info.name;
    }
    throw Error("--decoder " + decoder.name + ": needs a " +
                    (needs_draft_model(decoder) ? "draft model"
                     : needs_heads(decoder)     ? "model with draft heads"
                                                : "masked model") +
                    "; pictures come from " + known,
                ErrorKind::kUsage);
  }
  return model == DecoderModel::kRandomOrder ? Transformer::kArpg : Transformer::kLlamaGen;
}

namespace {

// Puts what was said by a flag of its own among the method's options.
void set_option(DecoderSpec& decoder, const std::string& name, const std::string& value) {
  if (value.empty()) return;
  if (decoder.name != "parallel") {
    throw Error("--" + name + ": decoder " + decoder.name + " has no " + name + "; only parallel has",
                ErrorKind::kUsage);
  }
  if (!decoder.options.emplace(name, value).second) {
    throw Error("--" + name + ": --decoder states " + name + " as well; give one of the two",
                ErrorKind::kUsage);
  }
}

}  // namespace

void choose_method(const ImageCard& card, const MethodChoices& choices, ImageRequest& request) {
  if (choices.decoder.empty() || choices.decoder == "auto") {
    const bool is_asked =
        choices.steps || !choices.schedule.empty() || !choices.order.empty() || request.edit;
    const bool wants_parallel = !card.llamagen || (is_asked && card.arpg);
    request.decoder = {.name = wants_parallel ? "parallel" : "jacobi"};
    if (!wants_parallel && !choices.shows_steps) request.decoder.options["length"] = "adaptive";
  } else {
    request.decoder = parse_decoder_spec(choices.decoder);
  }
  if (request.edit && request.decoder.name != "parallel") {
    throw Error(
        "--init: decoder " + request.decoder.name + " cannot keep cells that are given; only parallel can",
        ErrorKind::kUsage);
  }
  const Transformer transformer = transformer_for(request.decoder);
  const bool is_there =
      transformer == Transformer::kLlamaGen ? card.llamagen.has_value() : card.arpg.has_value();
  if (!is_there) {
    throw Error("--decoder " + request.decoder.name + ": model " + card.name + " has no " +
                    std::string(transformer_name(transformer)) + " transformer",
                ErrorKind::kModelMissing);
  }
  const SamplingDefaults& defaults = defaults_of(card, transformer);
  set_option(request.decoder, "steps", choices.steps ? std::to_string(*choices.steps) : "");
  set_option(request.decoder, "schedule", choices.schedule);
  set_option(request.decoder, "order", choices.order);
  if (request.decoder.name == "parallel") {
    // Every step chooses a cell or more.
    if (request.decoder.options.contains("steps"))
      OptionReader(request.decoder).integer("steps", 1, canvas_of(card, request).cells());
    if (defaults.steps > 0) request.decoder.options.emplace("steps", std::to_string(defaults.steps));
    if (!defaults.schedule.empty()) request.decoder.options.emplace("schedule", defaults.schedule);
  }
  state_options(request.decoder);
  request.cfg = choices.cfg.value_or(defaults.cfg);
  request.guidance = defaults.guidance;
  request.cfg_interval = defaults.cfg_interval;
  request.temperature = choices.temperature.value_or(defaults.temperature);
  request.top_k = choices.top_k.value_or(defaults.top_k);
  request.top_p = choices.top_p.value_or(defaults.top_p);
  if (request.check == Check::kYes && decoder_class(request.decoder) != DecoderClass::kSameTokens) {
    throw Error("--check: decoder " + request.decoder.name + " is of class '" +
                    std::string(decoder_class_name(decoder_class(request.decoder))) +
                    "' and promises no sequential tokens; sequential, lookup, tree, jacobi and lookahead do",
                ErrorKind::kUsage);
  }
}

nlohmann::json to_json(const ImageRequest& request) {
  nlohmann::json json{{"model", request.model},
                      {"count", request.count},
                      {"seed", request.seed},
                      {"decoder", decoder_text(request.decoder)},
                      {"decoder_class", decoder_class_name(decoder_class(request.decoder))},
                      {"cfg", request.cfg},
                      {"guidance", guidance_name(request.guidance)},
                      {"temperature", request.temperature},
                      {"top_k", request.top_k},
                      {"top_p", request.top_p}};
  if (!request.features_hash.empty()) {
    json["text_features"] = request.features_hash;
  } else if (!request.is_text()) {
    json["class"] = request.class_name;
    json["class_id"] = request.class_id;
  }
  if (!request.prompt.empty()) json["prompt"] = request.prompt;
  if (!request.seeds.empty()) json["seeds"] = request.seeds;
  if (request.edit) json["edit"] = to_json(*request.edit);
  if (!request.only.empty()) json["only"] = request.only;
  if (request.guidance == GuidanceSchedule::Kind::kInterval) json["cfg_interval"] = request.cfg_interval;
  if (request.check == Check::kYes) json["check"] = true;
  return json;
}

uint64_t read_seed(const JsonFields& fields) {
  return fields.natural("seed");
}

namespace {

std::vector<uint64_t> read_seeds(const JsonFields& fields, int64_t count, const std::string& subject) {
  const nlohmann::json& list = fields.value().at("seeds");
  if (!list.is_array() || std::ssize(list) != count ||
      !std::ranges::all_of(list, [](const nlohmann::json& seed) { return seed.is_number_unsigned(); })) {
    throw Error(subject + ": key 'seeds': expected " + std::to_string(count) + " whole numbers, one an item");
  }
  return list.get<std::vector<uint64_t>>();
}

// What is wrong with a method is said of the key, not of the flag that it was once given to.
DecoderSpec read_decoder(const JsonFields& fields, const std::string& subject) {
  const std::string text = fields.text("decoder");
  try {
    DecoderSpec spec = parse_decoder_spec(text);
    make_decoder(spec);
    transformer_for(spec);
    return spec;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) throw;
    constexpr std::string_view kFlag = "--decoder ";
    std::string_view fault = error.what();
    if (fault.starts_with(kFlag)) fault.remove_prefix(kFlag.size());
    throw Error(subject + ": key 'decoder': " + std::string(fault));
  }
}

}  // namespace

ImageRequest read_request(const JsonFields& fields, const std::string& subject) {
  ImageRequest request{.model = fields.text("model"),
                       .prompt = fields.text_or("prompt", ""),
                       .count = fields.integer("count", {1, kMaxCount}),
                       .seed = read_seed(fields),
                       .decoder = read_decoder(fields, subject),
                       .cfg = fields.number("cfg", {0.0, 1000.0}),
                       .cfg_interval = fields.integer_or("cfg_interval", -1, {-1, 1 << 20}),
                       .temperature = fields.number("temperature", {0.0, 1000.0}),
                       .top_k = fields.integer("top_k", {0, 1 << 24}),
                       .top_p = fields.number("top_p", {0.0, 1.0}),
                       .check = fields.boolean_or("check", false) ? Check::kYes : Check::kNo};
  if (fields.has("text_features")) {
    request.features_hash = fields.text("text_features");
  } else if (fields.has("class") || request.prompt.empty()) {
    request.class_name = fields.text("class");
    if (request.class_name.empty()) throw Error(subject + ": key 'class': expected a name");
    request.class_id = fields.integer("class_id", {0, 1 << 24});
  }
  if (fields.has("only")) request.only = fields.integers("only", {0, request.count - 1});
  if (std::ranges::adjacent_find(request.only, std::ranges::greater_equal{}) != request.only.end()) {
    throw Error(subject + ": key 'only': expected increasing items");
  }
  if (fields.has("seeds")) request.seeds = read_seeds(fields, request.count, subject);
  if (fields.has("edit")) {
    request.edit = read_edit(fields.object("edit"), subject + ": edit");
    if (request.decoder.name != "parallel") {
      throw Error(subject + ": key 'edit': decoder " + quote(request.decoder.name) + " cannot edit");
    }
  }
  const auto guidance = guidance_of(fields.text("guidance"));
  if (!guidance) {
    throw Error(subject + ": key 'guidance': unknown schedule " + quote(fields.text("guidance")));
  }
  request.guidance = *guidance;
  return request;
}

}  // namespace volley::image
