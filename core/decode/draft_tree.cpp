#include "core/decode/draft_tree.h"

#include "core/base/error.h"

namespace volley {

int32_t DraftTree::add(int32_t parent, int32_t token) {
  VOLLEY_ASSERT(parent >= -1 && parent < size());
  tokens.push_back(token);
  parents.push_back(parent);
  return static_cast<int32_t>(size()) - 1;
}

int64_t DraftTree::depth(int32_t node) const {
  int64_t depth = 0;
  for (; node >= 0; node = parents[static_cast<size_t>(node)]) ++depth;
  return depth;
}

void DraftTree::limit_depth(int64_t limit) {
  const int64_t vocab = empty() ? 0 : static_cast<int64_t>(distribution.size()) / size();
  DraftTree kept;
  std::vector<int32_t> renamed(tokens.size(), -1);
  for (int32_t node = 0; node < size(); ++node) {
    if (depth(node) > limit) continue;
    const int32_t parent = parents[static_cast<size_t>(node)];
    renamed[static_cast<size_t>(node)] =
        kept.add(parent < 0 ? -1 : renamed[static_cast<size_t>(parent)], tokens[static_cast<size_t>(node)]);
    const auto row = distribution.begin() + node * vocab;
    kept.distribution.insert(kept.distribution.end(), row, row + vocab);
  }
  *this = std::move(kept);
}

std::vector<int32_t> DraftTree::children(int32_t node) const {
  std::vector<int32_t> found;
  for (int32_t i = 0; i < size(); ++i) {
    if (parents[static_cast<size_t>(i)] == node) found.push_back(i);
  }
  return found;
}

DraftTree DraftTree::chain(std::span<const int32_t> tokens) {
  DraftTree tree;
  for (int32_t token : tokens) tree.add(static_cast<int32_t>(tree.size()) - 1, token);
  return tree;
}

}  // namespace volley
