#pragma once

// What attention of few rows over a paged cache in bf16 reads: keys and values of groups, found by tables and
// copied to shared memory beside the threads that multiply them.

#include <climits>

#include "core/backend/cuda/attention_rows.cuh"
#include "core/backend/cuda/row_parts.cuh"
#include "core/backend/cuda/shared_tiles.cuh"

namespace volley::cuda {

constexpr int kElements = 8;  // of a vector of 16 bytes

// Heads of up to kSteps * kStep elements.
template <int kSteps>
struct Heads {
  static constexpr int kWidth = kSteps * kStep;
  static constexpr int kTiles = kWidth / kTileOut;
  static constexpr int kLineBytes = kWidth * 2;
  static constexpr int kKeys = kSteps <= 2 ? 32 : 16;  // of a group
  static constexpr int kKeyTiles = kKeys / kTileOut;
  static constexpr int kPlaneBytes = kKeys * kLineBytes;  // of a group's keys, or values
  static constexpr int kStageBytes = 2 * kPlaneBytes;
  static constexpr int kHalves = kSteps <= 2 ? 2 : 1;  // at most, for sums to stay in registers
  // Vector v of the values of a key lies in place v ^ turn(key) of its line, so that the same vector of eight
  // keys comes from all banks.
  static constexpr int kTurns = kSteps % 2 == 0 ? 8 : 4;
  static __device__ int turn(int key) { return kTurns == 8 ? key % 8 : key / 2 % 4; }
  // The place of vector `v` more, where v and the vector of `address` have no bit in common.
  static __device__ uint32_t turned(uint32_t address, int v) {
    return (address ^ static_cast<uint32_t>(v % kTurns * 16)) +
           static_cast<uint32_t>(v / kTurns * kTurns * 16);
  }
};

__device__ inline void prefetch(const std::byte* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// ---- The rows of a block together

// What the compiler shall know to be the same in all lanes.
__device__ inline int uniform(int value) {
  return __reduce_max_sync(kAllLanes, value);
}

template <int kKeys, int kRows>
struct BlockKeys : BlockRows<kRows> {
  int most;          // keys of a row, or kInactive: no row is active
  int least;         // keys of an active row
  int longest;       // a row of `most`
  int joint_groups;  // before this one, whatever key a row sees is that of `longest`

  // Of one warp; others may read behind a barrier. Reads tables only.
  __device__ void find(const CacheAttention& args, const typename BlockRows<kRows>::Range& range) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    BlockRows<kRows>::find(args, range, lane);
    __syncwarp();
    const int count = lane < kRows ? this->counts[lane] : BlockRows<kRows>::kInactive;
    const int greatest = __reduce_max_sync(kAllLanes, count);
    const int row = __ffs(static_cast<int>(__ballot_sync(kAllLanes, count == greatest))) - 1;
    int joint = INT_MAX;
    if (count >= 0) {
      const int same = this->visible(row).shared_with(this->visible(lane));
      if (same < count) joint = same / kKeys;
    }
    joint = __reduce_min_sync(kAllLanes, joint);
    const int smallest = __reduce_min_sync(kAllLanes, count >= 0 ? count : INT_MAX);
    if (lane > 0) return;
    most = greatest;
    least = smallest;
    longest = row;
    joint_groups = joint;
  }
};

// The groups of a head are dealt to four parts, each a softmax of its own: group i to part i % kParts. The
// parts are joined in order.
constexpr int kParts = 4;
enum class Takes : uint8_t { kOnePart, kAllParts };

// A group of keys and the row whose they are. A group that is not joint is run for each row that sees any of
// it.
struct Run {
  int group;
  int row;
};

// Where a key lies: its page, or kNowhere, and its place there.
struct Place {
  static constexpr int32_t kNowhere = -1;
  int32_t page = kNowhere;
  uint32_t entry = 0;
};

// ---- The keys of a warp: groups of one head, part by part

template <int kSteps, int kRows, Takes kTakes>
class WarpKeys {
  using Shape = Heads<kSteps>;
  static constexpr int kKeys = Shape::kKeys;

 public:
  __device__ WarpKeys(const CacheAttention& args, const BlockKeys<kKeys, kRows>& rows, int head,
                      std::byte* staged)
      : rows_(rows),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        most_(uniform(rows.most)),
        least_(uniform(rows.least)),
        longest_(uniform(rows.longest)),
        joint_groups_(uniform(rows.joint_groups)),
        count_(lane_ < kRows ? rows.counts[lane_] : 0),
        vectors_(static_cast<uint32_t>(args.layout.width) / kElements),
        page_vectors_(static_cast<uint32_t>(kPageSize * args.layout.groups) * vectors_),
        last_bytes_(kStep * (kSteps - 1) + lane_ % 4 * kElements < args.layout.width ? 16 : 0),
        key_(staged + lane_ * 16) {
    const int64_t offset = args.group_offset(head) * 2;
    keys_ = args.keys + offset;
    values_ = args.values + offset;
    const uint32_t values = shared_address(staged) + Shape::kPlaneBytes;
    const auto line = [&](int key, int v) {
      return values + static_cast<uint32_t>(key * Shape::kLineBytes + (v ^ Shape::turn(key)) * 16);
    };
    copied_value_ = line(lane_ / 4, lane_ % 4);
    read_value_ = line(lane_ % 16, lane_ / 16);
  }

  // `part`: the first that the warp takes.
  __device__ Run first(int part) const { return begin(uniform(part)); }
  __device__ bool has(const Run& run) const { return run.group * kKeys < most_; }
  __device__ bool is_joint(const Run& run) const { return run.group < joint_groups_; }
  __device__ Run next(const Run& run) const {
    if (!is_joint(run)) {
      const unsigned others = seeing(run.group) & ~((2u << run.row) - 1);
      if (others != 0) return {run.group, __ffs(static_cast<int>(others)) - 1};
    }
    const int group = run.group + kParts;
    if (kTakes == Takes::kOnePart || group * kKeys < most_) return begin(group);
    const int part = group % kParts + 1;
    return begin(part < kParts ? part : most_ / kKeys + 1);
  }

  // Where key lane % kKeys of a run lies, which depends on tables only.
  __device__ Place find(const Run& run) const {
    Place place;
    const int i = run.group * kKeys + lane_ % kKeys;
    if (!has(run) || i >= rows_.counts[run.row]) return place;
    const VisibleKeys& visible = rows_.visible(run.row);
    const auto logical = static_cast<uint32_t>(visible.logical(i));
    place.page = visible.page(logical);
    place.entry = logical % kPageSize;
    return place;
  }
  // Asks for the lines of a found key and its values.
  __device__ void prefetch_found(const Place& place) const {
    if (place.page == Place::kNowhere) return;
    const uint64_t from = uint64_t{vector_of(place)} * 16;
    constexpr bool kBoth = kKeys == kWarp;  // else half of the lanes ask for each
#pragma unroll
    for (int b = 0; b < Shape::kLineBytes; b += 128) {
      if (kBoth || lane_ < kKeys) prefetch(keys_ + from + b);
      if (kBoth || lane_ >= kKeys) prefetch(values_ + from + b);
    }
  }

  // Copies found keys, their values or both. A lane's parts of keys lie as it will read them itself.
  template <bool kOfKeys, bool kOfValues>
  __device__ void copy(const Place& place, int stage) const {
    const uint32_t to = shared_address(key_) + stage;
    const uint32_t vector = place.page == Place::kNowhere ? 0 : vector_of(place);
    const unsigned found = __ballot_sync(kAllLanes, place.page != Place::kNowhere);
#pragma unroll
    for (int t = 0; t < Shape::kKeyTiles; ++t) {
      const int key = t * kTileOut + lane_ / 4;
      const uint64_t from = uint64_t{__shfl_sync(kAllLanes, vector, key)} * 16 + lane_ % 4 * 16;
      const int bytes = (found >> key & 1) != 0 ? 16 : 0;
      const uint32_t value_to = copied_value_ + stage + t * (kTileOut * Shape::kLineBytes);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int there = step == kSteps - 1 ? min(bytes, last_bytes_) : bytes;
        if constexpr (kOfKeys)
          copy_vector(to + (Shape::kKeyTiles * step + t) * kWarp * 16, keys_ + from + step * 64, there);
        if constexpr (kOfValues)
          copy_vector(Shape::turned(value_to, step * 4), values_ + from + step * 64, there);
      }
    }
  }

  // Of step `step`, the lane's part of key 8 * tile + l / 4.
  __device__ uint4 key(int stage, int step, int tile) const {
    return *reinterpret_cast<const uint4*>(key_ + stage + (Shape::kKeyTiles * step + tile) * kWarp * 16);
  }
  // Values of keys 16 * part .. + 15 and dims 8 * tile .. + 15, as two multiply-accumulates take them. `tile`
  // is even.
  __device__ uint4 values(int stage, int part, int tile) const {
    return transposed_matrices(Shape::turned(read_value_ + stage + part * (16 * Shape::kLineBytes), tile));
  }

  // Whether all keys of a run are kept from earlier steps.
  __device__ bool is_kept(const Run& run) const {
    return has(run) && (run.group + 1) * kKeys <= rows_.visible(run.row).kept();
  }
  // Whether all active rows see all keys of a run.
  __device__ bool is_whole(const Run& run) const {
    return is_joint(run) && (run.group + 1) * kKeys <= least_;
  }
  // Keys before this one are those that a row sees in a run.
  __device__ int limit(const Run& run, int row) const {
    return is_joint(run) || run.row == row ? rows_.counts[row] : 0;
  }

 private:
  __device__ uint32_t vector_of(const Place& place) const {
    return static_cast<uint32_t>(place.page) * page_vectors_ + place.entry * vectors_;
  }
  __device__ unsigned seeing(int group) const {
    return __ballot_sync(kAllLanes, count_ > group * kKeys);
  }
  __device__ Run begin(int group) const {
    return {group, group < joint_groups_ ? longest_ : __ffs(static_cast<int>(seeing(group))) - 1};
  }

  const BlockKeys<kKeys, kRows>& rows_;
  const int lane_;
  const int most_;
  const int least_;
  const int longest_;
  const int joint_groups_;
  const int count_;         // of row lane_
  const uint32_t vectors_;  // of a key
  const uint32_t page_vectors_;
  const int last_bytes_;   // that there are of the lane's vectors of the last step
  std::byte* key_;         // the lane's, in stage 0
  const std::byte* keys_;  // of the head's group
  const std::byte* values_;
  // Shared addresses in stage 0: where the lane copies values to, and where it reads them.
  uint32_t copied_value_;
  uint32_t read_value_;
};

}  // namespace volley::cuda
