#pragma once

namespace volley::test {

// Sanitized builds run tens of times slower and look for other faults: their tests take fewer samples.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace volley::test
