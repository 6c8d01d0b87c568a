#include "core/backend/cpu/attention.h"

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "core/backend/cpu/attention_kernels.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/visible_keys.h"

namespace volley {
namespace {

// A guess of one thread's time for `dots` dot products of `width` and as many weighted values.
double attention_nanoseconds(int64_t dots, int64_t width) {
  return static_cast<double>(dots) * (4.0 + static_cast<double>(width) / 8.0);
}

// Blocks of heads in which rows are shared out: more only where the rows alone would leave threads idle.
int64_t head_blocks(int64_t row_blocks, int64_t heads, const ThreadPool& threads) {
  const int64_t blocks = (4 * threads.threads() + row_blocks - 1) / std::max<int64_t>(row_blocks, 1);
  return std::clamp<int64_t>(blocks, 1, heads);
}

// Rows that are computed together, head by head: those that see the same keys find them in the cache.
constexpr int64_t kRowBlock = 8;

// Heads [first, end) of a row. Offsets are those of the visible keys' vectors of group 0.
struct RowHeads {
  const float* q = nullptr;  // of head 0
  float* out = nullptr;      // of head 0
  const int64_t* offsets = nullptr;
  int64_t count = 0;
};
struct HeadsArgs {
  std::span<const RowHeads> rows;
  int64_t first = 0, end = 0;
  int64_t width = 0;
  int64_t heads_per_group = 1;
  int64_t group_stride = 0;
  float scale = 1.0f;
  const float* keys = nullptr;  // of group 0
  const float* values = nullptr;
  float* work = nullptr;  // [width]
};

// Whether a head is its group's first or last of those that are computed together.
struct GroupPlace {
  bool is_first = false;
  bool is_last = false;
};

void attend_head(const HeadsArgs& args, const RowHeads& row, int64_t head, const GroupPlace& place) {
  float* out = row.out + head * args.width;
  if (row.count == 0) {
    std::fill(out, out + args.width, 0.0f);
    return;
  }
  const int64_t group = head / args.heads_per_group * args.group_stride;
  AttentionState state{.values = args.work};
  begin_attention(state, args.width);
  for (int64_t begin = 0; begin < row.count; begin += kKeyChunk) {
    attend_chunk({.q = row.q + head * args.width,
                  .width = args.width,
                  .scale = args.scale,
                  .keys = args.keys + group,
                  .values = args.values + group,
                  .offsets = row.offsets + begin,
                  .count = std::min(kKeyChunk, row.count - begin),
                  .asks_for_values = place.is_first,
                  .next_keys = place.is_last && head + 1 < args.end ? args.group_stride : 0},
                 state);
  }
  finish_attention(state, args.width, out);
}

void attend_heads(const HeadsArgs& args) {
  for (int64_t head = args.first; head < args.end; ++head) {
    const RowHeads* before = nullptr;
    for (const RowHeads& row : args.rows) {
      // Rows of one sequence follow each other, and the later ones find its keys in the cache.
      const bool is_new =
          before == nullptr || row.count == 0 || before->count == 0 || row.offsets[0] != before->offsets[0];
      attend_head(args, row, head,
                  {.is_first = is_new && (head == args.first || head % args.heads_per_group == 0),
                   .is_last = is_new && (head + 1) % args.heads_per_group == 0});
      before = &row;
    }
  }
}

// Of a block of rows that see so many keys: a row of values, and where the keys lie.
int64_t attention_work_bytes(int64_t width, int64_t block_keys) {
  return width * 4 + block_keys * 8;
}
int64_t dense_attention_work_bytes(const DenseAttentionArgs& args) {
  return args.q.shape[3] * 4 + args.q.shape[1] * 8;
}

}  // namespace

void reserve_attention(const AttentionArgs& args, int64_t threads, ScratchPool& scratch) {
  const int64_t rows = args.q.shape[0], width = args.q.shape[2];
  const int64_t most_keys = args.cache.block_table.shape[1] * kPageSize;  // of a row
  ScratchPool::ThreadLease(scratch, threads,
                           attention_work_bytes(width, std::min(kRowBlock, rows) * most_keys));
}
void reserve_dense_attention(const DenseAttentionArgs& args, int64_t threads, ScratchPool& scratch) {
  ScratchPool::ThreadLease(scratch, threads, dense_attention_work_bytes(args));
}

void run_attention(const AttentionArgs& args, ThreadPool& threads, ScratchPool& scratch) {
  const int64_t rows = args.q.shape[0], heads = args.q.shape[1], width = args.q.shape[2];
  const PlaneLayout layout(args.plane);
  VOLLEY_ASSERT(layout.groups > 0 && heads % layout.groups == 0 && layout.width == width);
  int64_t keys = 0, block_keys = 0;  // of all rows, of a block's at most
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t count = VisibleKeys(args, r).size();
    keys += count;
    block_keys = std::max(block_keys, std::min(kRowBlock, rows) * count);
  }
  const ScratchPool::ThreadLease work(scratch, threads.threads(), attention_work_bytes(width, block_keys));
  const int64_t row_blocks = (rows + kRowBlock - 1) / kRowBlock,
                blocks = head_blocks(row_blocks, heads, threads);
  const double guess = attention_nanoseconds(keys * heads, width);
  share_items(threads, row_blocks * blocks, guess, [&](int64_t item, int64_t thread) {
    const int64_t first_row = item / blocks * kRowBlock, block = item % blocks;
    const int64_t end_row = std::min(rows, first_row + kRowBlock);
    auto* offsets = work.of<int64_t>(thread);
    auto* values = reinterpret_cast<float*>(offsets + block_keys);
    std::array<RowHeads, kRowBlock> row_heads;
    size_t active = 0;
    for (int64_t r = first_row; r < end_row; ++r) {
      const VisibleKeys visible(args, r);
      if (!visible.active()) continue;
      row_heads[active++] = {.q = args.q.data + r * heads * width,
                             .out = args.out.data + r * heads * width,
                             .offsets = offsets,
                             .count = visible.size()};
      for (int64_t i = 0; i < visible.size(); ++i) *offsets++ = layout.offset(visible.entry(i));
    }
    attend_heads({.rows = std::span(row_heads).first(active),
                  .first = heads * block / blocks,
                  .end = heads * (block + 1) / blocks,
                  .width = width,
                  .heads_per_group = heads / layout.groups,
                  .group_stride = layout.group_stride(),
                  .scale = args.scale,
                  .keys = args.plane.f32_keys(),
                  .values = args.plane.f32_values(),
                  .work = values});
  });
}

void run_attention_weights(const AttentionWeightsArgs& args, ThreadPool& threads) {
  const AttentionArgs& attention = args.attention;
  const int64_t rows = attention.q.shape[0], heads = attention.q.shape[1], width = attention.q.shape[2];
  const PlaneLayout layout(attention.plane);
  const int64_t group = args.head / (heads / layout.groups) * layout.group_stride();
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
      for (int64_t i = 0; i < chunk; ++i) offsets[i] = layout.offset(keys.entry(begin + i));
      score_chunk({.q = attention.q.data + (r * heads + args.head) * width,
                   .width = width,
                   .scale = attention.scale,
                   .keys = attention.plane.f32_keys() + group,
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
  const int64_t items = args.q.shape[0], rows = args.q.shape[1], heads = args.q.shape[2],
                width = args.q.shape[3];
  const int64_t row_blocks = (rows + kRowBlock - 1) / kRowBlock;
  const int64_t blocks = head_blocks(items * row_blocks, heads, threads);
  const double guess = attention_nanoseconds(items * rows * rows * heads, width);
  const ScratchPool::ThreadLease work(scratch, threads.threads(), dense_attention_work_bytes(args));
  share_items(threads, items * row_blocks * blocks, guess, [&](int64_t share, int64_t thread) {
    const int64_t item = share / blocks / row_blocks, block = share % blocks;
    const int64_t first_row = share / blocks % row_blocks * kRowBlock;
    auto* offsets = work.of<int64_t>(thread);
    for (int64_t i = 0; i < rows; ++i) offsets[i] = i * heads * width;
    std::array<RowHeads, kRowBlock> row_heads;
    size_t count = 0;
    for (int64_t r = first_row; r < std::min(rows, first_row + kRowBlock); ++r) {
      const int64_t at = (item * rows + r) * heads * width;
      row_heads[count++] = {
          .q = args.q.data + at, .out = args.out.data + at, .offsets = offsets, .count = rows};
    }
    attend_heads({.rows = std::span(row_heads).first(count),
                  .first = heads * block / blocks,
                  .end = heads * (block + 1) / blocks,
                  .width = width,
                  .group_stride = width,
                  .scale = args.scale,
                  .keys = args.k.data + item * rows * heads * width,
                  .values = args.v.data + item * rows * heads * width,
                  .work = reinterpret_cast<float*>(offsets + rows)});
  });
}

}  // namespace volley
