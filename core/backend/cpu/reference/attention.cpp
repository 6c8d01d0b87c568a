// Reference attention and cache operations.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/backend/cpu/reference/reference_queue.h"
#include "core/backend/visible_keys.h"

namespace volley {
namespace {

float element(const std::byte* elements, CacheType type, int64_t i) {
  return type == CacheType::kF32 ? reinterpret_cast<const float*>(elements)[i]
                                 : bf16_to_f32(reinterpret_cast<const uint16_t*>(elements)[i]);
}

void set_element(std::byte* elements, CacheType type, int64_t i, float value) {
  if (type == CacheType::kF32) {
    reinterpret_cast<float*>(elements)[i] = value;
  } else {
    reinterpret_cast<uint16_t*>(elements)[i] = f32_to_bf16(value);
  }
}

// One query against `count` keys: scores of a chunk, its maximum, its sum and its weighted values, then the
// join. key(i, d) and value(i, d) are element d of the i-th visible key and value.
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
      for (int64_t d = 0; d < width; ++d) dot += q[d] * key(i, d);
      weights.push_back(dot * scale);
      chunk_maximum = std::max(chunk_maximum, weights.back());
    }
    float chunk_sum = 0.0f;
    std::vector<float> chunk_values(static_cast<size_t>(width), 0.0f);
    for (int64_t i = begin; i < end; ++i) {
      const float weight = std::exp(weights[i - begin] - chunk_maximum);
      chunk_sum += weight;
      for (int64_t d = 0; d < width; ++d) chunk_values[d] += weight * value(i, d);
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
      for (int64_t d = 0; d < layout.width; ++d) {
        set_element(args.plane.keys, args.plane.type, to + d, args.keys.data[from + d]);
        set_element(args.plane.values, args.plane.type, to + d, args.values.data[from + d]);
      }
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
      const auto reader = [&](const std::byte* elements) {
        return [&, elements](int64_t i, int64_t d) {
          return element(elements, args.plane.type, layout.offset(keys.entry(i)) + group + d);
        };
      };
      attend(args.q.data + (r * heads + h) * width, width, keys.size(), args.scale, reader(args.plane.keys),
             reader(args.plane.values), args.out.data + (r * heads + h) * width);
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
      const int64_t key = layout.offset(keys.entry(i)) + group;
      float dot = 0.0f;
      for (int64_t d = 0; d < width; ++d) {
        dot += q[d] * element(attention.plane.keys, attention.plane.type, key + d);
      }
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
        const auto reader = [&](const float* data) {
          return [=](int64_t i, int64_t d) { return data[((b * rows + i) * heads + h) * width + d]; };
        };
        const int64_t offset = ((b * rows + r) * heads + h) * width;
        attend(args.q.data + offset, width, rows, args.scale, reader(args.k.data), reader(args.v.data),
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
    const int64_t bytes = cache_element_bytes(plane.type);
    for (size_t i = 0; i + 1 < args.moves.size(); i += 2) {
      const int64_t from = layout.offset(place(args.moves[i])), to = layout.offset(place(args.moves[i + 1]));
      if (from == to) continue;
      for (int64_t g = 0; g < layout.groups; ++g) {
        const int64_t source = (from + g * layout.group_stride()) * bytes;
        const int64_t target = (to + g * layout.group_stride()) * bytes;
        std::copy_n(plane.keys + source, layout.width * bytes, plane.keys + target);
        std::copy_n(plane.values + source, layout.width * bytes, plane.values + target);
      }
    }
  }
  args.cache.lengths.data[args.slot] = args.length;
}

void ReferenceQueue::copy_page(const CopyPageArgs& args) {
  for (const CachePlane& plane : args.planes) {
    const int64_t bytes = PlaneLayout(plane).page_size() * cache_element_bytes(plane.type);
    std::copy_n(plane.keys + args.from * bytes, bytes, plane.keys + args.to * bytes);
    std::copy_n(plane.values + args.from * bytes, bytes, plane.values + args.to * bytes);
  }
}

}  // namespace volley
