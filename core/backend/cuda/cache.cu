// Writes, moves and copies of cache entries.
#include "core/backend/cuda/cache_rows.cuh"
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/visible_keys.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;

// Rows' keys and values and where they go.
struct WriteRows {
  explicit WriteRows(const WriteCacheArgs& args) : to(args), keys(args.keys.data), values(args.values.data) {}

  CacheRows to;
  const float* keys;    // [R, G, D]
  const float* values;  // [R, G, D]
};

// One block a row; threads go over its groups and elements.
__global__ void write_rows(WriteRows args) {
  const int64_t row = blockIdx.x;
  const int64_t place = args.to.place(row);
  await_previous();
  if (place < 0) return;
  const PlaneLayout& layout = args.to.layout;
  const int64_t size = layout.groups * layout.width;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const int64_t to = place + i / layout.width * layout.group_stride() + i % layout.width;
    args.to.keys.put(to, args.keys[row * size + i]);
    args.to.values.put(to, args.values[row * size + i]);
  }
}

struct RotateRows {
  WriteRows write;
  Rotation keys;
  Rotation queries;
  float* q;  // [R, H, D], or null
  int heads;
  int groups;  // 0: no keys
};

// A thread takes a pair of elements of a row.
__global__ void rotate_and_write_rows(RotateRows args) {
  const int64_t row = blockIdx.x;
  const CacheRows& to = args.write.to;
  const int width = static_cast<int>(to.layout.width), half = width / 2;
  const int key_pairs = args.groups * half, pairs = args.heads * half;
  const int64_t place = to.place(row);
  await_previous();
  const int pair = blockIdx.y * kThreads + threadIdx.x;
  if (pair >= key_pairs + pairs) return;
  if (pair < key_pairs) {
    if (place < 0) return;
    const int group = pair / half;
    const float* keys = args.write.keys + (row * to.layout.groups + group) * width;
    const float* values = args.write.values + (row * to.layout.groups + group) * width;
    const int2 at = args.keys.elements(pair % half, half);
    float a = keys[at.x], b = keys[at.y];
    args.keys.turn(row, pair % half, a, b);
    to.keys.put(place + group * to.layout.group_stride(), at, a, b);
    to.values.put(place + group * to.layout.group_stride(), at, values[at.x], values[at.y]);
  } else {
    const int own = pair - key_pairs;
    float* q = args.q + (row * args.heads + own / half) * width;
    const int2 at = args.queries.elements(own % half, half);
    args.queries.turn(row, own % half, q[at.x], q[at.y]);
  }
}

struct MoveRows {
  MoveTable table;
  PlaneLayout layout;
  const int32_t* pages;  // of the slot
  int32_t* length_place;
  int32_t length;
};

// A thread owns one element of an entry in one plane and carries out all moves of it, in order. Element has
// an element's size.
template <typename Element>
__global__ void move_rows(MoveRows args) {
  await_previous();
  const int64_t size = args.layout.groups * args.layout.width;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *args.length_place = args.length;
  if (i >= size || args.table.count == 0) return;
  const PlanePointers planes = args.table.planes[blockIdx.y / 2];
  auto* plane = reinterpret_cast<Element*>(blockIdx.y % 2 == 0 ? planes.keys : planes.values);
  const int64_t element = i / args.layout.width * args.layout.group_stride() + i % args.layout.width;
  const auto place = [&](int64_t logical) {
    return args.layout.offset(int64_t{args.pages[logical / kPageSize]} * kPageSize + logical % kPageSize) +
           element;
  };
  for (int64_t m = 0; m < args.table.count; ++m) {
    const int32_t from = args.table.moves[2 * m], to = args.table.moves[2 * m + 1];
    if (from != to) plane[place(to)] = plane[place(from)];
  }
}

}  // namespace

void launch_write_cache(const WriteCacheArgs& args, const Stream& stream) {
  if (args.keys.shape[0] == 0) return;
  launch("write_cache", write_rows, static_cast<unsigned>(args.keys.shape[0]), kThreads, stream,
         WriteRows(args));
}

void launch_rotate_and_write(const RotateAndWriteArgs& args, const Stream& stream) {
  const Tensor &queries = args.queries.x, &keys = args.keys.x;
  const int64_t rows = (queries.data != nullptr ? queries : keys).shape[0];
  if (rows == 0) return;
  const int64_t heads = queries.data != nullptr ? queries.shape[1] : 0;
  const int64_t groups = keys.data != nullptr ? keys.shape[1] : 0;
  const PlaneLayout layout(args.write.plane);
  const dim3 grid(static_cast<unsigned>(rows), blocks_of((groups + heads) * layout.width / 2, kThreads));
  launch("rotate_and_write", rotate_and_write_rows, grid, kThreads, stream,
         RotateRows{.write = WriteRows(args.write),
                    .keys = Rotation(args.keys),
                    .queries = Rotation(args.queries),
                    .q = queries.data,
                    .heads = static_cast<int>(heads),
                    .groups = static_cast<int>(groups)});
}

void launch_move_entries(const MoveEntriesArgs& args, const MoveTable& table, const Stream& stream) {
  const PlaneLayout layout(args.planes.front());
  const bool moves = table.count > 0;
  const dim3 grid(moves ? blocks_of(layout.groups * layout.width, kThreads) : 1,
                  moves ? static_cast<unsigned>(2 * args.planes.size()) : 1);
  const auto kernel = args.planes.front().type == CacheType::kF32 ? move_rows<uint32_t> : move_rows<uint16_t>;
  launch("move_entries", kernel, grid, kThreads, stream,
         MoveRows{.table = table,
                  .layout = layout,
                  .pages = args.cache.block_table.data + args.slot * args.cache.block_table.shape[1],
                  .length_place = args.cache.lengths.data + args.slot,
                  .length = args.length});
}

}  // namespace volley::cuda
