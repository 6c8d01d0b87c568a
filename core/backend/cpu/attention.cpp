#include "core/backend/cpu/attention.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
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

// Blocks of heads in which rows are shared out: more only where the rows alone would leave threads idle. A
// single block of rows is cut evenly, as heads of one group read the same keys.
int64_t head_blocks(int64_t row_blocks, int64_t heads, const ThreadPool& threads) {
  const int64_t wanted = row_blocks > 1 ? 4 * threads.threads() : threads.threads();
  const int64_t blocks = (wanted + row_blocks - 1) / std::max<int64_t>(row_blocks, 1);
  return std::clamp<int64_t>(blocks, 1, heads);
}

// At most so many rows of a sequence are computed together, head by head: they find their keys in the cache,
// as they see the same ones first.
constexpr int64_t kRowBlock = 8;

// Offsets are those of the visible keys' vectors of group 0.
struct RowHeads {
  const float* q = nullptr;  // of head 0
  float* out = nullptr;      // of head 0
  const int64_t* offsets = nullptr;
  int64_t count = 0;
  int64_t shared = 0;  // first keys that are those of the row before
};
// Heads [first, end) of some rows.
struct HeadsArgs {
  std::span<const RowHeads> rows;
  int64_t first = 0, end = 0;
  int64_t width = 0;
  int64_t heads_per_group = 1;
  int64_t group_stride = 0;
  float scale = 1.0f;
  CacheType type = CacheType::kF32;
  const std::byte* keys = nullptr;  // of group 0
  const std::byte* values = nullptr;
  float* work = nullptr;  // [kMostQueries, 3, width]
};

// Query heads of one group that are computed together.
struct QueryBatch {
  struct Query {
    const RowHeads* row = nullptr;
    int64_t head = 0;
  };
  std::array<Query, kMostQueries> queries;
  int64_t count = 0;
  int64_t shared = 0;  // first keys that all see

  void add(const RowHeads& row, int64_t head) {
    if (count == 0) {
      shared = row.count;
    } else if (queries[static_cast<size_t>(count - 1)].row != &row) {
      shared = std::min(shared, row.shared);
    }
    queries[static_cast<size_t>(count++)] = {&row, head};
  }
};

// `is_first`: of a head's batches; it asks for what the next head reads.
void attend_batch(const HeadsArgs& args, const QueryBatch& batch, bool is_first) {
  const int64_t group = batch.queries[0].head / args.heads_per_group;
  const int64_t group_bytes = group * args.group_stride * cache_element_bytes(args.type);
  const bool is_last_group = (group + 1) * args.heads_per_group >= args.end;
  std::array<AttentionState, kMostQueries> states;
  int64_t most = 0;
  for (int64_t i = 0; i < batch.count; ++i) {
    float* work = args.work + i * 3 * args.width;
    states[static_cast<size_t>(i)] = {.values = work, .sums = work + args.width};
    begin_attention(states[static_cast<size_t>(i)], args.width);
    most = std::max(most, batch.queries[static_cast<size_t>(i)].row->count);
  }
  for (int64_t begin = 0; begin < most; begin += kKeyChunk) {
    std::array<AttentionQuery, kMostQueries> queries;
    int64_t shared = batch.shared - begin;
    for (size_t i = 0; i < static_cast<size_t>(batch.count); ++i) {
      const auto& [row, head] = batch.queries[i];
      queries[i] = {.q = row->q + head * args.width,
                    .offsets = row->offsets + begin,
                    .count = std::clamp<int64_t>(row->count - begin, 0, kKeyChunk),
                    .state = &states[i]};
      shared = std::min(shared, queries[i].count);
    }
    attend_chunk({.queries = std::span(queries).first(static_cast<size_t>(batch.count)),
                  .shared = std::max<int64_t>(shared, 0),
                  .width = args.width,
                  .scale = args.scale,
                  .type = args.type,
                  .keys = args.keys + group_bytes,
                  .values = args.values + group_bytes,
                  .next_group = is_first && !is_last_group ? args.group_stride : 0});
  }
  for (size_t i = 0; i < static_cast<size_t>(batch.count); ++i) {
    const auto& [row, head] = batch.queries[i];
    finish_attention(states[i], args.width, row->out + head * args.width);
  }
}

void attend_heads(const HeadsArgs& args) {
  const int64_t most = most_queries();
  for (int64_t head = args.first, next = head; head < args.end; head = next) {
    next = std::min(args.end, (head / args.heads_per_group + 1) * args.heads_per_group);
    QueryBatch batch;
    bool is_first = true;  // later batches find the keys in the cache: a block's rows are of one sequence
    const auto attend = [&] {
      if (batch.count > 0) attend_batch(args, batch, is_first);
      batch = {};
      is_first = false;
    };
    for (const RowHeads& row : args.rows) {
      if (row.count == 0) {
        std::fill(row.out + head * args.width, row.out + next * args.width, 0.0f);
        continue;
      }
      for (int64_t h = head; h < next; ++h) {
        batch.add(row, h);
        if (batch.count == most) attend();
      }
    }
    attend();
  }
}

// Of a block of rows that see so many keys: states of queries, and where the keys lie.
int64_t attention_work_bytes(int64_t width, int64_t block_keys) {
  return kMostQueries * 3 * width * 4 + block_keys * 8;
}
int64_t begins_bytes(int64_t rows) {
  return (rows + 1) * 8;
}
int64_t dense_attention_work_bytes(const DenseAttentionArgs& args) {
  return attention_work_bytes(args.q.shape[3], args.q.shape[1]);
}

}  // namespace

void reserve_attention(const AttentionArgs& args, int64_t threads, ScratchPool& scratch) {
  const int64_t rows = args.q.shape[0], width = args.q.shape[2];
  const int64_t most_keys = args.cache.block_table.shape[1] * kPageSize;  // of a row
  const ScratchPool::Lease begins = scratch.take(begins_bytes(rows));
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
  const ScratchPool::Lease begins_lease = scratch.take(begins_bytes(rows));
  auto* begins = begins_lease.as<int64_t>();  // of blocks of rows, each of one sequence
  int64_t row_blocks = 0;
  int64_t keys = 0, block_keys = 0;  // of all rows, of a block's at most
  std::optional<VisibleKeys> last;
  for (int64_t r = 0; r < rows; ++r) {
    const VisibleKeys visible(args, r);
    if (row_blocks == 0 || r - begins[row_blocks - 1] == kRowBlock || visible.shared_with(*last) == 0)
      begins[row_blocks++] = r;
    keys += visible.size();
    block_keys = std::max(block_keys, std::min(kRowBlock, rows) * visible.size());
    last = visible;
  }
  begins[row_blocks] = rows;
  const ScratchPool::ThreadLease work(scratch, threads.threads(), attention_work_bytes(width, block_keys));
  const int64_t blocks = head_blocks(row_blocks, heads, threads);
  const double guess = attention_nanoseconds(keys * heads, width);
  share_items(threads, row_blocks * blocks, guess, [&](int64_t item, int64_t thread) {
    const int64_t first_row = begins[item / blocks], end_row = begins[item / blocks + 1],
                  block = item % blocks;
    auto* offsets = work.of<int64_t>(thread);
    auto* states = reinterpret_cast<float*>(offsets + block_keys);
    std::array<RowHeads, kRowBlock> row_heads;
    size_t active = 0;
    std::optional<VisibleKeys> before;
    for (int64_t r = first_row; r < end_row; ++r) {
      const VisibleKeys visible(args, r);
      if (!visible.active()) continue;
      row_heads[active] = {.q = args.q.data + r * heads * width,
                           .out = args.out.data + r * heads * width,
                           .offsets = offsets,
                           .count = visible.size(),
                           .shared = before ? visible.shared_with(*before) : 0};
      for (int64_t i = 0; i < visible.size(); ++i) *offsets++ = layout.offset(visible.entry(i));
      before = visible;
      ++active;
    }
    attend_heads({.rows = std::span(row_heads).first(active),
                  .first = heads * block / blocks,
                  .end = heads * (block + 1) / blocks,
                  .width = width,
                  .heads_per_group = heads / layout.groups,
                  .group_stride = layout.group_stride(),
                  .scale = args.scale,
                  .type = args.plane.type,
                  .keys = args.plane.keys,
                  .values = args.plane.values,
                  .work = states});
  });
}

void run_attention_weights(const AttentionWeightsArgs& args, ThreadPool& threads) {
  const AttentionArgs& attention = args.attention;
  const int64_t rows = attention.q.shape[0], heads = attention.q.shape[1], width = attention.q.shape[2];
  const PlaneLayout layout(attention.plane);
  const int64_t group = args.head / (heads / layout.groups) * layout.group_stride();
  const std::byte* cached = attention.plane.keys + group * cache_element_bytes(attention.plane.type);
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
                   .type = attention.plane.type,
                   .keys = cached,
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
    auto* states = reinterpret_cast<float*>(offsets + rows);
    for (int64_t i = 0; i < rows; ++i) offsets[i] = i * heads * width;
    std::array<RowHeads, kRowBlock> row_heads;
    size_t count = 0;
    for (int64_t r = first_row; r < std::min(rows, first_row + kRowBlock); ++r) {
      const int64_t at = (item * rows + r) * heads * width;
      row_heads[count] = {.q = args.q.data + at,
                          .out = args.out.data + at,
                          .offsets = offsets,
                          .count = rows,
                          .shared = count > 0 ? rows : 0};
      ++count;
    }
    attend_heads({.rows = std::span(row_heads).first(count),
                  .first = heads * block / blocks,
                  .end = heads * (block + 1) / blocks,
                  .width = width,
                  .group_stride = width,
                  .scale = args.scale,
                  .keys = reinterpret_cast<const std::byte*>(args.k.data + item * rows * heads * width),
                  .values = reinterpret_cast<const std::byte*>(args.v.data + item * rows * heads * width),
                  .work = states});
  });
}

}  // namespace volley
