#pragma once

#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/subword_model.h"
#include "text/tokenizer/tokenizer.h"

namespace volley::text {

// How tokens become text again.
struct DecoderRule {
  enum class Kind {
    kPlain,      // pieces as they are
    kByteLevel,  // pieces spell bytes in GPT-2's alphabet
    kMetaspace,  // the replacement becomes a space, and nothing in the first token
  } kind = Kind::kPlain;
  std::string metaspace;  // kMetaspace: the replacement
  // kMetaspace: whether encoding put one before the text.
  enum class FirstSpace { kKept, kDropped } first_space = FirstSpace::kKept;
  struct Replacement {
    std::string from, to;
  };
  std::vector<Replacement> replacements;
  enum class ByteFallback { kOff, kOn } byte_fallback = ByteFallback::kOff;
  int strip_left = 0;  // how many spaces go at the beginning of the text, if they are there
};

// The parts of a tokenizer in the order a text passes them; a vocabulary file's reader fills it in.
struct Pipeline {
  std::string subject;  // the file's name, for messages
  std::vector<AddedToken> added_tokens;
  NormalizerPtr normalizer;                      // may be null
  PreTokenizerPtr pre_tokenizer;                 // may be null: the text is one piece
  std::shared_ptr<const Vocabulary> vocabulary;  // as `model` sees it
  std::vector<std::string> pieces;               // by id, as the file spells them
  std::unique_ptr<const SubwordModel> model;
  DecoderRule decoder;
  std::vector<int32_t> prefix, suffix;  // of Frame::kWhole
  SpecialIds special_ids;
  std::string chat_template;
};

// SentencePiece vocabularies take a whole text as one word. Stages that cut it where nothing can join let the
// cache of words work.
void add_safe_cuts(const SubwordModel& model, std::vector<PreTokenizerPtr>& stages);

// Throws Error for added tokens that cannot be (empty, overlong, negative ids).
TokenizerPtr make_tokenizer(Pipeline pipeline);

}  // namespace volley::text
