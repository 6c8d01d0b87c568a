#include <algorithm>

#include "core/io/untrusted_text.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/read_tokenizer.h"

namespace volley::text {
namespace {

constexpr const char* kMark = "\xe2\x96\x81";  // U+2581, an escaped space

void check_lengths(const TokenizerArrays& arrays, const std::string& subject) {
  const auto check = [&](size_t count, const char* name) {
    if (count != arrays.tokens.size()) {
      throw Error(subject + ": " + std::to_string(count) + " " + name + " for " +
                  std::to_string(arrays.tokens.size()) + " tokens");
    }
  };
  if (arrays.tokens.empty()) throw Error(subject + ": no tokens");
  if (std::ssize(arrays.tokens) >= kMaxVocabulary) throw Error(subject + ": too many tokens");
  if (!arrays.types.empty()) check(arrays.types.size(), "token types");
  if (arrays.model == "llama") check(arrays.scores.size(), "scores");
  for (const std::string& token : arrays.tokens) {
    if (token.size() > kMaxTokenBytes)
      throw Error(subject + ": a token of " + std::to_string(token.size()) + " bytes");
  }
  const SpecialIds& ids = arrays.special_ids;
  for (const int32_t id : {ids.bos, ids.eos, ids.unk, ids.pad}) {
    if (id < -1 || id >= std::ssize(arrays.tokens)) {
      throw Error(subject + ": special token id " + std::to_string(id) + " is outside of the vocabulary");
    }
  }
}

int32_t type_of(const TokenizerArrays& arrays, size_t id) {
  return arrays.types.empty() ? TokenizerArrays::kNormal : arrays.types[id];
}

void add_marked_tokens(const TokenizerArrays& arrays, Pipeline& pipeline) {
  for (size_t id = 0; id < arrays.tokens.size(); ++id) {
    const int32_t type = type_of(arrays, id);
    const bool is_control = type == TokenizerArrays::kControl;
    if ((!is_control && type != TokenizerArrays::kUserDefined) || arrays.tokens[id].empty()) continue;
    pipeline.added_tokens.push_back(
        {.id = static_cast<int32_t>(id), .content = arrays.tokens[id], .is_special = is_control});
  }
}

void make_byte_level(const TokenizerArrays& arrays, Pipeline& pipeline) {
  const std::string& subject = pipeline.subject;
  std::vector<std::string> bytes(arrays.tokens.size());
  for (size_t id = 0; id < bytes.size(); ++id) {
    if (!unspell_bytes(arrays.tokens[id], bytes[id])) bytes[id].clear();
  }
  const Vocabulary spelled(arrays.tokens);
  pipeline.vocabulary = std::make_shared<const Vocabulary>(bytes);
  BpeModel bpe{.vocabulary = pipeline.vocabulary};
  for (const std::string& merge : arrays.merges) {
    // A token may itself be a space in no published vocabulary: the first one separates.
    const size_t space = merge.find(' ', 1);
    const auto id_of = [&](const std::string& token) {
      const int32_t id = spelled.find(token);
      if (id < 0) {
        throw Error(subject + ": merge " + std::to_string(bpe.merges.size()) + ": token " + quote(token) +
                    " is not in the vocabulary");
      }
      return id;
    };
    if (space == merge.npos) throw Error(subject + ": merge " + quote(merge) + ": expected two tokens");
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const auto rank = static_cast<uint32_t>(bpe.merges.size());
    bpe.merges.push_back({id_of(left), id_of(right), {rank, id_of(left + right)}});
  }
  const std::string& pre = arrays.pre;
  std::vector<PreTokenizerPtr> stages;
  if (pre.empty() || pre == "default" || pre == "gpt-2") {
    stages.push_back(make_scanner(SplitPattern::kGpt2));
  } else if (pre == "smollm") {
    stages.push_back(make_digit_split(DigitRuns::kSingle));
    stages.push_back(make_scanner(SplitPattern::kGpt2));
  } else if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3") {
    stages.push_back(make_scanner(SplitPattern::kLlama3));
    bpe.whole_words = BpeModel::WholeWords::kTaken;
  } else if (pre == "qwen2") {
    pipeline.normalizer = make_normal_form(NormalForm::kNfc);
    stages.push_back(make_scanner(SplitPattern::kQwen2));
  } else {
    throw Error(subject + ": tokenizer.ggml.pre " + quote(pre) +
                ": expected default, gpt-2, llama-bpe, qwen2 or smollm");
  }
  pipeline.pre_tokenizer = make_sequence(std::move(stages));
  pipeline.model = make_bpe(std::move(bpe));
  pipeline.decoder.kind = DecoderRule::Kind::kByteLevel;
}

void make_scored(const TokenizerArrays& arrays, Pipeline& pipeline) {
  pipeline.vocabulary = std::make_shared<const Vocabulary>(arrays.tokens);
  std::vector<bool> is_usable(arrays.tokens.size());
  for (size_t id = 0; id < is_usable.size(); ++id) {
    is_usable[id] = type_of(arrays, id) == TokenizerArrays::kNormal && !arrays.tokens[id].empty();
  }
  BpeModel bpe{.vocabulary = pipeline.vocabulary,
               .merges = merges_of_scores(*pipeline.vocabulary, arrays.scores, is_usable),
               .units = BpeModel::Units::kCharacters,
               .byte_fallback = BpeModel::ByteFallback::kOn,
               .fuse_unknown = BpeModel::FuseUnknown::kOn,
               .unk = arrays.special_ids.unk};
  pipeline.model = make_bpe(std::move(bpe));
  const bool adds_space = arrays.add_space_prefix.value_or(true);
  std::vector<PreTokenizerPtr> stages;
  stages.push_back(make_metaspace(
      {.prepend = adds_space ? MetaspaceRule::Prepend::kAlways : MetaspaceRule::Prepend::kNever,
       .existing = MetaspaceRule::Existing::kIgnored,
       .cut = MetaspaceRule::Cut::kNone}));
  add_safe_cuts(*pipeline.model, stages);
  pipeline.pre_tokenizer = make_sequence(std::move(stages));
  pipeline.decoder.replacements.push_back({kMark, " "});
  pipeline.decoder.byte_fallback = DecoderRule::ByteFallback::kOn;
  if (adds_space) pipeline.decoder.strip_left = 1;
}

}  // namespace

TokenizerPtr make_tokenizer(const TokenizerArrays& arrays, const std::string& subject) {
  check_lengths(arrays, subject);
  Pipeline pipeline{.subject = subject,
                    .pieces = arrays.tokens,
                    .special_ids = arrays.special_ids,
                    .chat_template = arrays.chat_template};
  add_marked_tokens(arrays, pipeline);
  if (arrays.model == "gpt2") {
    make_byte_level(arrays, pipeline);
  } else if (arrays.model == "llama") {
    make_scored(arrays, pipeline);
  } else {
    throw Error(subject + ": tokenizer.ggml.model " + quote(arrays.model) + ": expected gpt2 or llama");
  }
  const auto frame = [&](std::optional<bool> is_wanted, bool by_default, int32_t id, const char* name,
                         std::vector<int32_t>& ids) {
    if (!is_wanted.value_or(by_default && id >= 0)) return;
    if (id < 0)
      throw Error(subject + ": a text is to have a token " + std::string(name) + ", and none is named");
    ids.push_back(id);
  };
  frame(arrays.add_bos, arrays.model == "llama", arrays.special_ids.bos, "bos", pipeline.prefix);
  frame(arrays.add_eos, false, arrays.special_ids.eos, "eos", pipeline.suffix);
  return make_tokenizer(std::move(pipeline));
}

}  // namespace volley::text
