#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace volley::text {

// Tokens that a vocabulary gives a meaning of its own; -1: it has none.
struct SpecialIds {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t unk = -1;
  int32_t pad = -1;
};

// What the spelling of a special token ("<|im_end|>") means within a text.
enum class SpecialText {
  kToken,  // the token, as for rendered chat templates
  kPlain,  // nothing: its characters are encoded like any others, as for what a user typed
};

// Whether encode adds what the vocabulary puts around a whole text (<s>, </s>, [CLS], ...).
enum class Frame { kNone, kWhole };

struct EncodeOptions {
  SpecialText special_text = SpecialText::kToken;
  Frame frame = Frame::kNone;
};

enum class DecodeSpecials { kKeep, kSkip };

// Some vocabularies drop a space at the beginning of a text: how far a decoding is past it.
struct DecodeState {
  bool is_first = true;  // no token yet
  int spaces = 0;        // that are still dropped if they come next
};

// Text <-> token ids. Immutable: one tokenizer serves any number of threads.
//
// A text is any bytes. A byte that belongs to no well-formed UTF-8 character counts as a character of its
// own that is neither letter, number nor space. Vocabularies with a token for every byte (byte-level BPE,
// byte fallback) encode it without loss; the others give the unknown token.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Throws Error for texts of 1 GiB and more.
  virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;

  // The bytes that ids spell; ids outside [0, vocab_size) and holes of the vocabulary spell nothing.
  // Bytes of several tokens may form one character: a prefix of ids can end within one (StreamingDecoder).
  virtual std::string decode(const std::vector<int32_t>& ids,
                             DecodeSpecials specials = DecodeSpecials::kSkip) const = 0;

  virtual int32_t vocab_size() const = 0;  // one more than the largest id
  virtual const SpecialIds& special_ids() const = 0;
  virtual bool is_special(int32_t id) const = 0;

  // A token as its file spells it ("Ġthe", "▁the", "<0x0A>"); empty where there is none.
  virtual std::string piece(int32_t id) const = 0;
  // The bytes a token stands for behind others (" the").
  virtual std::string_view token_bytes(int32_t id) const = 0;
  // The bytes of the next token of a text that is decoded token by token; `state` starts as
  // begin_text().
  virtual DecodeState begin_text() const = 0;
  virtual std::string_view next_bytes(int32_t id, DecodeState& state) const = 0;
  // The id of a token spelled as in its file, or -1.
  virtual int32_t find(std::string_view piece) const = 0;

  // The Jinja source of the chat template that came with the vocabulary; empty: none did.
  virtual const std::string& chat_template() const = 0;
};

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

}  // namespace volley::text
