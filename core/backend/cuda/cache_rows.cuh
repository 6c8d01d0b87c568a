#pragma once

// How a row's key and value get into a cache: the turn of a pair of elements, its place, the rounding.

#include <cstddef>
#include <cstdint>

#include <cuda_bf16.h>

#include "core/backend/operations.h"
#include "core/backend/visible_keys.h"

namespace volley::cuda {

// A plane's keys or values. Elements are rounded to its type as they are written.
struct CacheElements {
  std::byte* data;
  CacheType type;

  __device__ std::byte* at(int64_t place) const { return data + place * (type == CacheType::kF32 ? 4 : 2); }
  __device__ void put(int64_t place, float value) const {
    if (type == CacheType::kF32) {
      reinterpret_cast<float*>(data)[place] = value;
    } else {
      reinterpret_cast<__nv_bfloat16*>(data)[place] = __float2bfloat16_rn(value);
    }
  }
  // Two neighbours, at an even place.
  __device__ void put_pair(int64_t place, float first, float second) const {
    if (type == CacheType::kF32) {
      *reinterpret_cast<float2*>(data + place * 4) = float2{first, second};
    } else {
      *reinterpret_cast<__nv_bfloat162*>(data + place * 2) = __floats2bfloat162_rn(first, second);
    }
  }
  // Elements at.x and at.y of the vector of even width at `place`, as Rotation::elements pairs them.
  __device__ void put(int64_t place, int2 at, float a, float b) const {
    if (at.y == at.x + 1 && at.x % 2 == 0) return put_pair(place + at.x, a, b);
    put(place + at.x, a);
    put(place + at.y, b);
  }
};

// Where the rows of a step write their keys and values.
struct CacheRows {
  explicit CacheRows(const WriteCacheArgs& args)
      : tables(args.step, args.cache, args.first_row),
        layout(args.plane),
        keys{args.plane.keys, args.plane.type},
        values{args.plane.values, args.plane.type} {}

  // Place of a row's vector of group 0, or negative: it writes none. That of group g lies g *
  // layout.group_stride() behind it. Reads tables only, which may be done before await_previous().
  __device__ int64_t place(int64_t row) const { return place_of(written_entry(tables, row)); }
  // The same of the entry that the row writes.
  __device__ int64_t place_of(int64_t entry) const { return entry < 0 ? -1 : layout.offset(entry); }

  RowTables tables;
  PlaneLayout layout;
  CacheElements keys;
  CacheElements values;
};

struct Turn {
  float cosine;
  float sine;

  __device__ void apply(float& a, float& b) const {
    const float turned = a * cosine - b * sine;
    b = b * cosine + a * sine;
    a = turned;
  }
};

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

  // The two elements of a vector that are its pair `i` of `half`.
  __device__ int2 elements(int i, int half) const {
    return adjacent ? int2{2 * i, 2 * i + 1} : int2{i, half + i};
  }

  // How pair `i` of a vector of a row turns. Reads positions and tables only, which may be done before
  // await_previous().
  __device__ Turn turn_of(int64_t row, int i) const {
    const int64_t at = int64_t{positions[row * components + i / columns]} * columns + i % columns;
    return {cosines[at], sines[at]};
  }
  // Turns pair `i` of a vector of a row, whose elements are a and b.
  __device__ void turn(int64_t row, int i, float& a, float& b) const { turn_of(row, i).apply(a, b); }

  bool operator==(const Rotation&) const = default;

  const float* cosines;
  const float* sines;
  const int32_t* positions;
  int columns;  // pairs of a component
  int components;
  bool adjacent;
};

// What tables say of rows, where somebody has looked already: `first` and those behind it of a step.
struct KnownRows {
  static constexpr int kMost = 32;

  // As CacheRows::place and Rotation::turn_of, of a row from where `rows` begin.
  __device__ int64_t place(const CacheRows& rows, int64_t row) const { return places[known(rows, row)]; }
  __device__ Turn turn(const CacheRows& rows, int64_t row, const Rotation&, int pair) const {
    return turns[known(rows, row) * pairs + pair];
  }

  int first;
  int pairs;              // of a vector
  int64_t places[kMost];  // where they write
  Turn* turns;            // [rows, pairs]

 private:
  __device__ int known(const CacheRows& rows, int64_t row) const {
    return static_cast<int>(rows.tables.first_row + row) - first;
  }
};
// Where nobody has.
struct NothingKnown {
  __device__ int64_t place(const CacheRows& rows, int64_t row) const { return rows.place(row); }
  __device__ Turn turn(const CacheRows&, int64_t row, const Rotation& rotation, int pair) const {
    return rotation.turn_of(row, pair);
  }
};

}  // namespace volley::cuda
