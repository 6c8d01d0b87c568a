// Writes, moves and copies of cache entries.
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/visible_keys.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;

struct WriteRows {
  RowTables tables;
  PlaneLayout layout;
  const float* keys;
  const float* values;
  float* plane_keys;
  float* plane_values;
};

WriteRows write_rows_of(const WriteCacheArgs& args) {
  return {.tables = RowTables(args.step, args.cache, args.first_row),
          .layout = PlaneLayout(args.plane),
          .keys = args.keys.data,
          .values = args.values.data,
          .plane_keys = args.plane.keys.data,
          .plane_values = args.plane.values.data};
}

// One block a row; threads go over its groups and elements.
__global__ void write_rows(WriteRows args) {
  const int64_t row = blockIdx.x;
  const int64_t entry = written_entry(args.tables, row);
  await_previous();
  if (entry < 0) return;
  const int64_t size = args.layout.groups * args.layout.width;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const int64_t group = i / args.layout.width;
    const int64_t to = args.layout.offset(entry) + group * args.layout.group_stride() + i % args.layout.width;
    args.plane_keys[to] = args.keys[row * size + i];
    args.plane_values[to] = args.values[row * size + i];
  }
}

// A rotary embedding of vectors of a row.
struct Rotation {
  explicit Rotation(const RopeArgs& args)
      : cosines(args.cos.data),
        sines(args.sin.data),
        positions(args.positions.data),
        columns(args.x.data == nullptr
                    ? 1
                    : static_cast<int>(args.x.shape[2] / 2 * args.x.shape[0] / args.positions.size())),
        components(args.x.data == nullptr ? 1 : static_cast<int>(args.positions.size() / args.x.shape[0])),
        adjacent(args.layout == RopeLayout::kAdjacent) {}

  // Turns pair `i` of a vector of a row, whose elements are at a and b.
  __device__ void turn(int64_t row, int i, float& a, float& b) const {
    const int64_t position = positions[row * components + i / columns];
    const float c = cosines[position * columns + i % columns], s = sines[position * columns + i % columns];
    const float turned = a * c - b * s;
    b = b * c + a * s;
    a = turned;
  }

  const float* cosines;
  const float* sines;
  const int32_t* positions;
  int columns;  // pairs of a component
  int components;
  bool adjacent;
};

struct RotateRows {
  WriteRows write;
  Rotation keys;
  Rotation queries;
  float* q;  // [R, H, D], or null
  int heads;
};

// A thread takes a pair of elements of a row.
__global__ void rotate_and_write_rows(RotateRows args) {
  const int64_t row = blockIdx.x;
  const int width = static_cast<int>(args.write.layout.width), half = width / 2;
  const int key_pairs = static_cast<int>(args.write.layout.groups) * half, pairs = args.heads * half;
  const auto places = [&](const Rotation& rotation, int pair) {
    const int i = pair % half;
    return rotation.adjacent ? int2{2 * i, 2 * i + 1} : int2{i, half + i};
  };
  const int64_t entry = written_entry(args.write.tables, row);
  await_previous();
  const int pair = blockIdx.y * kThreads + threadIdx.x;
  if (pair >= key_pairs + pairs) return;
  if (pair < key_pairs) {
    if (entry < 0) return;
    const int64_t group = pair / half, from = (row * args.write.layout.groups + group) * width;
    const int64_t to = args.write.layout.offset(entry) + group * args.write.layout.group_stride();
    const int2 place = places(args.keys, pair);
    float a = args.write.keys[from + place.x], b = args.write.keys[from + place.y];
    args.keys.turn(row, pair % half, a, b);
    args.write.plane_keys[to + place.x] = a;
    args.write.plane_keys[to + place.y] = b;
    args.write.plane_values[to + place.x] = args.write.values[from + place.x];
    args.write.plane_values[to + place.y] = args.write.values[from + place.y];
  } else {
    const int at = pair - key_pairs;
    float* q = args.q + (row * args.heads + at / half) * width;
    const int2 place = places(args.queries, at);
    args.queries.turn(row, at % half, q[place.x], q[place.y]);
  }
}

struct MoveRows {
  MoveTable table;
  PlaneLayout layout;
  const int32_t* pages;  // of the slot
  int32_t* length_place;
  int32_t length;
};

// A thread owns one element of an entry in one plane and carries out all moves of it, in order.
__global__ void move_rows(MoveRows args) {
  await_previous();
  const int64_t size = args.layout.groups * args.layout.width;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *args.length_place = args.length;
  if (i >= size || args.table.count == 0) return;
  const PlanePointers planes = args.table.planes[blockIdx.y / 2];
  float* plane = blockIdx.y % 2 == 0 ? planes.keys : planes.values;
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
         write_rows_of(args));
}

void launch_rotate_and_write(const RotateAndWriteArgs& args, const Stream& stream) {
  const int64_t rows = args.write.keys.shape[0];
  if (rows == 0) return;
  const bool has_queries = args.queries.x.data != nullptr;
  const PlaneLayout layout(args.write.plane);
  const int64_t heads = has_queries ? args.queries.x.shape[1] : 0;
  const dim3 grid(static_cast<unsigned>(rows),
                  blocks_of((layout.groups + heads) * layout.width / 2, kThreads));
  launch("rotate_and_write", rotate_and_write_rows, grid, kThreads, stream,
         RotateRows{.write = write_rows_of(args.write),
                    .keys = Rotation(args.keys),
                    .queries = Rotation(args.queries),
                    .q = args.queries.x.data,
                    .heads = static_cast<int>(heads)});
}

void launch_move_entries(const MoveEntriesArgs& args, const MoveTable& table, const Stream& stream) {
  const PlaneLayout layout(args.planes.front());
  const bool moves = table.count > 0;
  const dim3 grid(moves ? blocks_of(layout.groups * layout.width, kThreads) : 1,
                  moves ? static_cast<unsigned>(2 * args.planes.size()) : 1);
  launch("move_entries", move_rows, grid, kThreads, stream,
         MoveRows{.table = table,
                  .layout = layout,
                  .pages = args.cache.block_table.data + args.slot * args.cache.block_table.shape[1],
                  .length_place = args.cache.lengths.data + args.slot,
                  .length = args.length});
}

}  // namespace volley::cuda
