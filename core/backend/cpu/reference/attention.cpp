// Reference attention and cache operations.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/backend/cpu/reference/reference_queue.h"
#include "core/backend/visible_keys.h"

namespace volley {
namespace {

// One query against `count` keys: scores of a chunk, its maximum, its sum and its weighted values, then the
// join. key(i) and value(i) point to the i-th visible key's and value's D floats.
template <typename Key, typename Value>
void attend(const float* q, int64_t width, int64_t count, float scale, const Key& key, const Value& value,
            float* out) {
  std::vector<float> total(static_cast<size_t>(width), 0.0f);
  float maximum = -std::numeric_limits<float>::infinity();
  float denominator = 0.0f;
  for (int64_t begin = 0; begin < count; begin += kKeyChunk) {
    const int64_t end = std::min(count, begin + kKeyChunk);
    std::vector<float> weights;
    float chunk_maximum = -std::numeric_limits<float>::infinity();
    for (int64_t i = begin; i < end; ++i) {
      float dot = 0.0f;
      for (int64_t d = 0; d < width; ++d) dot += q[d] * key(i)[d];
      weights.push_back(dot * scale);
      chunk_maximum = std::max(chunk_maximum, weights.back());
    }
    float chunk_sum = 0.0f;
    std::vector<float> chunk_values(static_cast<size_t>(width), 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      const float weight = std::exp(weights[i - begin] - chunk_maximum);
      chunk_sum += weight;
      for (int64_t d = 0; d < width; ++d) chunk_values[d] += weight * value(i)[d];
    }
    const float joined = std::max(maximum, chunk_maximum);
    const float keep = std::exp(maximum - joined), add = std::exp(chunk_maximum - joined);
    denominator = denominator * keep + chunk_sum * add;
    for (int64_t d = 0; d < width; ++d) total[d] = total[d] * keep + chunk_values[d] * add;
    maximum = joined;
  }
  for (int64_t d = 0; d < width; ++d) out[d] = count > 0 ? total[d] / denominator : 0.0f;
}

}  // namespace

void ReferenceQueue::write_cache(const WriteCacheArgs& args) {
  const PlaneLayout layout(args.plane);
  for (int64_t r = 0; r < args.keys.shape[0]; ++r) {
    const int64_t entry = written_entry(args, r);
    if (entry < 0) continue;
    for (int64_t g = 0; g < layout.groups; ++g) {
      const int64_t from = (r * layout.groups + g) * layout.width;
      const int64_t to = layout.offset(entry) + g * layout.group_stride();
      std::copy_n(args.keys.data + from, layout.width, args.plane.keys.data + to);
      std::copy_n(args.values.data + from, layout.width, args.plane.values.data + to);
    }
  }
}

void ReferenceQueue::attention(const AttentionArgs& args) {
  const int64_t heads = args.q.shape[1], width = args.q.shape[2];
  const PlaneLayout layout(args.plane);
  for (int64_t r = 0; r < args.q.shape[0]; ++r) {
    const VisibleKeys keys(args, r);
    if (!keys.active()) continue;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t group = h / (heads / layout.groups) * layout.group_stride();
      const auto place = [&](const Tensor& plane) {
        return [&, data = plane.data + group](int64_t i) { return data + layout.offset(keys.entry(i)); };
      };
      attend(args.q.data + (r * heads + h) * width, width, keys.size(), args.scale, place(args.plane.keys),
             place(args.plane.values), args.out.data + (r * heads + h) * width);
    }
  }
}

void ReferenceQueue::attention_weights(const AttentionWeightsArgs& args) {
  const AttentionArgs& attention = args.attention;
  const int64_t heads = attention.q.shape[1], width = attention.q.shape[2];
  const PlaneLayout layout(attention.plane);
  const int64_t group = args.head / (heads / layout.groups) * layout.group_stride();
  const int64_t columns = args.out.shape[1];
  for (int64_t r = 0; r < attention.q.shape[0]; ++r) {
    const VisibleKeys keys(attention, r);
    if (!keys.active()) continue;
    float* out = args.out.data + r * columns;
    const float* q = attention.q.data + (r * heads + args.head) * width;
    VOLLEY_ASSERT(keys.size() <= columns);
    float maximum = -std::numeric_limits<float>::infinity();
    for (int64_t i = 0; i < keys.size(); ++i) {
      const float* key = attention.plane.keys.data + layout.offset(keys.entry(i)) + group;
      float dot = 0.0f;
      for (int64_t d = 0; d < width; ++d) dot += q[d] * key[d];
      out[i] = dot * attention.scale;
      maximum = std::max(maximum, out[i]);
    }
    float sum = 0.0f;
    for (int64_t i = 0; i < keys.size(); ++i) sum += out[i] = std::exp(out[i] - maximum);
    for (int64_t i = 0; i < keys.size(); ++i) out[i] /= sum;
    for (int64_t i = keys.size(); i < columns; ++i) out[i] = 0.0f;
  }
}

void ReferenceQueue::dense_attention(const DenseAttentionArgs& args) {
  const int64_t items = args.q.shape[0], rows = args.q.shape[1], heads = args.q.shape[2],
                width = args.q.shape[3];
  for (int64_t b = 0; b < items; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t h = 0; h < heads; ++h) {
        const auto place = [&](const float* data) {
          return [=](int64_t i) { return data + ((b * rows + i) * heads + h) * width; };
        };
        const int64_t offset = ((b * rows + r) * heads + h) * width;
        attend(args.q.data + offset, width, rows, args.scale, place(args.k.data), place(args.v.data),
               args.out.data + offset);
      }
    }
  }
}

void ReferenceQueue::move_entries(const MoveEntriesArgs& args) {
  const int32_t* pages = args.cache.block_table.data + args.slot * args.cache.block_table.shape[1];
  const auto place = [&](int64_t logical) {
    return int64_t{pages[logical / kPageSize]} * kPageSize + logical % kPageSize;
  };
  for (const CachePlane& plane : args.planes) {
    const PlaneLayout layout(plane);
    for (size_t i = 0; i + 1 < args.moves.size(); i += 2) {
      const int64_t from = layout.offset(place(args.moves[i])), to = layout.offset(place(args.moves[i + 1]));
      if (from == to) continue;
      for (int64_t g = 0; g < layout.groups; ++g) {
        const int64_t group = g * layout.group_stride();
        std::copy_n(plane.keys.data + from + group, layout.width, plane.keys.data + to + group);
        std::copy_n(plane.values.data + from + group, layout.width, plane.values.data + to + group);
      }
    }
  }
  args.cache.lengths.data[args.slot] = args.length;
}

void ReferenceQueue::copy_page(const CopyPageArgs& args) {
  for (const CachePlane& plane : args.planes) {
    const int64_t size = PlaneLayout(plane).page_size();
    std::copy_n(plane.keys.data + args.from * size, size, plane.keys.data + args.to * size);
    std::copy_n(plane.values.data + args.from * size, size, plane.values.data + args.to * size);
  }
}

}  // namespace volley
