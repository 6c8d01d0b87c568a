// The implementation of the stb libraries: public-domain code that is built as it comes.
#include <cstdlib>

namespace {

// The decoder grows its buffer with what a file claims to hold; no picture that is accepted needs more than
// this.
constexpr std::size_t kLargestBlock = std::size_t{1} << 29;

void* limited_malloc(std::size_t bytes) {
  return bytes > kLargestBlock ? nullptr : std::malloc(bytes);
}
void* limited_realloc(void* block, std::size_t bytes) {
  return bytes > kLargestBlock ? nullptr : std::realloc(block, bytes);
}

}  // namespace

#define STBI_MALLOC(bytes) limited_malloc(bytes)
#define STBI_REALLOC(block, bytes) limited_realloc(block, bytes)
#define STBI_FREE(block) std::free(block)
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_IMPLEMENTATION
#include "image/stb.h"
