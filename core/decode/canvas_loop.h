#pragma once

#include <vector>

#include "core/decode/generation.h"
#include "core/decode/observer.h"
#include "core/decode/session.h"

namespace volley {

// Runs outputs that are filled place by place, each with its own steps, until all are finished or the stop
// token asks. A canvas is one output in the making, with
//   is_finished(), take_output()
//   add_to(steps)          adds its next forward
//   keep_entries()         behind the forward: what the cache keeps of it
//   add_sample_rows(rows)  what it asks of the forward's logits
//   take(samples, index, control)
template <typename Canvas>
std::vector<GenerationOutput> run_canvases(Session& session, std::vector<Canvas>& canvases,
                                           const SampleWants& wants, const DecodeControl& control) {
  while (!control.stop.stop_requested()) {
    std::vector<SequenceStep> steps;
    std::vector<SampleRow> rows;
    std::vector<size_t> active;
    for (size_t i = 0; i < canvases.size(); ++i) {
      if (canvases[i].is_finished()) continue;
      active.push_back(i);
      canvases[i].add_to(steps);
    }
    if (active.empty()) break;
    session.step(steps);
    for (const size_t i : active) {
      canvases[i].keep_entries();
      canvases[i].add_sample_rows(rows);
    }
    const Samples samples = rows.empty() ? Samples{} : session.sample(rows, {}, wants);
    for (const size_t i : active) canvases[i].take(samples, static_cast<int64_t>(i), control);
  }
  std::vector<GenerationOutput> outputs;
  for (Canvas& canvas : canvases) outputs.push_back(canvas.take_output());
  return outputs;
}

}  // namespace volley
