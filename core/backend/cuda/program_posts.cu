// Which phase posts its results, where, and which one makes them missing again.
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

bool can_post(const ProgramPhase& phase) {
  return phase.kind == Kind::kAttention ||
         (phase.kind == Kind::kGated && phase.as<GatedUnits>().packed().data != nullptr) ||
         (phase.kind == Kind::kLinear && phase.as<LinearUnits>().targets() == 1);
}

// A result that a later phase reads: as its rows, or as what it adds to.
struct Use {
  int from;
  int by;
  bool as_terms;
};

class Plan {
 public:
  explicit Plan(std::span<ProgramPhase> phases) : phases_(phases), posts_(phases.size()) {
    for (const ProgramPhase& phase : phases) writes_.push_back(written_by(phase));
    for (int p = 0; p < count(); ++p) find_uses(p);
    // What is packed is in one place only.
    std::erase_if(uses_, [&](const Use& use) {
      const bool plain = phase(use.from).kind != Kind::kLinear && post(use.from).is_read_plainly;
      if (plain) read_plainly(use.from, use.by);
      return plain;
    });
    for (const Use& use : uses_) post(use.from).last_use = std::max(post(use.from).last_use, use.by);
    for (Post& post : posts_) {
      if (post.last_use < 0) continue;
      post.place = bytes_;
      bytes_ += ceil_div(writes_[static_cast<size_t>(&post - posts_.data())].front().bytes, 256) * 256;
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
      while (next < p && post(next).last_use < p) ++next;
      const int64_t end = bytes_before(next);
      phase(p).forgotten = reinterpret_cast<uint4*>(memory + forgotten);
      phase(p).forgotten_count = (end - forgotten) / static_cast<int64_t>(sizeof(uint4));
      forgotten = end;
    }
    return forgotten == bytes_;
  }
  void apply(std::byte* memory) {
    std::vector<LinearUnits::Posts> linear(phases_.size());
    const auto place = [&](int p) { return memory + post(p).place; };
    for (const Use& use : uses_) {
      ProgramPhase& by = phase(use.by);
      if (use.as_terms) {
        linear[static_cast<size_t>(use.by)].terms = reinterpret_cast<const float*>(place(use.from));
        continue;
      }
      by.rows.posted = true;
      if (by.rows.input == Input::kNormed) {
        by.rows.rows.x = reinterpret_cast<const float*>(place(use.from));
      } else {
        by.rows.packed.data = reinterpret_cast<uint4*>(place(use.from));
      }
    }
    for (int p = 0; p < count(); ++p) {
      const bool posts = post(p).last_use >= 0;
      if (phase(p).kind == Kind::kLinear) {
        LinearUnits::Posts& of = linear[static_cast<size_t>(p)];
        of.stores = stores(p);
        if (posts) of.results = reinterpret_cast<float*>(place(p));
        phase(p).as<LinearUnits>().set(of);
      } else if (posts && phase(p).kind == Kind::kGated) {
        phase(p).as<GatedUnits>().pack_to(reinterpret_cast<uint4*>(place(p)));
      } else if (posts) {
        phase(p).as<BF16Attention>().packed.data = reinterpret_cast<uint4*>(place(p));
      }
      phase(p).awaits = post(p).awaits;
      phase(p).leaves =
          !posts || post(p).is_read_plainly || is_written_again(p) ? Orders::kMemory : Orders::kNothing;
    }
  }

 private:
  struct Post {
    int64_t place = 0;
    int last_use = -1;             // phase; -1: it posts nothing
    bool is_read_plainly = false;  // by some phase
    Orders awaits = Orders::kNothing;
  };

  int count() const { return static_cast<int>(phases_.size()); }
  ProgramPhase& phase(int index) const { return phases_[static_cast<size_t>(index)]; }
  Post& post(int index) { return posts_[static_cast<size_t>(index)]; }
  const std::vector<Place>& writes(int index) const { return writes_[static_cast<size_t>(index)]; }
  bool overlaps(int p, const Place& place) const {
    return std::ranges::any_of(writes(p), [&](const Place& written) { return written.overlaps(place); });
  }

  void find_uses(int p) {
    const FewRows& rows = phase(p).rows;
    switch (phase(p).kind) {
      case Kind::kAttention:
        post(p).awaits = Orders::kMemory;
        return;
      case Kind::kLinear:
        if (phase(p).as<LinearUnits>().adds()) {
          for (const Place& place : writes(p)) find_use(p, place, true);
        }
        break;
      default:
        break;
    }
    if (rows.picked.ids != nullptr) return find_table(p);
    find_use(p,
             rows.input == Input::kPacked ? place_of(rows.packed, rows.rows.count)
                                          : place_of(rows.rows.x, rows.rows.count, rows.rows.in_features),
             false);
  }
  void find_use(int p, const Place& place, bool as_terms) {
    int from = p - 1;
    while (from >= 0 && !overlaps(from, place)) --from;
    if (from < 0) return;  // it was there before the program
    // Nobody forgets what the last phase reads. Several targets have no posts.
    const bool posts = can_post(phase(from)) && writes(from).front() == place && p + 1 < count() &&
                       (!as_terms || writes(p).size() == 1);
    if (posts) {
      uses_.push_back({.from = from, .by = p, .as_terms = as_terms});
    } else {
      read_plainly(from, p);
    }
  }
  // Rows that are picked may be of several phases.
  void find_table(int p) {
    const FewRows& rows = phase(p).rows;
    const Place table = place_of(rows.rows.x, rows.picked.table_rows, rows.rows.in_features);
    for (int from = 0; from < p; ++from) {
      if (overlaps(from, table) && !is_overwritten(from, p)) read_plainly(from, p);
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
    post(from).is_read_plainly = true;
    post(by).awaits = Orders::kMemory;
  }
  // Whether a product's results go where later phases, and operations behind the program, look for them.
  bool stores(int p) {
    return post(p).last_use < 0 || post(p).is_read_plainly || !is_overwritten(p, count());
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
      if (post(p).last_use >= 0) return post(p).place;
    }
    return bytes_;
  }

  std::span<ProgramPhase> phases_;
  std::vector<std::vector<Place>> writes_;  // of each phase
  std::vector<Post> posts_;                 // of each phase
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
