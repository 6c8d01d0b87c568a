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

// One block a row; threads go over its groups and elements.
__global__ void write_rows(WriteRows args) {
  await_previous();
  const int64_t row = blockIdx.x;
  const int64_t entry = written_entry(args.tables, row);
  if (entry < 0) return;
  const int64_t size = args.layout.groups * args.layout.width;
  for (int64_t i = threadIdx.x; i < size; i += kThreads) {
    const int64_t group = i / args.layout.width;
    const int64_t to = args.layout.offset(entry) + group * args.layout.group_stride() + i % args.layout.width;
    args.plane_keys[to] = args.keys[row * size + i];
    args.plane_values[to] = args.values[row * size + i];
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
         WriteRows{.tables = RowTables(args.step, args.cache, args.first_row),
                   .layout = PlaneLayout(args.plane),
                   .keys = args.keys.data,
                   .values = args.values.data,
                   .plane_keys = args.plane.keys.data,
                   .plane_values = args.plane.values.data});
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
