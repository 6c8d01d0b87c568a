// Which phase posts its results, as what, where, and which one makes them missing again.
#include "core/backend/cuda/program_posts.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "core/backend/cuda/program_phases.cuh"
#include "core/backend/cuda/status.h"

namespace volley::cuda {
namespace {

using Kind = ProgramPhase::Kind;

// What a phase reads or writes.
struct Place {
  const std::byte* begin;
  int64_t bytes;

  bool overlaps(const Place& other) const {
    return begin < other.begin + other.bytes && other.begin < begin + bytes;
  }
  bool operator==(const Place&) const = default;
};
Place place_of(const float* rows, int64_t count, int64_t features) {
  return {reinterpret_cast<const std::byte*>(rows), count * features * 4};
}
// Of whole eights of rows.
Place place_of(const PackedRows& packed, int64_t count) {
  return {reinterpret_cast<const std::byte*>(packed.data),
          ceil_div(count, 8) * packed.steps * kWarp * static_cast<int64_t>(sizeof(uint4))};
}

// Of other memory than caches.
std::vector<Place> written_by(const ProgramPhase& phase) {
  const int64_t rows = phase.rows.rows.count;
  std::vector<Place> places;
  switch (phase.kind) {
    case Kind::kAttentionInputs:
      if (const auto& units = phase.as<AttentionUnits>(); units.queries() != nullptr)
        places.push_back(place_of(units.queries(), rows, units.query_features()));
      break;
    case Kind::kGated:
      if (const auto& units = phase.as<GatedUnits>(); units.packed().data != nullptr) {
        places.push_back(place_of(units.packed(), rows));
      } else {
        places.push_back(place_of(units.out(), rows, units.out_features()));
      }
      break;
    case Kind::kLinear:
      for (const auto& units = phase.as<LinearUnits>(); std::ssize(places) < units.targets();) {
        const ProductTarget& target = units.target(static_cast<int>(places.size()));
        places.push_back(place_of(target.out, rows, target.out_features));
      }
      break;
    case Kind::kAttention:
      places.push_back(place_of(phase.as<BF16Attention>().packed, rows));
      break;
  }
  return places;
}

bool has_one_target(const ProgramPhase& phase) {
  return phase.kind == Kind::kLinear && phase.as<LinearUnits>().targets() == 1;
}
bool can_post(const ProgramPhase& phase) {
  return phase.kind == Kind::kAttention || has_one_target(phase) ||
         (phase.kind == Kind::kGated && phase.as<GatedUnits>().packed().data != nullptr);
}

int64_t padded(int64_t bytes) {
  return ceil_div(bytes, 256) * 256;
}

// What a later phase reads a result as.
enum class As {
  kPacked,  // its rows
  kNormed,  // its rows, which it norms: the result is handed on
  kTerms,   // what it adds to
};
struct Use {
  int from;
  int by;
  As as;
};

class Plan {
 public:
  explicit Plan(std::span<ProgramPhase> phases) : phases_(phases), results_(phases.size()) {
    for (const ProgramPhase& phase : phases) writes_.push_back(written_by(phase));
    for (int p = 0; p < count(); ++p) find_uses(p);
    // What is packed is in one place only.
    std::erase_if(uses_, [&](const Use& use) {
      const bool plain = phase(use.from).kind != Kind::kLinear && result(use.from).is_read_plainly;
      if (plain) read_plainly(use.from, use.by);
      return plain;
    });
    for (const Use& use : uses_) {
      Result& of = result(use.from);
      of.last_use = std::max(of.last_use, use.by);
      (use.as == As::kNormed ? of.is_handed : of.is_posted) = true;
    }
    for (int p = 0; p < count(); ++p) {
      Result& of = result(p);
      of.place = bytes_;
      if (of.is_posted) bytes_ += padded(writes(p).front().bytes);
      of.handed_place = bytes_;
      if (of.is_handed) bytes_ += padded(packed_bytes(p));
      of.squares_place = bytes_;
      if (of.is_handed)
        bytes_ +=
            padded(rows(p) * HandedRows::squares_of_row(steps(p)) * static_cast<int64_t>(sizeof(float)));
    }
  }

  int64_t bytes() const { return bytes_; }
  // Deals what is posted to later phases than those that read it, which make it missing again. Whether all
  // of it found one.
  bool forget(std::byte* memory) {
    int next = 0;
    int64_t forgotten = 0;
    for (int p = 0; p < count(); ++p) {
      // Beside attention's inputs, what is made missing would only lengthen the fence behind it.
      if (phase(p).kind != Kind::kGated && phase(p).kind != Kind::kLinear) continue;
      while (next < p && result(next).last_use < p) ++next;
      const int64_t end = bytes_before(next);
      phase(p).forgotten = reinterpret_cast<uint4*>(memory + forgotten);
      phase(p).forgotten_count = (end - forgotten) / static_cast<int64_t>(sizeof(uint4));
      forgotten = end;
    }
    return forgotten == bytes_;
  }
  void apply(std::byte* memory) {
    std::vector<LinearUnits::Posts> linear(phases_.size());
    for (const Use& use : uses_) {
      FewRows& by = phase(use.by).rows;
      by.posted = by.posted || use.as != As::kTerms;
      const Result& from = result(use.from);
      std::byte* const place = memory + from.place;
      switch (use.as) {
        case As::kTerms:
          linear[static_cast<size_t>(use.by)].terms = reinterpret_cast<const float*>(place);
          break;
        case As::kPacked:
          by.packed.data = reinterpret_cast<uint4*>(place);
          break;
        case As::kNormed: {
          const HandedRows handed{.packed = {.data = reinterpret_cast<uint4*>(memory + from.handed_place),
                                             .steps = steps(use.from)},
                                  .squares = reinterpret_cast<float*>(memory + from.squares_place),
                                  .norm_weight = from.norm_weight};
          linear[static_cast<size_t>(use.from)].handed = handed;
          by.input = Input::kPacked;
          by.packed = handed.packed;
          by.squares = handed.squares;
          break;
        }
      }
    }
    for (int p = 0; p < count(); ++p) {
      const Result& of = result(p);
      std::byte* const place = memory + of.place;
      if (phase(p).kind == Kind::kLinear) {
        LinearUnits::Posts& posts = linear[static_cast<size_t>(p)];
        posts.stores = stores(p);
        if (of.is_posted) posts.results = reinterpret_cast<float*>(place);
        phase(p).as<LinearUnits>().set(posts);
      } else if (of.is_posted && phase(p).kind == Kind::kGated) {
        phase(p).as<GatedUnits>().pack_to(reinterpret_cast<uint4*>(place));
      } else if (of.is_posted) {
        phase(p).as<BF16Attention>().packed.data = reinterpret_cast<uint4*>(place);
      }
      phase(p).awaits = of.awaits;
      phase(p).leaves =
          of.last_use < 0 || of.is_read_plainly || is_written_again(p) ? Orders::kMemory : Orders::kNothing;
    }
  }

 private:
  struct Result {
    int last_use = -1;                   // phase; -1: nobody is handed it in one of these ways:
    bool is_posted = false;              // as it is, at `place`
    bool is_handed = false;              // as rows of a norm
    bool is_read_plainly = false;        // by some phase
    const float* norm_weight = nullptr;  // if it is handed on
    int64_t place = 0;
    int64_t handed_place = 0;
    int64_t squares_place = 0;
    Orders awaits = Orders::kNothing;  // of the phase
  };

  int count() const { return static_cast<int>(phases_.size()); }
  ProgramPhase& phase(int index) const { return phases_[static_cast<size_t>(index)]; }
  Result& result(int index) { return results_[static_cast<size_t>(index)]; }
  int64_t rows(int index) const { return phase(index).rows.rows.count; }
  // Of a row of the phase's results, which are whole steps.
  int steps(int index) const {
    return static_cast<int>(phase(index).as<LinearUnits>().target(0).out_features / kStep);
  }
  int64_t packed_bytes(int index) const {
    return place_of(PackedRows{.data = nullptr, .steps = steps(index)}, rows(index)).bytes;
  }
  const std::vector<Place>& writes(int index) const { return writes_[static_cast<size_t>(index)]; }
  bool overlaps(int p, const Place& place) const {
    return std::ranges::any_of(writes(p), [&](const Place& written) { return written.overlaps(place); });
  }

  void find_uses(int p) {
    const FewRows& rows = phase(p).rows;
    if (phase(p).kind == Kind::kAttention) {
      result(p).awaits = Orders::kMemory;
      return;
    }
    if (phase(p).kind == Kind::kLinear && phase(p).as<LinearUnits>().adds()) {
      for (const Place& place : writes(p)) find_use(p, place, As::kTerms);
    }
    if (rows.picked.ids != nullptr) return find_table(p);
    if (rows.input == Input::kPacked) return find_use(p, place_of(rows.packed, rows.rows.count), As::kPacked);
    find_use(p, place_of(rows.rows.x, rows.rows.count, rows.rows.in_features), As::kNormed);
  }
  void find_use(int p, const Place& place, As as) {
    int from = p - 1;
    while (from >= 0 && !overlaps(from, place)) --from;
    if (from < 0) return;  // it was there before the program
    // Nobody forgets what the last phase reads.
    if (writes(from).front() != place || p + 1 == count() || !can_use(p, from, as))
      return read_all_plainly(p, place);
    if (as == As::kNormed) result(from).norm_weight = phase(p).rows.norm.weight;
    uses_.push_back({.from = from, .by = p, .as = as});
  }
  // Whether a phase can use an earlier one's results so. Several targets have no posts, and rows are handed
  // on to one norm.
  bool can_use(int p, int from, As as) {
    switch (as) {
      case As::kPacked:
        return can_post(phase(from));
      case As::kTerms:
        return can_post(phase(from)) && writes(p).size() == 1;
      case As::kNormed: {
        const float* const weight = result(from).norm_weight;
        return has_one_target(phase(from)) && rows(from) == rows(p) &&
               phase(p).rows.rows.in_features % kStep == 0 &&
               (weight == nullptr || weight == phase(p).rows.norm.weight);
      }
    }
    return false;
  }
  // Rows that are picked may be of several phases.
  void find_table(int p) {
    const FewRows& rows = phase(p).rows;
    read_all_plainly(p, place_of(rows.rows.x, rows.picked.table_rows, rows.rows.in_features));
  }
  // Of all phases that a place's rows may be of.
  void read_all_plainly(int p, const Place& place) {
    for (int from = 0; from < p; ++from) {
      if (overlaps(from, place) && !is_overwritten(from, p)) read_plainly(from, p);
    }
  }
  // Whether a phase in front of that one writes to the same place.
  bool is_overwritten(int from, int before) const {
    for (int later = from + 1; later < before; ++later) {
      if (writes(later).size() == 1 && writes(later).front() == writes(from).front()) return true;
    }
    return false;
  }
  void read_plainly(int from, int by) {
    result(from).is_read_plainly = true;
    result(by).awaits = Orders::kMemory;
  }
  // Whether a product's results go where later phases, and operations behind the program, look for them.
  bool stores(int p) {
    return result(p).last_use < 0 || result(p).is_read_plainly || !is_overwritten(p, count());
  }
  // Then the later results are to be the last.
  bool is_written_again(int p) {
    if (phase(p).kind != Kind::kLinear || !stores(p)) return false;
    for (int later = p + 1; later < count(); ++later) {
      if (overlaps(later, writes(p).front())) return true;
    }
    return false;
  }
  // Of the posts of phases before this one.
  int64_t bytes_before(int index) {
    for (int p = index; p < count(); ++p) {
      if (result(p).last_use >= 0) return result(p).place;
    }
    return bytes_;
  }

  std::span<ProgramPhase> phases_;
  std::vector<std::vector<Place>> writes_;  // of each phase
  std::vector<Result> results_;             // of each phase
  std::vector<Use> uses_;
  int64_t bytes_ = 0;
};

}  // namespace

std::byte* PostMemory::at_least(int64_t bytes) {
  if (buffers_.empty() || buffers_.back().bytes() < bytes)
    buffers_.push_back(memory_.allocate(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)))));
  return buffers_.back().data();
}

void PostMemory::prepare(cudaStream_t stream) {
  for (; prepared_ < buffers_.size(); ++prepared_) {
    const Buffer& buffer = buffers_[prepared_];
    check(cudaMemsetAsync(buffer.data(), 0xff, static_cast<size_t>(buffer.bytes()), stream), "program");
  }
}

void post_results(std::span<ProgramPhase> phases, PostMemory& memory) {
  Plan plan(phases);
  if (plan.bytes() == 0) return;
  std::byte* const posts = memory.at_least(plan.bytes());
  if (plan.forget(posts)) return plan.apply(posts);
  for (ProgramPhase& phase : phases) phase.forgotten_count = 0;
}

}  // namespace volley::cuda
