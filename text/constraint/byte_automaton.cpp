#include "text/constraint/byte_automaton.h"

#include <algorithm>
#include <string>
#include <unordered_map>

namespace volley::text {

ByteAutomaton::State ByteAutomaton::next(State state, std::string_view bytes) const {
  for (const char byte : bytes) {
    if (state == kBroken) break;
    state = next(state, static_cast<unsigned char>(byte));
  }
  return state;
}

bool ByteAutomaton::matches(std::string_view bytes) const {
  const State state = next(start(), bytes);
  return state != kBroken && accepts(state);
}

std::string ByteAutomaton::forced(State state, size_t most) const {
  std::string bytes;
  while (bytes.size() < most && !accepts(state)) {
    int only = -1, choices = 0;
    for (int byte = 0; byte < 256 && choices < 2; ++byte) {
      if (next(state, static_cast<unsigned char>(byte)) == kBroken) continue;
      only = byte;
      ++choices;
    }
    if (choices != 1) break;
    bytes += static_cast<char>(only);
    state = next(state, static_cast<unsigned char>(only));
  }
  return bytes;
}

ByteGraph::Node ByteGraph::add_node() {
  if (nodes_ == kMaxNodes) throw Fault{"is too large: more than " + std::to_string(kMaxNodes) + " parts"};
  return nodes_++;
}

ByteGraph::Node ByteGraph::add_text(Node from, std::string_view bytes) {
  for (const char byte : bytes) {
    const auto value = static_cast<uint8_t>(byte);
    const Node to = add_node();
    add_edge(from, {value, value}, to);
    from = to;
  }
  return from;
}

// The subset construction over nodes from which the accepting one can be reached: what is left of a set of
// nodes then always leads somewhere.
class ByteGraph::Determinizer {
 public:
  Determinizer(const ByteGraph& graph, Node accept) : graph_(graph), accept_(accept) {
    sort_edges();
    find_live();
    find_classes();
  }

  Result<ByteAutomaton> run(Node start) {
    if (!live_[static_cast<size_t>(start)]) return Fault{"matches nothing"};
    state_of(closure_of({start}));
    const auto classes = static_cast<size_t>(made_.classes_);
    std::vector<std::vector<Node>> targets(classes);
    for (size_t state = 0; state < sets_.size(); ++state) {
      if (std::ssize(sets_) > ByteAutomaton::kMaxStates || work_ > kMaxWork || kept_ > kMaxKept) {
        return Fault{"is too large: more than " + std::to_string(ByteAutomaton::kMaxStates) +
                     " states; shorter counts and fewer alternatives need fewer"};
      }
      for (const Node node : *sets_[state]) {
        for (size_t e = first_edge_[static_cast<size_t>(node)];
             e < first_edge_[static_cast<size_t>(node) + 1]; ++e) {
          const Edge& edge = edges_[e];
          const size_t low = made_.class_of_[edge.bytes.low], high = made_.class_of_[edge.bytes.high];
          for (size_t c = low; c <= high; ++c) targets[c].push_back(edge.to);
          work_ += static_cast<int64_t>(high - low) + 1;
        }
      }
      for (size_t c = 0; c < classes; ++c) {
        if (targets[c].empty()) {
          made_.table_.push_back(ByteAutomaton::kBroken);
          continue;
        }
        // Neighbours often go the same way.
        const bool repeats = c > 0 && targets[c] == last_targets_;
        if (!repeats) {
          last_targets_ = targets[c];
          last_state_ = state_of(closure_of(targets[c]));
        }
        made_.table_.push_back(last_state_);
      }
      for (std::vector<Node>& some : targets) some.clear();
      last_targets_.clear();
    }
    return std::move(made_);
  }

 private:
  static constexpr int64_t kMaxWork = 200'000'000;  // steps: a second or two
  static constexpr int64_t kMaxKept = 20'000'000;   // nodes of all sets together

  struct SetHash {
    size_t operator()(const std::vector<Node>& set) const {
      uint64_t hash = set.size();
      for (const Node node : set) hash = (hash ^ static_cast<uint64_t>(node)) * 0x9e3779b97f4a7c15u;
      return hash ^ hash >> 32;
    }
  };

  void sort_edges() {
    const auto nodes = static_cast<size_t>(graph_.nodes_);
    edges_ = graph_.edges_;
    empties_ = graph_.empties_;
    std::ranges::stable_sort(edges_, {}, &Edge::from);
    std::ranges::stable_sort(empties_, {}, &Empty::from);
    first_edge_.assign(nodes + 1, 0);
    first_empty_.assign(nodes + 1, 0);
    for (const Edge& edge : edges_) ++first_edge_[static_cast<size_t>(edge.from) + 1];
    for (const Empty& empty : empties_) ++first_empty_[static_cast<size_t>(empty.from) + 1];
    for (size_t n = 0; n < nodes; ++n) {
      first_edge_[n + 1] += first_edge_[n];
      first_empty_[n + 1] += first_empty_[n];
    }
  }

  void find_live() {
    std::vector<Empty> back;  // every arrow, turned round
    for (const Edge& edge : edges_) back.push_back({edge.to, edge.from});
    for (const Empty& empty : empties_) back.push_back({empty.to, empty.from});
    std::ranges::sort(back, {}, &Empty::from);
    live_.assign(static_cast<size_t>(graph_.nodes_), false);
    std::vector<Node> open{accept_};
    live_[static_cast<size_t>(accept_)] = true;
    while (!open.empty()) {
      const Node node = open.back();
      open.pop_back();
      for (auto arrow = std::ranges::lower_bound(back, node, {}, &Empty::from);
           arrow != back.end() && arrow->from == node; ++arrow) {
        if (live_[static_cast<size_t>(arrow->to)]) continue;
        live_[static_cast<size_t>(arrow->to)] = true;
        open.push_back(arrow->to);
      }
    }
  }

  void find_classes() {
    std::array<bool, 257> begins{};
    for (const Edge& edge : edges_) {
      begins[edge.bytes.low] = true;
      begins[static_cast<size_t>(edge.bytes.high) + 1] = true;
    }
    for (size_t byte = 0; byte < 256; ++byte) {
      if (byte > 0 && begins[byte]) ++made_.classes_;
      made_.class_of_[byte] = static_cast<uint8_t>(made_.classes_);
    }
    ++made_.classes_;
  }

  // The live nodes that are reached from some without a byte; of those only the ones that count: with edges,
  // or accepting. Sorted.
  std::vector<Node> closure_of(const std::vector<Node>& from) {
    if (seen_.empty()) seen_.assign(live_.size(), 0);
    ++turn_;
    std::vector<Node> open, set;
    const auto visit = [&](Node node) {
      const auto n = static_cast<size_t>(node);
      if (!live_[n] || seen_[n] == turn_) return;
      seen_[n] = turn_;
      open.push_back(node);
    };
    for (const Node node : from) visit(node);
    while (!open.empty()) {
      const Node node = open.back();
      open.pop_back();
      const auto n = static_cast<size_t>(node);
      if (node == accept_ || first_edge_[n] != first_edge_[n + 1]) set.push_back(node);
      for (size_t e = first_empty_[n]; e < first_empty_[n + 1]; ++e) visit(empties_[e].to);
      work_ += 1 + static_cast<int64_t>(first_empty_[n + 1] - first_empty_[n]);
    }
    std::ranges::sort(set);
    return set;
  }

  ByteAutomaton::State state_of(std::vector<Node> set) {
    if (set.empty()) return ByteAutomaton::kBroken;
    const auto [entry, is_new] = state_of_set_.emplace(std::move(set), static_cast<int32_t>(sets_.size()));
    if (is_new) {
      sets_.push_back(&entry->first);
      made_.accepts_.push_back(std::ranges::binary_search(entry->first, accept_));
      kept_ += std::ssize(entry->first);
    }
    return entry->second;
  }

  const ByteGraph& graph_;
  Node accept_;
  std::vector<Edge> edges_;     // by `from`
  std::vector<Empty> empties_;  // by `from`
  std::vector<size_t> first_edge_, first_empty_;
  std::vector<bool> live_;
  std::vector<int64_t> seen_;  // the turn in which a node was last met
  int64_t turn_ = 0;
  int64_t work_ = 0, kept_ = 0;
  std::unordered_map<std::vector<Node>, ByteAutomaton::State, SetHash> state_of_set_;
  std::vector<const std::vector<Node>*> sets_;  // by state
  std::vector<Node> last_targets_;
  ByteAutomaton::State last_state_ = ByteAutomaton::kBroken;
  ByteAutomaton made_;
};

Result<ByteAutomaton> ByteGraph::determinize(Node start, Node accept) const {
  return Determinizer(*this, accept).run(start);
}

}  // namespace volley::text
