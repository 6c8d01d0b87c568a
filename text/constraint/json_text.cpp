#include "text/constraint/json_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/constraint/code_points.h"

namespace volley::text {

using Node = JsonText::Node;

Node JsonText::either(std::initializer_list<Node> ends) {
  const Node to = graph_.add_node();
  for (const Node end : ends) graph_.add_empty(end, to);
  return to;
}

// A comma or colon, and one space if the model wants it.
Node JsonText::separator(Node from, char mark) {
  const Node behind = graph_.add_text(from, {&mark, 1});
  return either({behind, graph_.add_text(behind, " ")});
}

Node JsonText::key(Node from, const std::string& name) {
  return separator(graph_.add_text(from, nlohmann::json(name).dump()), ':');
}

Node JsonText::digits(Node from, int64_t low, int64_t high) {
  const Node end = graph_.add_node();
  for (int64_t i = 0; i < high; ++i) {
    if (i >= low) graph_.add_empty(from, end);
    const Node next = graph_.add_node();
    graph_.add_edge(from, {'0', '9'}, next);
    from = next;
  }
  graph_.add_empty(from, end);
  return end;
}

Node JsonText::boolean(Node from) {
  return either({graph_.add_text(from, "true"), graph_.add_text(from, "false")});
}

Node JsonText::number(Node from) {
  const Node sign_or_not = either({from, graph_.add_text(from, "-")});
  const Node first = graph_.add_node();
  graph_.add_edge(sign_or_not, {'1', '9'}, first);
  const Node whole = either({graph_.add_text(sign_or_not, "0"), digits(first, 0, kMaxDigits - 1)});
  const Node fraction = either({whole, digits(graph_.add_text(whole, "."), 1, kMaxDigits)});
  const Node mark = either({graph_.add_text(fraction, "e"), graph_.add_text(fraction, "E")});
  const Node sign = either({mark, graph_.add_text(mark, "+"), graph_.add_text(mark, "-")});
  return either({fraction, digits(sign, 1, kMaxExponentDigits)});
}

void JsonText::natural(Node from, int64_t low, int64_t high, Node to) {
  if (low > high) return;
  // Ranges of one length, cut until each digit runs through a range of its own.
  int64_t power = 10;
  while (power <= low) power *= 10;
  if (high >= power) {
    natural(from, low, power - 1, to);
    return natural(from, power, high, to);
  }
  for (int64_t step = 10; step < power; step *= 10) {
    if (low / step == high / step) continue;
    if (low % step != 0) {
      natural(from, low, low / step * step + step - 1, to);
      return natural(from, low / step * step + step, high, to);
    }
    if (high % step != step - 1) {
      natural(from, low, high / step * step - 1, to);
      return natural(from, high / step * step, high, to);
    }
  }
  const std::string lowest = std::to_string(low), highest = std::to_string(high);
  for (size_t i = 0; i < lowest.size(); ++i) {
    const Node next = i + 1 == lowest.size() ? to : graph_.add_node();
    graph_.add_edge(from, {static_cast<uint8_t>(lowest[i]), static_cast<uint8_t>(highest[i])}, next);
    from = next;
  }
}

Node JsonText::integer(Node from, std::optional<int64_t> low, std::optional<int64_t> high) {
  int64_t most = 1;
  for (int64_t i = 0; i < kMaxDigits; ++i) most *= 10;
  --most;
  const Node to = graph_.add_node();
  const int64_t least = std::max(low.value_or(-most), -most), greatest = std::min(high.value_or(most), most);
  natural(from, std::max<int64_t>(least, 0), greatest, to);
  if (least < 0) {
    const Node negative = graph_.add_text(from, "-");
    natural(negative, std::max<int64_t>(-greatest, 1), -least, to);
  }
  return to;
}

Node JsonText::string(Node from, int64_t low, std::optional<int64_t> high) {
  // Control characters without a short escape have no place in a text.
  static const CodePoints kCharacters = CodePoints{{0, 7}, {0x0B, 0x0B}, {0x0E, 0x1F}}.complement();
  from = graph_.add_text(from, "\"");
  const auto character = [&](Node begin) {
    const Node end = graph_.add_node();
    add_character(graph_, begin, kCharacters, Spelling::kJsonString, end);
    return end;
  };
  for (int64_t i = 0; i < low; ++i) from = character(from);
  if (!high) {
    const Node loop = graph_.add_node();
    graph_.add_empty(from, loop);
    graph_.add_empty(character(loop), loop);
    return graph_.add_text(loop, "\"");
  }
  const Node end = graph_.add_node();
  for (int64_t i = low; i < *high; ++i) {
    graph_.add_empty(from, end);
    from = character(from);
  }
  if (low <= *high) graph_.add_empty(from, end);
  return graph_.add_text(end, "\"");
}

Node JsonText::array(Node from, int64_t low, std::optional<int64_t> high, const AddValue& add_item) {
  const Node end = graph_.add_node();
  const auto close = [&](Node last) { graph_.add_empty(graph_.add_text(last, "]"), end); };
  Node at = graph_.add_text(from, "[");
  const int64_t listed = high ? *high : std::max<int64_t>(low, 1);  // items with a piece of the graph each
  if (high && *high < low) return end;                              // nothing leads there
  for (int64_t i = 0; i < listed; ++i) {
    if (i >= low) close(at);
    at = add_item(i == 0 ? at : separator(at, ','));
  }
  if (!high) {
    const Node loop = graph_.add_node();
    graph_.add_empty(at, loop);
    graph_.add_empty(add_item(separator(loop, ',')), loop);
    at = loop;
  }
  close(at);
  return end;
}

Node JsonText::object(Node from, const std::vector<Property>& properties) {
  // Two tracks: no property came yet, and some did; only then a comma stands before the next.
  Node none = graph_.add_text(from, "{");
  Node some = graph_.add_node();
  for (const Property& property : properties) {
    const Node begin = either({none, separator(some, ',')});
    const Node end = property.add_value(key(begin, property.name));
    const Node next_none = graph_.add_node(), next_some = graph_.add_node();
    graph_.add_empty(end, next_some);
    if (!property.is_required) {
      graph_.add_empty(none, next_none);
      graph_.add_empty(some, next_some);
    }
    none = next_none;
    some = next_some;
  }
  return graph_.add_text(either({none, some}), "}");
}

Node JsonText::map(Node from, const AddValue& add_value) {
  const Node begin = graph_.add_text(from, "{");
  const Node property = graph_.add_node(), behind = graph_.add_node();
  graph_.add_empty(begin, property);
  graph_.add_empty(add_value(separator(string(property), ':')), behind);
  graph_.add_empty(separator(behind, ','), property);
  return either({graph_.add_text(begin, "}"), graph_.add_text(behind, "}")});
}

Node JsonText::any(Node from, int64_t depth) {
  const Node scalar = either({graph_.add_text(from, "null"), boolean(from), number(from), string(from)});
  if (depth == 0) return scalar;
  const AddValue inner = [&](Node before) { return any(before, depth - 1); };
  return either({scalar, array(from, 0, std::nullopt, inner), map(from, inner)});
}

}  // namespace volley::text
