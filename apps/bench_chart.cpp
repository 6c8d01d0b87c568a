#include "apps/bench_chart.h"

#include <algorithm>
#include <vector>

#include "apps/bench_table.h"
#include "apps/console.h"
#include "apps/markup.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

// Pixels.
constexpr double kWidth = 980, kMargin = 20, kNameEnd = 270, kBarStart = 280, kBarLength = 320;
constexpr double kBar = 14, kBarGap = 3, kRowGap = 10, kLine = 18, kCap = 4;
constexpr size_t kLongestText = 1000, kShownName = 40, kLongestLine = 130;

struct Bar {
  SampleSummary summary;
  std::string color;
  std::string text;  // behind the bar
};
struct ChartRow {
  std::string name;
  std::vector<Bar> bars;
};
// Rows of one unit and direction.
struct ChartGroup {
  std::string unit;
  Better better = Better::kLower;
  std::vector<ChartRow> rows;
};

std::string number(double value) {
  return fixed(value, 1);
}

// Cut to so many bytes, not within a character.
std::string shortened(const std::string& text, size_t length) {
  const std::string shown = printable(text, kLongestText);
  if (shown.size() <= length) return shown;
  size_t end = length - 1;
  while (end > 0 && (static_cast<unsigned char>(shown[end]) & 0xc0) == 0x80) --end;
  return shown.substr(0, end) + "\xe2\x80\xa6";
}

// Draws from top to bottom.
class Chart {
 public:
  void line(const std::string& text, const char* style) {
    y_ += kLine;
    body_ += label({.x = kMargin, .y = y_ - 5, .style = style, .text = text});
  }
  void gap(double height) { y_ += height; }

  void group(const ChartGroup& group) {
    gap(kRowGap);
    line(group.unit + (group.better == Better::kHigher ? ", more is better" : ", less is better"), "g");
    gap(4);
    double most = 0.0;
    for (const ChartRow& row : group.rows) {
      for (const Bar& bar : row.bars) most = std::max({most, bar.summary.high, bar.summary.median});
    }
    for (const ChartRow& row : group.rows) draw(row, most);
  }

  std::string svg() const {
    const std::string size = "width=\"" + number(kWidth) + "\" height=\"" + number(y_ + kMargin) + "\"";
    return "<svg xmlns=\"http://www.w3.org/2000/svg\" " + size + " viewBox=\"0 0 " + number(kWidth) + " " +
           number(y_ + kMargin) +
           "\" font-family=\"system-ui,Helvetica,Arial,sans-serif\" font-size=\"12\">\n<style>"
           "text{fill:#222}.t{font-weight:bold;font-size:15px}.c{fill:#666;font-size:11px}"
           ".g{font-weight:bold}.n{text-anchor:end}.w{stroke:#222;stroke-width:1.2;fill:none}</"
           "style>\n<rect " +
           size + " fill=\"#fff\"/>\n" + body_ + "</svg>\n";
  }

 private:
  struct Label {
    double x = 0.0;
    double y = 0.0;
    const char* style = "";
    std::string text;
  };
  static std::string label(const Label& what) {
    return "<text x=\"" + number(what.x) + "\" y=\"" + number(what.y) + "\" class=\"" + what.style + "\">" +
           escaped_markup(what.text) + "</text>\n";
  }

  void draw(const ChartRow& row, double most) {
    const double height = static_cast<double>(row.bars.size()) * (kBar + kBarGap) - kBarGap;
    body_ += label({.x = kNameEnd, .y = y_ + height / 2 + 4, .style = "n", .text = row.name});
    for (const Bar& bar : row.bars) {
      const auto place = [&](double value) {
        return kBarStart + (most > 0.0 ? kBarLength * (value / most) : 0.0);
      };
      const double low = place(bar.summary.low), high = place(bar.summary.high), middle = y_ + kBar / 2;
      body_ += "<rect x=\"" + number(kBarStart) + "\" y=\"" + number(y_) + "\" width=\"" +
               number(place(bar.summary.median) - kBarStart) + "\" height=\"" + number(kBar) + "\" fill=\"" +
               bar.color + "\"/>\n";
      const auto cap = [&](double x) {
        return "M" + number(x) + " " + number(middle - kCap) + "V" + number(middle + kCap);
      };
      body_ += "<path class=\"w\" d=\"M" + number(low) + " " + number(middle) + "H" + number(high) +
               cap(low) + cap(high) + "\"/>\n";
      body_ += label({.x = kBarStart + kBarLength + 10, .y = y_ + kBar - 3, .text = bar.text});
      y_ += kBar + kBarGap;
    }
    y_ += kRowGap - kBarGap;
  }

  std::string body_;
  double y_ = kMargin / 2;
};

std::string value_text(const SampleSummary& summary) {
  return four_digits(summary.median) + "  (" + four_digits(summary.low) + ".." + four_digits(summary.high) +
         ")";
}

void add_row(std::vector<ChartGroup>& groups, const BenchRow& like, std::vector<Bar> bars) {
  const auto fits = [&](const ChartGroup& group) {
    return group.unit == like.unit && group.better == like.better;
  };
  auto group = std::ranges::find_if(groups, fits);
  if (group == groups.end()) group = groups.insert(groups.end(), {.unit = like.unit, .better = like.better});
  group->rows.push_back({.name = shortened(like.name, kShownName), .bars = std::move(bars)});
}

std::string drawn(Chart& chart, const std::vector<ChartGroup>& groups, const std::vector<BenchRow>& rows) {
  for (const ChartGroup& group : groups) chart.group(group);
  chart.gap(kRowGap);
  for (const std::string& note : interval_notes(rows)) chart.line(note, "c");
  return chart.svg();
}

}  // namespace

std::string bench_svg(const BenchResult& result) {
  Chart chart;
  chart.line("volley bench text", "t");
  for (const std::string& line : bench_caption(result)) chart.line(shortened(line, kLongestLine), "c");
  std::vector<ChartGroup> groups;
  for (const BenchRow& row : result.rows) {
    const SampleSummary summary = summarize(row.samples);
    add_row(groups, row, {{.summary = summary, .color = "#4a90c2", .text = value_text(summary)}});
  }
  return drawn(chart, groups, result.rows);
}

std::string comparison_svg(const BenchComparison& comparison, const std::string& old_path,
                           const std::string& new_path) {
  Chart chart;
  chart.line("volley bench diff", "t");
  chart.line("upper bars: " + shortened(old_path, kLongestLine), "c");
  chart.line("lower bars: " + shortened(new_path, kLongestLine), "c");
  for (const std::string& difference : comparison.differences)
    chart.line("not the same: " + shortened(difference, kLongestLine), "c");
  std::vector<ChartGroup> groups;
  std::vector<BenchRow> rows;
  for (const ComparedRow& row : comparison.rows) {
    const bool is_gain = row.verdict == Verdict::kFaster || row.verdict == Verdict::kBetter;
    const char* color = row.verdict == Verdict::kNoDifference ? "#4a90c2" : is_gain ? "#3f9e63" : "#c8553d";
    const std::string ratio = row.ratio > 0.0 ? ", x " + four_digits(row.ratio) : "";
    add_row(groups, row.before,
            {{.summary = row.old_summary, .color = "#b8bfc6", .text = value_text(row.old_summary)},
             {.summary = row.new_summary,
              .color = color,
              .text = value_text(row.new_summary) + "  " + std::string(verdict_name(row.verdict)) + ratio}});
    rows.push_back(row.before);
    rows.push_back(row.after);
  }
  return drawn(chart, groups, rows);
}

}  // namespace volley::apps
