#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/function_ref.h"

namespace volley::text {

// A compiled regular expression. Const and shareable.
class Regex {
 public:
  // The pattern is Oniguruma's, as tokenizer.json states it. Throws Error "<subject>: ..." if it does not
  // compile.
  Regex(std::string_view pattern, const std::string& subject);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // Calls `found` with begin and end of each match, in order and without overlap; empty ones are left out.
  // A byte that is no UTF-8 is matched as U+FFFD. Throws Error when a match takes too many steps.
  void for_each_match(std::string_view text, FunctionRef<void(size_t, size_t)> found) const;

 private:
  struct Code;
  std::unique_ptr<const Code> code_;
};

// The pattern as PCRE means it: \s and \S as the property White_Space (PCRE's \s has one character more), \w
// with marks and connectors, \h as a hexadecimal digit.
std::string pcre_spelling(std::string_view pattern);

}  // namespace volley::text
