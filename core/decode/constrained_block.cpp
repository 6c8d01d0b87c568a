#include "core/decode/constrained_block.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/base/error.h"

namespace volley {
namespace {

constexpr float kSmallest = 1e-30f;

}  // namespace

ConstrainedBlock::ConstrainedBlock(const Constraint& constraint, std::span<const int32_t> stop_tokens,
                                   int64_t vocab)
    : constraint_(constraint), stop_tokens_(stop_tokens), vocab_(vocab) {}

const std::vector<ConstrainedBlock::Edge>& ConstrainedBlock::edges_of(const Place& from) {
  const auto [entry, is_new] = edges_.try_emplace(from.has_ended ? Constraint::kBroken : from.state);
  std::vector<Edge>& edges = entry->second;
  if (!is_new) return edges;
  const auto is_stop = [&](int32_t token) { return std::ranges::count(stop_tokens_, token) > 0; };
  if (!from.has_ended) {
    std::map<Constraint::State, std::vector<int32_t>> by_state;
    constraint_.allowed(from.state)->for_each([&](int32_t token) {
      if (token < vocab_ && !is_stop(token)) by_state[constraint_.next(from.state, token)].push_back(token);
    });
    for (auto& [state, tokens] : by_state)
      edges.push_back({.to = {.state = state}, .tokens = std::move(tokens)});
    if (!constraint_.accepts(from.state)) return edges;
  }
  Edge ending{.to = {.has_ended = true}};
  for (const int32_t token : stop_tokens_) {
    if (token >= 0 && token < vocab_) ending.tokens.push_back(token);
  }
  std::ranges::sort(ending.tokens);
  if (!ending.tokens.empty()) edges.push_back(std::move(ending));
  return edges;
}

bool ConstrainedBlock::is_end(const Place& place, End end) {
  if (place.has_ended || constraint_.accepts(place.state)) return true;
  return end == End::kOpen && !edges_of(place).empty();
}

std::optional<ConstrainedBlock::Choice> ConstrainedBlock::solve(const Request& request) {
  const auto vocab = static_cast<size_t>(vocab_);
  const size_t places = request.hidden.empty() ? request.distribution.size() / vocab : request.hidden.size();
  VOLLEY_ASSERT(request.distribution.size() == places * vocab);

  // The best way to each place that is reached behind i tokens.
  struct Way {
    Place place;
    double log_probability = 0.0;
    size_t from = 0;  // in the layer before
    int32_t token = -1;
  };
  std::vector<std::vector<Way>> layers{{{.place = request.begin}}};
  for (size_t i = 0; i < places; ++i) {
    const bool is_hidden = !request.hidden.empty() && request.hidden[i];
    const float* row = request.distribution.data() + i * vocab;  // [vocab]
    std::vector<Way> next;
    std::map<Constraint::State, size_t> index;  // the ended place is kBroken
    for (size_t w = 0; w < layers.back().size(); ++w) {
      const Way& way = layers.back()[w];
      for (const Edge& edge : edges_of(way.place)) {
        Way longer{.place = edge.to, .log_probability = way.log_probability, .from = w};
        if (!is_hidden) {
          longer.token = *std::ranges::max_element(
              edge.tokens, {}, [&](int32_t token) { return row[static_cast<size_t>(token)]; });
          const float best = row[static_cast<size_t>(longer.token)];
          longer.log_probability += std::log(static_cast<double>(std::max(best, kSmallest)));
        }
        const auto [known, is_new] =
            index.try_emplace(edge.to.has_ended ? Constraint::kBroken : edge.to.state, next.size());
        if (is_new) {
          next.push_back(longer);
        } else if (longer.log_probability > next[known->second].log_probability) {
          next[known->second] = longer;
        }
      }
    }
    layers.push_back(std::move(next));
  }

  const std::vector<Way>& last = layers.back();
  std::optional<size_t> best;
  for (size_t w = 0; w < last.size(); ++w) {
    if (is_end(last[w].place, request.end) &&
        (!best || last[w].log_probability > last[*best].log_probability))
      best = w;
  }
  if (!best) return std::nullopt;
  Choice choice{.tokens = std::vector<int32_t>(places),
                .end = last[*best].place,
                .log_probability = last[*best].log_probability};
  size_t at = *best;
  for (size_t i = places; i > 0; --i) {
    choice.tokens[i - 1] = layers[i][at].token;
    at = layers[i][at].from;
  }
  return choice;
}

}  // namespace volley
