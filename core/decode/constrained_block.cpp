#include "core/decode/constrained_block.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"

namespace volley {
namespace {

constexpr float kSmallest = 1e-30f;

}  // namespace

ConstrainedBlock::ConstrainedBlock(const Constraint& constraint, std::span<const int32_t> stop_tokens,
                                   int64_t vocab, int32_t never)
    : constraint_(constraint), stop_tokens_(stop_tokens), vocab_(vocab), never_(never) {}

bool ConstrainedBlock::is_stop(int32_t token) const {
  return std::ranges::count(stop_tokens_, token) > 0;
}

size_t ConstrainedBlock::node_of(const AutomatonState& at) {
  const Constraint::State key = at.has_ended ? Constraint::kBroken : at.state;
  const auto [entry, is_new] = node_of_state_.try_emplace(key, nodes_.size());
  if (is_new) nodes_.push_back({.at = at});
  return entry->second;
}

void ConstrainedBlock::add_edge(size_t from, const AutomatonState& to, std::vector<int32_t> tokens) {
  const auto [entry, is_new] = list_index_.try_emplace(std::move(tokens), lists_.size());
  if (is_new) {
    lists_.push_back(&entry->first);
    listed_tokens_ += std::ssize(entry->first);
    if (listed_tokens_ > kMaxListedTokens) {
      throw Error("constraint: is too large for a dynamic program: more than " +
                      std::to_string(kMaxListedTokens) + " tokens of different states",
                  ErrorKind::kUsage);
    }
  }
  const size_t target = node_of(to);
  nodes_[from].edges.push_back({.to = target, .list = entry->second});
}

const std::vector<ConstrainedBlock::Edge>& ConstrainedBlock::edges_of(size_t node) {
  if (std::exchange(nodes_[node].is_expanded, true)) return nodes_[node].edges;
  const AutomatonState from = nodes_[node].at;
  if (!from.has_ended) {
    std::unordered_map<Constraint::State, size_t> group;
    std::vector<std::pair<Constraint::State, std::vector<int32_t>>> groups;
    constraint_.allowed(from.state)->for_each([&](int32_t token) {
      if (token >= vocab_ || token == never_ || is_stop(token)) return;
      const Constraint::State to = constraint_.next(from.state, token);
      const auto [entry, is_new] = group.try_emplace(to, groups.size());
      if (is_new) groups.push_back({to, {}});
      groups[entry->second].second.push_back(token);
    });
    std::ranges::sort(groups, {}, [](const auto& one) { return one.first; });
    for (auto& [state, tokens] : groups) add_edge(node, {.state = state}, std::move(tokens));
    if (!constraint_.accepts(from.state)) return nodes_[node].edges;
  }
  std::vector<int32_t> ending;
  for (const int32_t token : stop_tokens_) {
    if (token >= 0 && token < vocab_ && token != never_) ending.push_back(token);
  }
  std::ranges::sort(ending);
  if (!ending.empty()) add_edge(node, {.has_ended = true}, std::move(ending));
  return nodes_[node].edges;
}

std::optional<ConstrainedBlock::AutomatonState> ConstrainedBlock::follow(const AutomatonState& from,
                                                                         int32_t token) const {
  if (is_stop(token))
    return from.has_ended || constraint_.accepts(from.state)
               ? std::optional(AutomatonState{.has_ended = true})
               : std::nullopt;
  if (from.has_ended || token == never_) return std::nullopt;
  const Constraint::State state = constraint_.next(from.state, token);
  return state == Constraint::kBroken ? std::nullopt : std::optional(AutomatonState{.state = state});
}

bool ConstrainedBlock::is_whole(size_t node) const {
  const AutomatonState& at = nodes_[node].at;
  return at.has_ended || constraint_.accepts(at.state);
}

void ConstrainedBlock::expand_all() {
  if (expanded_ == nodes_.size()) return;
  for (; expanded_ < nodes_.size(); ++expanded_) edges_of(expanded_);
  can_end_.clear();
  is_settled_ = false;
}

bool ConstrainedBlock::node_can_end(size_t node, int64_t places) {
  expand_all();
  while (!is_settled_ && std::ssize(can_end_) <= places) {
    std::vector<bool> next(nodes_.size());
    for (size_t n = 0; n < nodes_.size(); ++n) {
      next[n] = can_end_.empty() ? is_whole(n) : std::ranges::any_of(nodes_[n].edges, [&](const Edge& edge) {
        return can_end_.back()[edge.to];
      });
    }
    is_settled_ = !can_end_.empty() && next == can_end_.back();
    if (!is_settled_) can_end_.push_back(std::move(next));
  }
  return can_end_[static_cast<size_t>(std::min(places, std::ssize(can_end_) - 1))][node];
}

bool ConstrainedBlock::can_end(const AutomatonState& at, int64_t places) {
  return node_can_end(node_of(at), places);
}

std::optional<int64_t> ConstrainedBlock::least_places(const AutomatonState& at) {
  const size_t node = node_of(at);
  expand_all();
  for (int64_t places = 0; places < std::ssize(nodes_); ++places) {  // no shortest way comes by a node twice
    if (node_can_end(node, places)) return places;
  }
  return std::nullopt;
}

// The best way to each node that is reached behind i places.
class ConstrainedBlock::Lattice {
 public:
  explicit Lattice(size_t begin) : layers_{{{.node = begin}}} {}

  struct Way {
    size_t node = 0;
    double log_probability = 0.0;
    size_t from = 0;  // in the layer before
    int32_t token = -1;
  };
  const std::vector<Way>& last() const { return layers_.back(); }
  void begin_layer() {
    index_.clear();
    next_.clear();
  }
  // Of equally good ways the first stays.
  void add(const Way& way) {
    const auto [known, is_new] = index_.try_emplace(way.node, next_.size());
    if (is_new) {
      next_.push_back(way);
    } else if (way.log_probability > next_[known->second].log_probability) {
      next_[known->second] = way;
    }
  }
  void end_layer() { layers_.push_back(std::move(next_)); }
  std::vector<int32_t> tokens(size_t at) const {
    std::vector<int32_t> tokens(layers_.size() - 1);
    for (size_t i = tokens.size(); i > 0; --i) {
      tokens[i - 1] = layers_[i][at].token;
      at = layers_[i][at].from;
    }
    return tokens;
  }

 private:
  std::vector<std::vector<Way>> layers_;
  std::vector<Way> next_;
  std::unordered_map<size_t, size_t> index_;
};

std::optional<ConstrainedBlock::Choice> ConstrainedBlock::solve(const Request& request) {
  const auto vocab = static_cast<size_t>(vocab_);
  const size_t places = request.distribution.size() / vocab;
  VOLLEY_ASSERT(request.distribution.size() == places * vocab);
  VOLLEY_ASSERT(request.hidden.empty() || request.hidden.size() == places);
  VOLLEY_ASSERT(request.fixed.empty() || request.fixed.size() == places);

  struct Best {
    int32_t token = -1;
    double log_probability = 0.0;
  };
  const size_t begin = node_of(request.begin);
  Lattice lattice(begin);
  for (size_t i = 0; i < places; ++i) {
    const bool is_hidden = !request.hidden.empty() && request.hidden[i];
    const int32_t fixed = request.fixed.empty() ? -1 : request.fixed[i];
    const float* row = request.distribution.data() + i * vocab;  // [vocab]
    const auto places_behind = static_cast<int64_t>(places - 1 - i) + request.behind;
    const auto leads_on = [&](size_t node) {
      return request.end == End::kOpen || node_can_end(node, places_behind);
    };
    std::unordered_map<size_t, Best> best;  // of a list of tokens, here
    const auto best_of = [&](size_t list) {
      const auto [entry, is_new] = best.try_emplace(list);
      if (!is_new || is_hidden) return entry->second;
      const int32_t token = *std::ranges::max_element(
          *lists_[list], {}, [&](int32_t id) { return row[static_cast<size_t>(id)]; });
      const float weight = std::max(row[static_cast<size_t>(token)], kSmallest);
      return entry->second = {.token = token, .log_probability = std::log(static_cast<double>(weight))};
    };
    lattice.begin_layer();
    for (size_t w = 0; w < lattice.last().size(); ++w) {
      const Lattice::Way& way = lattice.last()[w];
      if (fixed >= 0) {
        const auto to = follow(nodes_[way.node].at, fixed);
        if (!to) continue;
        const size_t node = node_of(*to);
        if (leads_on(node))
          lattice.add({.node = node, .log_probability = way.log_probability, .from = w, .token = fixed});
        continue;
      }
      for (const Edge& edge : edges_of(way.node)) {
        if (!leads_on(edge.to)) continue;
        const Best here = best_of(edge.list);
        lattice.add({.node = edge.to,
                     .log_probability = way.log_probability + here.log_probability,
                     .from = w,
                     .token = here.token});
      }
    }
    lattice.end_layer();
  }

  const auto is_end = [&](size_t node) {
    if (request.end == End::kWhole) return node_can_end(node, request.behind);
    return is_whole(node) || !edges_of(node).empty();
  };
  const std::vector<Lattice::Way>& last = lattice.last();
  std::optional<size_t> best;
  for (size_t w = 0; w < last.size(); ++w) {
    if (is_end(last[w].node) && (!best || last[w].log_probability > last[*best].log_probability)) best = w;
  }
  if (!best) return std::nullopt;
  return Choice{.tokens = lattice.tokens(*best),
                .end = nodes_[last[*best].node].at,
                .log_probability = last[*best].log_probability};
}

}  // namespace volley
