#include "core/backend/cpu/attention.h"

#include <algorithm>
#include <limits>

#include "core/backend/cpu/attention_kernels.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/visible_keys.h"

namespace volley {
namespace {

// A guess of one thread's time for `dots` dot products of `width` and as many weighted values.
double attention_nanoseconds(int64_t dots, int64_t width) {
  return static_cast<double>(dots) * (4.0 + static_cast<double>(width) / 8.0);
}

// Blocks of heads in which a row is shared out: more only where the rows alone would leave threads idle.
int64_t head_blocks(int64_t rows, int64_t heads, const ThreadPool& threads) {
  return std::clamp<int64_t>((4 * threads.threads() + rows - 1) / std::max<int64_t>(rows, 1), 1, heads);
}

// Some heads of one row. `head_stride`: from a query head's q and out to the next head's.
struct RowHeads {
  const float* q = nullptr;  // of head 0
  float* out = nullptr;      // of head 0
  int64_t first = 0, end = 0;
  int64_t width = 0;
  int64_t heads_per_group = 1;
  float scale = 1.0f;
  const float* keys = nullptr;  // of group 0
  const float* values = nullptr;
};

// entry_offset(i): where the i-th visible key's group 0 begins.
template <typename EntryOffset>
void attend_row(const RowHeads& row, int64_t count, ScratchPool& scratch, const EntryOffset& entry_offset) {
  const int64_t heads = row.end - row.first;
  const auto work = scratch.take(heads * (row.width * static_cast<int64_t>(sizeof(float)) + static_cast<int64_t>(sizeof(AttentionState))));
  auto* states = work.as<AttentionState>();
  auto* values = reinterpret_cast<float*>(states + heads);
  for (int64_t h = 0; h < heads; ++h) {
    states[h].values = values + h * row.width;
    begin_attention(states[h], row.width);
  }
  int64_t offsets[kKeyChunk];
  for (int64_t begin = 0; begin < count; begin += kKeyChunk) {
    const int64_t chunk = std::min(kKeyChunk, count - begin);
    for (int64_t i = 0; i < chunk; ++i) offsets[i] = entry_offset(begin + i);
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t group = (row.first + h) / row.heads_per_group;
      attend_chunk({.q = row.q + (row.first + h) * row.width,
                    .width = row.width,
                    .scale = row.scale,
                    .keys = row.keys + group * row.width,
                    .values = row.values + group * row.width,
                    .offsets = offsets,
                    .count = chunk},
                   states[h]);
    }
  }
  for (int64_t h = 0; h < heads; ++h) {
    float* out = row.out + (row.first + h) * row.width;
    if (count > 0) {
      finish_attention(states[h], row.width, out);
    } else {
      std::fill(out, out + row.width, 0.0f);
    }
  }
}

}  // namespace

void run_attention(const AttentionArgs& args, ThreadPool& threads, ScratchPool& scratch) {
  const int64_t rows = args.q.shape[0], heads = args.q.shape[1], width = args.q.shape[2];
  const int64_t groups = args.plane.keys.shape[2];
  VOLLEY_ASSERT(groups > 0 && heads % groups == 0 && args.plane.keys.shape[3] == width);
  int64_t dots = 0;
  for (int64_t r = 0; r < rows; ++r) dots += VisibleKeys(args, r).size() * heads;
  const int64_t blocks = head_blocks(rows, heads, threads);
  share_items(threads, rows * blocks, attention_nanoseconds(dots, width), [&](int64_t item) {
    const int64_t r = item / blocks, block = item % blocks;
    const VisibleKeys keys(args, r);
    if (!keys.active()) return;
    attend_row({.q = args.q.data + r * heads * width,
                .out = args.out.data + r * heads * width,
                .first = heads * block / blocks,
                .end = heads * (block + 1) / blocks,
                .width = width,
                .heads_per_group = heads / groups,
                .scale = args.scale,
                .keys = args.plane.keys.data,
                .values = args.plane.values.data},
               keys.size(), scratch, [&](int64_t i) { return keys.entry(i) * groups * width; });
  });
}

void run_attention_weights(const AttentionWeightsArgs& args, ThreadPool& threads) {
  const AttentionArgs& attention = args.attention;
  const int64_t rows = attention.q.shape[0], heads = attention.q.shape[1], width = attention.q.shape[2];
  const int64_t groups = attention.plane.keys.shape[2];
  const int64_t group = args.head / (heads / groups);
  const int64_t columns = args.out.shape[1];
  int64_t dots = 0;
  for (int64_t r = 0; r < rows; ++r) dots += VisibleKeys(attention, r).size();
  share_items(threads, rows, attention_nanoseconds(dots, width), [&](int64_t r) {
    const VisibleKeys keys(attention, r);
    if (!keys.active()) return;
    const int64_t count = keys.size();
    VOLLEY_ASSERT(count <= columns);
    float* out = args.out.data + r * columns;
    int64_t offsets[kKeyChunk];
    float maximum = -std::numeric_limits<float>::infinity();
    for (int64_t begin = 0; begin < count; begin += kKeyChunk) {
      const int64_t chunk = std::min(kKeyChunk, count - begin);
      for (int64_t i = 0; i < chunk; ++i) offsets[i] = keys.entry(begin + i) * groups * width;
      score_chunk({.q = attention.q.data + (r * heads + args.head) * width,
                   .width = width,
                   .scale = attention.scale,
                   .keys = attention.plane.keys.data + group * width,
                   .offsets = offsets,
                   .count = chunk},
                  out + begin);
    }
    for (int64_t i = 0; i < count; ++i) maximum = std::max(maximum, out[i]);
    const float sum = exponentiate(out, count, maximum);
    for (int64_t i = 0; i < count; ++i) out[i] /= sum;
    std::fill(out + count, out + columns, 0.0f);
  });
}

void run_dense_attention(const DenseAttentionArgs& args, ThreadPool& threads, ScratchPool& scratch) {
  const int64_t items = args.q.shape[0], rows = args.q.shape[1], heads = args.q.shape[2], width = args.q.shape[3];
  const int64_t blocks = head_blocks(items * rows, heads, threads);
  const double guess = attention_nanoseconds(items * rows * rows * heads, width);
  share_items(threads, items * rows * blocks, guess, [&](int64_t item) {
    const int64_t r = item / blocks, block = item % blocks;  // r: row among those of all items
    const int64_t first_row = r / rows * rows;
    attend_row({.q = args.q.data + r * heads * width,
                .out = args.out.data + r * heads * width,
                .first = heads * block / blocks,
                .end = heads * (block + 1) / blocks,
                .width = width,
                .scale = args.scale,
                .keys = args.k.data + first_row * heads * width,
                .values = args.v.data + first_row * heads * width},
               rows, scratch, [&](int64_t i) { return i * heads * width; });
  });
}

}  // namespace volley
