#include <algorithm>

#include "core/io/untrusted_text.h"
#include "text/tokenizer/tokenizer_json.h"

namespace volley::text {
namespace {

using nlohmann::json;

// The items of a Sequence.
const json& items(const JsonFields& fields, const char* key, const std::string& subject) {
  const auto found = fields.value().find(key);
  if (found == fields.value().end() || !found->is_array()) {
    throw Error(subject + ": key '" + key + "': expected a list");
  }
  return *found;
}

// {"String": "x"} or {"Regex": "x"}
struct PatternText {
  std::string text;
  SplitRule::Kind kind = SplitRule::Kind::kRegex;
};

PatternText read_pattern(const JsonFields& fields, const std::string& subject) {
  const JsonFields pattern = fields.object("pattern");
  if (pattern.has("Regex")) return {pattern.text("Regex"), SplitRule::Kind::kRegex};
  if (pattern.has("String")) return {pattern.text("String"), SplitRule::Kind::kLiteral};
  throw Error(subject + ": pattern: expected String or Regex");
}

SplitBehavior read_behavior(const JsonFields& fields, const std::string& subject) {
  const std::string name = fields.text("behavior");
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  throw Error(subject + ": behavior " + quote(name) + " is not known");
}

// "prepend_scheme", or "add_prefix_space" of older files.
MetaspaceRule::Prepend read_prepend(const JsonFields& fields, const std::string& subject) {
  if (!fields.has("prepend_scheme")) {
    return fields.boolean_or("add_prefix_space", true) ? MetaspaceRule::Prepend::kAlways
                                                       : MetaspaceRule::Prepend::kNever;
  }
  const std::string scheme = fields.text("prepend_scheme");
  if (scheme == "always") return MetaspaceRule::Prepend::kAlways;
  if (scheme == "first") return MetaspaceRule::Prepend::kFirst;
  if (scheme == "never") return MetaspaceRule::Prepend::kNever;
  throw Error(subject + ": prepend_scheme " + quote(scheme) + " is not known");
}

std::string read_replacement(const JsonFields& fields, const std::string& subject) {
  std::string replacement = fields.text_or("replacement", "\xe2\x96\x81");
  // One character in every published file.
  if (replacement.empty() || replacement.size() > 16) {
    throw Error(subject + ": replacement " + quote(replacement) + ": expected one character");
  }
  return replacement;
}

void add_normalizers(const json& value, const std::string& subject, std::vector<NormalizerPtr>& stages) {
  const JsonFields fields(value, subject);
  const std::string type = fields.text("type");
  const std::string here = subject + ": " + type;
  if (type == "Sequence") {
    for (const json& item : items(fields, "normalizers", here)) add_normalizers(item, here, stages);
  } else if (type == "NFC") {
    stages.push_back(make_normal_form(NormalForm::kNfc));
  } else if (type == "NFD") {
    stages.push_back(make_normal_form(NormalForm::kNfd));
  } else if (type == "NFKC") {
    stages.push_back(make_normal_form(NormalForm::kNfkc));
  } else if (type == "NFKD") {
    stages.push_back(make_normal_form(NormalForm::kNfkd));
  } else if (type == "Lowercase") {
    stages.push_back(make_lowercase());
  } else if (type == "StripAccents") {
    stages.push_back(make_strip_accents());
  } else if (type == "Strip") {
    const bool left = fields.boolean_or("strip_left", true);
    const bool right = fields.boolean_or("strip_right", true);
    stages.push_back(make_strip(left && right ? StripEnds::kBoth
                                : left        ? StripEnds::kLeft
                                : right       ? StripEnds::kRight
                                              : StripEnds::kNone));
  } else if (type == "Prepend") {
    stages.push_back(make_prepend(fields.text("prepend")));
  } else if (type == "Replace") {
    const PatternText pattern = read_pattern(fields, here);
    std::string content = fields.text("content");
    stages.push_back(pattern.kind == SplitRule::Kind::kRegex
                         ? make_regex_replace(pattern.text, std::move(content), here)
                         : make_replace(pattern.text, std::move(content)));
  } else if (type == "Precompiled") {
    const std::string table = decode_base64(fields.text("precompiled_charsmap")).value_or_throw(here);
    stages.push_back(make_charsmap(table, CharsmapRule::kGraphemes).value_or_throw(here));
  } else {
    throw Error(subject + ": type " + quote(type) + " is not supported");
  }
}

void add_pre_tokenizers(const json& value, const std::string& subject, PreTokenizerParts& parts) {
  const JsonFields fields(value, subject);
  const std::string type = fields.text("type");
  const std::string here = subject + ": " + type;
  if (type == "Sequence") {
    for (const json& item : items(fields, "pretokenizers", here)) add_pre_tokenizers(item, here, parts);
    return;
  }
  if (parts.units == Units::kBytes) throw Error(here + " behind ByteLevel is not supported");
  if (type == "ByteLevel") {
    if (fields.boolean_or("add_prefix_space", true)) parts.stages.push_back(make_prefix_space());
    if (fields.boolean_or("use_regex", true)) parts.stages.push_back(make_scanner(SplitPattern::kGpt2));
    parts.units = Units::kBytes;
  } else if (type == "Split") {
    PatternText pattern = read_pattern(fields, here);
    const bool inverted = fields.boolean_or("invert", false);
    parts.stages.push_back(
        make_split({.pattern = std::move(pattern.text),
                    .kind = pattern.kind,
                    .behavior = read_behavior(fields, here),
                    .matches = inverted ? SplitRule::Matches::kInverted : SplitRule::Matches::kAsFound},
                   here));
  } else if (type == "Digits") {
    parts.stages.push_back(make_digit_split(
        fields.boolean_or("individual_digits", false) ? DigitRuns::kSingle : DigitRuns::kRuns));
  } else if (type == "WhitespaceSplit") {
    parts.stages.push_back(make_whitespace_split());
  } else if (type == "Whitespace") {
    parts.stages.push_back(make_split({.pattern = R"(\w+|[^\w\s]+)",
                                       .behavior = SplitBehavior::kRemoved,
                                       .matches = SplitRule::Matches::kInverted},
                                      here));
  } else if (type == "Metaspace") {
    parts.stages.push_back(make_metaspace(
        {.replacement = read_replacement(fields, here),
         .prepend = read_prepend(fields, here),
         .cut = fields.boolean_or("split", true) ? MetaspaceRule::Cut::kWords : MetaspaceRule::Cut::kNone}));
  } else {
    throw Error(subject + ": type " + quote(type) + " is not supported");
  }
}

// Whether the tokens seen by the next decoder are one text already.
enum class Fused { kNo, kYes };

Fused add_decoder(const json& value, const std::string& subject, Fused fused, DecoderRule& rule) {
  const JsonFields fields(value, subject);
  const std::string type = fields.text("type");
  const std::string here = subject + ": " + type;
  const bool is_plain = rule.kind == DecoderRule::Kind::kPlain;
  const bool is_untouched = is_plain && rule.replacements.empty() &&
                            rule.byte_fallback == DecoderRule::ByteFallback::kOff && rule.strip_left == 0;
  const auto refuse = [&] { throw Error(here + " at this place of the sequence is not supported"); };
  if (type == "Sequence") {
    for (const json& item : items(fields, "decoders", here)) fused = add_decoder(item, here, fused, rule);
  } else if (type == "ByteLevel") {
    if (!is_untouched || fused == Fused::kYes) refuse();
    rule.kind = DecoderRule::Kind::kByteLevel;
  } else if (type == "Metaspace") {
    if (!is_untouched || fused == Fused::kYes) refuse();
    rule.kind = DecoderRule::Kind::kMetaspace;
    rule.metaspace = read_replacement(fields, here);
    if (read_prepend(fields, here) != MetaspaceRule::Prepend::kNever) {
      rule.first_space = DecoderRule::FirstSpace::kDropped;
    }
  } else if (type == "Replace") {
    const PatternText pattern = read_pattern(fields, here);
    if (pattern.kind == SplitRule::Kind::kRegex)
      throw Error(here + ": a regular expression is not supported");
    if (!is_plain || fused == Fused::kYes || rule.byte_fallback == DecoderRule::ByteFallback::kOn) refuse();
    rule.replacements.push_back({pattern.text, fields.text("content")});
  } else if (type == "ByteFallback") {
    if (!is_plain || fused == Fused::kYes) refuse();
    rule.byte_fallback = DecoderRule::ByteFallback::kOn;
  } else if (type == "Fuse") {
    return Fused::kYes;
  } else if (type == "Strip") {
    const auto start = static_cast<int>(fields.integer_or("start", 0, {0, 1024}));
    const bool has_stop = fields.integer_or("stop", 0) != 0;
    if (has_stop || (start > 0 && fields.text("content") != " ")) {
      throw Error(here + ": only spaces at the beginning are supported");
    }
    if (start > 0 && fused == Fused::kNo) refuse();
    rule.strip_left += start;
  } else {
    throw Error(subject + ": type " + quote(type) + " is not supported");
  }
  return fused;
}

int32_t read_id(const json& value, const std::string& subject) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= kMaxVocabulary) {
    throw Error(subject + ": expected a token id, found " + printable(value.dump(), 40));
  }
  return value.get<int32_t>();
}

void add_template(const JsonFields& fields, const std::string& subject, FrameParts& frame) {
  const json known = fields.has("special_tokens") ? fields.object("special_tokens").value() : json::object();
  bool is_behind = false;
  for (const json& item : items(fields, "single", subject)) {
    const JsonFields part(item, subject + ": single");
    if (part.has("Sequence")) {
      if (is_behind) throw Error(subject + ": single: the text twice is not supported");
      is_behind = true;
      continue;
    }
    const std::string name = part.object("SpecialToken").text("id");
    const auto token = known.find(name);
    if (token == known.end()) throw Error(subject + ": special token " + quote(name) + " is not described");
    const json& ids = items(JsonFields(*token, subject), "ids", subject + ": " + quote(name));
    for (const json& id : ids) (is_behind ? frame.suffix : frame.prefix).push_back(read_id(id, subject));
  }
}

void add_post_processor(const json& value, const std::string& subject, FrameParts& frame) {
  const JsonFields fields(value, subject);
  const std::string type = fields.text("type");
  const std::string here = subject + ": " + type;
  if (type == "Sequence") {
    for (const json& item : items(fields, "processors", here)) add_post_processor(item, here, frame);
  } else if (type == "ByteLevel") {
    // Only offsets into the text change, which nobody here asks for.
  } else if (type == "TemplateProcessing") {
    FrameParts inner;
    add_template(fields, here, inner);
    frame.prefix.insert(frame.prefix.begin(), inner.prefix.begin(), inner.prefix.end());
    frame.suffix.insert(frame.suffix.end(), inner.suffix.begin(), inner.suffix.end());
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    const auto token = [&](const char* key) {
      const auto found = fields.value().find(key);
      if (found == fields.value().end() || !found->is_array() || found->size() != 2) {
        throw Error(here + ": key '" + key + "': expected a token and its id");
      }
      return read_id((*found)[1], here + ": " + key);
    };
    frame.prefix.insert(frame.prefix.begin(), token("cls"));
    frame.suffix.push_back(token("sep"));
  } else {
    throw Error(subject + ": type " + quote(type) + " is not supported");
  }
}

}  // namespace

NormalizerPtr read_normalizer(const json& value, const std::string& subject) {
  if (value.is_null()) return nullptr;
  std::vector<NormalizerPtr> stages;
  add_normalizers(value, subject, stages);
  return stages.empty() ? nullptr : make_normalizer_sequence(std::move(stages));
}

PreTokenizerParts read_pre_tokenizer(const json& value, const std::string& subject) {
  PreTokenizerParts parts;
  if (!value.is_null()) add_pre_tokenizers(value, subject, parts);
  return parts;
}

DecoderRule read_decoder(const json& value, const std::string& subject) {
  DecoderRule rule;
  if (!value.is_null()) add_decoder(value, subject, Fused::kNo, rule);
  return rule;
}

FrameParts read_post_processor(const json& value, const std::string& subject) {
  FrameParts frame;
  if (!value.is_null()) add_post_processor(value, subject, frame);
  return frame;
}

void read_tokenizer_config(const json& config, const std::string& subject, Pipeline& pipeline) {
  if (!config.is_object()) return;
  const auto id_of = [&](const char* key) {
    const auto found = config.find(key);
    if (found == config.end()) return -1;
    std::string content;
    if (found->is_string()) content = found->get<std::string>();
    if (found->is_object()) content = JsonFields(*found, subject + ": " + key).text_or("content", "");
    if (content.empty()) return -1;
    for (const AddedToken& token : pipeline.added_tokens) {
      if (token.content == content) return token.id;
    }
    const auto piece = std::find(pipeline.pieces.begin(), pipeline.pieces.end(), content);
    return piece == pipeline.pieces.end() ? -1 : static_cast<int>(piece - pipeline.pieces.begin());
  };
  const auto set = [&](int32_t& id, const char* key) {
    if (const int32_t found = id_of(key); found >= 0) id = found;
  };
  set(pipeline.special_ids.bos, "bos_token");
  set(pipeline.special_ids.eos, "eos_token");
  set(pipeline.special_ids.unk, "unk_token");
  set(pipeline.special_ids.pad, "pad_token");
  // One template, or named ones of which "default" is for chats.
  const auto chat = config.find("chat_template");
  if (chat == config.end()) return;
  if (chat->is_string()) pipeline.chat_template = chat->get<std::string>();
  if (!chat->is_array()) return;
  for (const json& item : *chat) {
    const JsonFields fields(item, subject + ": chat_template");
    if (fields.text_or("name", "") == "default") pipeline.chat_template = fields.text("template");
  }
}

Result<std::string> decode_base64(std::string_view text) {
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (digit < 0) return Fault{"not base64"};
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes += static_cast<char>(bits >> count & 0xff);
    }
  }
  return bytes;
}

}  // namespace volley::text
