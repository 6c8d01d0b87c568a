// tokenizer.json: normalizer, pre_tokenizer, model, decoder, post_processor and added_tokens, each with a
// "type". The parts of it are read in tokenizer_json_parts.cpp.
#include "text/tokenizer/tokenizer_json.h"

#include <algorithm>

#include "core/io/untrusted_text.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/read_tokenizer.h"

namespace volley::text {
namespace {

using nlohmann::json;

std::vector<AddedToken> read_added_tokens(const json& file, const std::string& subject) {
  std::vector<AddedToken> added;
  const auto list = file.find("added_tokens");
  if (list == file.end() || list->is_null()) return added;
  if (!list->is_array()) throw Error(subject + ": added_tokens: expected a list");
  for (const json& item : *list) {
    const JsonFields fields(item, subject + ": added_tokens");
    AddedToken token{.id = static_cast<int32_t>(fields.integer("id", {0, kMaxVocabulary - 1})),
                     .content = fields.text("content"),
                     .is_special = fields.boolean_or("special", false),
                     .single_word = fields.boolean_or("single_word", false),
                     .lstrip = fields.boolean_or("lstrip", false),
                     .rstrip = fields.boolean_or("rstrip", false),
                     .normalized = fields.boolean_or("normalized", false)};
    added.push_back(std::move(token));
  }
  return added;
}

// Pieces by id out of {"piece": id}.
std::vector<std::string> read_vocabulary(const json& model, const std::string& subject) {
  const auto found = model.find("vocab");
  if (found == model.end() || !found->is_object()) {
    throw Error(subject + ": model: key 'vocab': expected an object");
  }
  std::vector<std::string> pieces;
  for (const auto& [piece, value] : found->items()) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 || value.get<int64_t>() >= kMaxVocabulary) {
      throw Error(subject + ": model: id of " + quote(piece) + ": expected an integer below " +
                  std::to_string(kMaxVocabulary));
    }
    if (piece.size() > kMaxTokenBytes) {
      throw Error(subject + ": model: a token of " + std::to_string(piece.size()) + " bytes, the limit is " +
                  std::to_string(kMaxTokenBytes));
    }
    const auto id = value.get<size_t>();
    if (id >= pieces.size()) pieces.resize(id + 1);
    if (!pieces[id].empty()) {
      throw Error(subject + ": model: tokens " + quote(pieces[id]) + " and " + quote(piece) +
                  " have the same id " + std::to_string(id));
    }
    pieces[id] = piece;
  }
  return pieces;
}

// "left right" or ["left", "right"].
std::pair<std::string_view, std::string_view> read_merge(const json& merge, const std::string& subject) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>()};
  }
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  throw Error(subject + ": model: merges: expected two tokens, found " + printable(merge.dump(), 60));
}

void read_bpe(const json& file, Pipeline& pipeline, Units units) {
  const std::string& subject = pipeline.subject;
  const JsonFields model(file.at("model"), subject + ": model");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.text_or(key, "").empty()) throw Error(subject + ": model: " + key + " is not supported");
  }
  if (model.has("dropout") && model.number("dropout") != 0) {
    throw Error(subject + ": model: dropout is not supported");
  }
  pipeline.pieces = read_vocabulary(model.value(), subject);
  const Vocabulary spelled(pipeline.pieces);
  if (units == Units::kBytes) {
    // Tokens that are no spelling of bytes are never reached by merging.
    std::vector<std::string> bytes(pipeline.pieces.size());
    for (size_t id = 0; id < bytes.size(); ++id) {
      if (!unspell_bytes(pipeline.pieces[id], bytes[id])) bytes[id].clear();
    }
    pipeline.vocabulary = std::make_shared<const Vocabulary>(bytes);
  } else {
    pipeline.vocabulary = std::make_shared<const Vocabulary>(spelled);
  }
  BpeModel bpe{.vocabulary = pipeline.vocabulary};
  const auto merges = model.value().find("merges");
  if (merges == model.value().end() || !merges->is_array()) {
    throw Error(subject + ": model: key 'merges': expected a list");
  }
  std::string joined;
  for (const json& item : *merges) {
    const auto [left, right] = read_merge(item, subject);
    joined.assign(left).append(right);
    const auto id_of = [&](std::string_view token) {
      const int32_t id = spelled.find(token);
      if (id < 0) {
        throw Error(subject + ": model: merge " + std::to_string(bpe.merges.size()) + ": token " +
                    quote(token) + " is not in the vocabulary");
      }
      return id;
    };
    const auto rank = static_cast<uint32_t>(bpe.merges.size());
    bpe.merges.push_back({id_of(left), id_of(right), {rank, id_of(joined)}});
  }
  const auto on = [&](const char* key) { return model.boolean_or(key, false); };
  bpe.units = units == Units::kBytes ? BpeModel::Units::kBytes : BpeModel::Units::kCharacters;
  if (on("ignore_merges")) bpe.whole_words = BpeModel::WholeWords::kTaken;
  if (on("byte_fallback")) bpe.byte_fallback = BpeModel::ByteFallback::kOn;
  if (on("fuse_unk")) bpe.fuse_unknown = BpeModel::FuseUnknown::kOn;
  if (model.has("unk_token")) {
    const std::string unk = model.text("unk_token");
    bpe.unk = spelled.find(unk);
    if (bpe.unk < 0) throw Error(subject + ": model: unk_token " + quote(unk) + " is not in the vocabulary");
    pipeline.special_ids.unk = bpe.unk;
  }
  pipeline.model = make_bpe(std::move(bpe));
}

void read_unigram(const json& file, Pipeline& pipeline) {
  const std::string& subject = pipeline.subject;
  const JsonFields model(file.at("model"), subject + ": model");
  const auto list = model.value().find("vocab");
  if (list == model.value().end() || !list->is_array()) {
    throw Error(subject + ": model: key 'vocab': expected a list");
  }
  if (std::ssize(*list) >= kMaxVocabulary) throw Error(subject + ": model: too many tokens");
  UnigramModel unigram;
  for (const json& item : *list) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_number()) {
      throw Error(subject + ": model: vocab: expected a token and its score, found " +
                  printable(item.dump(), 60));
    }
    pipeline.pieces.push_back(item[0].get<std::string>());
    if (pipeline.pieces.back().size() > kMaxTokenBytes) throw Error(subject + ": model: token too long");
    unigram.scores.push_back(item[1].get<double>());
  }
  if (unigram.scores.empty()) throw Error(subject + ": model: vocab is empty");
  pipeline.vocabulary = std::make_shared<const Vocabulary>(pipeline.pieces);
  unigram.vocabulary = pipeline.vocabulary;
  // Ten below the worst token, as in SentencePiece.
  unigram.unknown_score = *std::min_element(unigram.scores.begin(), unigram.scores.end()) - 10.0;
  if (model.has("unk_id")) {
    unigram.unk = static_cast<int32_t>(model.integer("unk_id", {0, std::ssize(pipeline.pieces) - 1}));
    pipeline.special_ids.unk = unigram.unk;
  }
  if (model.boolean_or("byte_fallback", false)) unigram.byte_fallback = UnigramModel::ByteFallback::kOn;
  pipeline.model = make_unigram(std::move(unigram), subject);
}

}  // namespace

TokenizerPtr parse_tokenizer_json(std::string_view text, const json& config, const std::string& subject) {
  const json file = parse_json(text).value_or_throw(subject);
  const JsonFields fields(file, subject);
  Pipeline pipeline{.subject = subject};
  pipeline.added_tokens = read_added_tokens(file, subject);
  const auto part = [&](const char* key) {
    const auto found = file.find(key);
    return found == file.end() ? json() : *found;
  };
  pipeline.normalizer = read_normalizer(part("normalizer"), subject + ": normalizer");
  PreTokenizerParts split = read_pre_tokenizer(part("pre_tokenizer"), subject + ": pre_tokenizer");
  const std::string type = fields.object("model").text_or("type", "BPE");
  if (type == "BPE") {
    read_bpe(file, pipeline, split.units);
  } else if (type == "Unigram" && split.units == Units::kCharacters) {
    read_unigram(file, pipeline);
  } else {
    throw Error(subject + ": model: type " + quote(type) +
                (type == "Unigram" ? " over bytes is not supported" : ": expected BPE or Unigram"));
  }
  if (split.units == Units::kCharacters) add_safe_cuts(*pipeline.model, split.stages);
  if (!split.stages.empty()) pipeline.pre_tokenizer = make_sequence(std::move(split.stages));
  pipeline.decoder = read_decoder(part("decoder"), subject + ": decoder");
  const FrameParts frame = read_post_processor(part("post_processor"), subject + ": post_processor");
  pipeline.prefix = frame.prefix;
  pipeline.suffix = frame.suffix;
  read_tokenizer_config(config, subject, pipeline);
  return make_tokenizer(std::move(pipeline));
}

}  // namespace volley::text
