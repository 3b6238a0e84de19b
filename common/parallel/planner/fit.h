// How the constants of a calibration are found: by making the planner agree with measurements.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/parallel/planner/calibration.h"

namespace llm::planner {

/// `start` with the named constants changed, by steps up and down of each, so that the sum of the losses of
/// all residuals is small. Residuals are logarithms of predicted over measured; one beyond `outlier` counts
/// by its size, a smaller one by its square, so a run that went wrong for reasons of its own bends the fit
/// little. Constants stay
/// positive, and efficiencies at most 1.
Calibration fit(const Calibration& start, const std::vector<std::string>& constants, double outlier,
                const std::function<std::vector<double>(const Calibration&)>& residuals);

/// "megatron", from tables 1 and 2 of Narayanan et al. 2021 and table 5 of Korthikanti et al. 2022.
Calibration fit_megatron(const std::filesystem::path& tables);
/// "nanotron", from those runs of the Ultra-Scale Playbook that are not held out.
Calibration fit_nanotron(const std::filesystem::path& tables);

}  // namespace llm::planner
