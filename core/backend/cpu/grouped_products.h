#pragma once

// Kernels that multiply rows with the groups of a packed weight (packed_weight.h).
//
// Every kernel adds an output element's products up in one fixed order, whatever rows are computed with it:
//   bf16   pairs of the depth, from first to last, segment after segment;
//   q8_0   blocks of 32: an exact integer sum, times (weight scale * row scale), added by one multiply-add.
//          All q8_0 kernels give the same bits.
//   q4_1   blocks of 32 as core/backend/q4_1.h says; all kernels give the same bits.

#include <cstdint>
#include <memory>
#include <string_view>

#include "core/backend/operations.h"

namespace volley {

// How a kernel reads its rows.
enum class RowFormat : uint8_t {
  kRoundedF32,    // f32 holding values rounded to bf16
  kBF16,          // two bytes each
  kSigned8,       // q8_0 quants
  kInterleaved16  // q8_0 quants as i16, by blocks of rows (RowBlocks): [depth / 4][rows of the block][0, 2,
                  // 1, 3]
};

constexpr int64_t row_element_bytes(RowFormat format) {
  switch (format) {
    case RowFormat::kRoundedF32:
      return 4;
    case RowFormat::kBF16:
    case RowFormat::kInterleaved16:
      return 2;
    case RowFormat::kSigned8:
      return 1;
  }
  return 0;
}

// Rows of one call at most. Memory of a row's format and its scales is readable up to a multiple of
// kRowTile rows; what is there beyond `rows` does not matter.
inline constexpr int64_t kSliceRows = 64;
inline constexpr int64_t kRowTile = 16;

// Cuts rows into blocks of at most `most`, as even as possible.
struct RowBlocks {
  RowBlocks(int64_t all, int64_t most) : rows(all), count((all + most - 1) / most) {}
  int64_t begin(int64_t block) const { return rows * block / count; }
  int64_t size(int64_t block) const { return begin(block + 1) - begin(block); }
  int64_t of(int64_t row) const { return ((row + 1) * count - 1) / rows; }  // the block of a row

  int64_t rows = 0;
  int64_t count = 0;
};
// Rows of a block of kInterleaved16, at most, and how the rows of a call are cut.
inline constexpr int64_t kInterleavedRows = 8;

// Neighbouring groups of a packed weight, as memory.
struct WeightStretch {
  const void* panels = nullptr;
  int64_t panel_bytes = 0;
  const void* scales = nullptr;
  int64_t scale_bytes = 0;
};

// out[r, c] = sum over the segments s and the depth k of a segment of x[r * row_stride + offsets[s] + k] *
// w[c, s * segment_depth + k]. A plain product has one segment; a convolution has one for each tap.
struct GroupedProductArgs {
  int64_t rows = 0;
  const void* x = nullptr;           // in the kernel's format for the weight's type
  int64_t row_stride = 0;            // elements; of kInterleaved16, a row's share of a block
  const int64_t* offsets = nullptr;  // [segments], elements
  int64_t segments = 1;
  int64_t segment_depth = 0;          // a multiple of 32
  const float* row_scales = nullptr;  // q8_0, q4_1: [depth / 32, rows]; one segment only
  const float* row_sums = nullptr;    // q4_1: [depth / 32, rows]
  int64_t scale_stride = 0;           // of these from one block of the depth to the next, >= rows
  const std::byte* panels = nullptr;  // of the first group
  const uint16_t* scales = nullptr;   // q8_0, q4_1: of the first group
  int64_t groups = 0;
  WeightStretch next;    // what the thread is likely to multiply next
  float* out = nullptr;  // [rows, groups * 16], overwritten
};

class GroupedProducts {
 public:
  virtual ~GroupedProducts() = default;
  virtual std::string_view name() const = 0;
  virtual RowFormat row_format(WeightType type) const = 0;
  // Any number of threads may call these at the same time.
  virtual void multiply_bf16(const GroupedProductArgs& args) const = 0;
  virtual void multiply_q8_0(const GroupedProductArgs& args) const = 0;
  virtual void multiply_q4_1(const GroupedProductArgs& args) const = 0;
};

// Vector kernels for any processor.
std::unique_ptr<const GroupedProducts> make_vector_products();
// AVX-512 with its bf16 and 8-bit dot products; null where the processor lacks them.
std::unique_ptr<const GroupedProducts> make_avx512_products();
// AMX tiles; null where processor or system lacks them.
std::unique_ptr<const GroupedProducts> make_amx_products();

}  // namespace volley
